"""What a kernel's process wrote to its own stderr last: the one trace that a crash leaves.

It writes to a file without a name, which blocks nobody, needs no reader, and is gone with the last process that has it
open. A pipe would stop the kernel while the server is busy, and end what a kernel leaves running in the background.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import tempfile
from typing import Dict, Optional, Set

log = logging.getLogger(__name__)

LINES = 10
SIZE = 2048
"""What is told at most: so many lines, and so many characters."""

KEPT = 64 * 1024
"""Bytes; a file that is larger is emptied, its end remembered."""

_PIPE = 64 * 1024
_READ = 16 * 1024

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CRASHED_THREAD = "Current thread 0x"


class LastWords:
    """The stderr of one kernel, over all its processes; given to `Popen` as it is.

    Args:
        folder: Where the file lies.

    Raises:
        OSError: No file can be made there.
    """

    def __init__(self, folder: str) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115  (open as long as the kernel is there)
        # Each process writes at the end, wherever that is after the file was emptied.
        fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) | os.O_APPEND)
        self._older = b""
        self._pipe: Optional[int] = None
        self._process: Optional[int] = None

    def fileno(self) -> int:
        """Give the file's descriptor."""
        return self._file.fileno()

    def forget(self) -> None:
        """Forget what was written: it came of a process that is replaced now."""
        self._close_pipe()
        self._older, self._process = b"", None
        os.ftruncate(self.fileno(), 0)

    def came_up(self, pid: Optional[int]) -> None:
        """Hear that a process is about to be given its first request: what it said while it started means nothing."""
        if pid is not None and pid != self._process:
            self.forget()
            self._process, self._pipe = pid, _stderr_pipe(pid)

    def shorten(self) -> None:
        """Empty a file that has grown."""
        if os.fstat(self.fileno()).st_size > KEPT:
            self._older = self._end_of_file()
            os.ftruncate(self.fileno(), 0)

    def tell(self) -> str:
        """Give the last lines, without control characters; empty where there are none. For a process that ended."""
        self._drain_pipe()
        return readable(self._older + self._end_of_file())

    def close(self) -> None:
        """Let go of the file."""
        self._close_pipe()
        self._file.close()

    def _end_of_file(self) -> bytes:
        return os.pread(self.fileno(), _READ, max(0, os.fstat(self.fileno()).st_size - _READ))

    def _drain_pipe(self) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                self._older += self._end_of_file() + os.read(self._pipe, _PIPE)
                os.ftruncate(self.fileno(), 0)
        self._close_pipe()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)


class LastWordsOfKernels:
    """The `LastWords` of each kernel that was started with it; of others, nothing is known.

    Args:
        folder: Where their files lie.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._words: Dict[str, LastWords] = {}

    def begin(self, kernel_id: str) -> Optional[LastWords]:
        """Give what a kernel that is about to be started gets as stderr; None where there is no room for it."""
        try:
            self._words[kernel_id] = LastWords(self._folder)
        except OSError as error:
            log.warning("what kernel %s writes to stderr will not be known: %s", kernel_id, error)
        return self._words.get(kernel_id)

    def forget(self, kernel_id: str) -> None:
        """See `LastWords.forget`."""
        if kernel_id in self._words:
            self._words[kernel_id].forget()

    def came_up(self, kernel_id: str, pid: Optional[int]) -> None:
        """See `LastWords.came_up`."""
        if kernel_id in self._words:
            self._words[kernel_id].came_up(pid)

    def tell(self, kernel_id: str) -> str:
        """See `LastWords.tell`."""
        return self._words[kernel_id].tell() if kernel_id in self._words else ""

    def tidy(self, kernel_ids: Set[str]) -> None:
        """Shorten what these kernels wrote, and close what belonged to others."""
        for kernel_id in list(self._words):
            if kernel_id in kernel_ids:
                self._words[kernel_id].shorten()
            else:
                self._words.pop(kernel_id).close()


def describe_end(code: Optional[int], words: str) -> str:
    """Say how a process ended, and what it wrote to stderr last.

    Args:
        code: As `Popen.poll` gives it; None where it is not known.
        words: See `LastWords.tell`.
    """
    return "%s Its last words on stderr:\n%s" % (_describe_code(code), words) if words else _describe_code(code)


def _describe_code(code: Optional[int]) -> str:
    if code is None:
        return "The kernel's process has ended."
    if code >= 0:
        return "The kernel's process ended by itself, with exit code %d." % code
    if -code == signal.SIGKILL:
        return "The kernel's process was killed (SIGKILL); the usual cause is that the workspace ran out of memory."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "signal %d" % -code
    return "The kernel's process was ended by %s." % name


def _stderr_pipe(pid: int) -> Optional[int]:
    """Give a reading end of the pipe that a process has put in its stderr's place; None where there is none.

    ipykernel does so to show in the cell what libraries write, by a thread that a crash stops. What the thread has not
    read is in the pipe for as long as somebody has that open. Nothing is read while the process lives.
    """
    path = "/proc/%d/fd/2" % pid
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK) if os.readlink(path).startswith("pipe:") else None
    except OSError:
        return None


def readable(data: bytes) -> str:
    """Give the last lines of an output for a person, or where Python's fault handler wrote, those that say where.

    The fault handler writes a stack for each thread, latest call first (the one that crashed comes last).
    """
    text = _ESCAPE.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n")).replace("\r", "\n")
    lines = [line.rstrip() for line in _CONTROL.sub("", text).split("\n") if line.strip()]
    crashed = [number for number, line in enumerate(lines) if line.startswith(_CRASHED_THREAD)]
    if crashed:
        return "\n".join(lines[crashed[-1] :][:LINES])[:SIZE]
    return "\n".join(lines[-LINES:])[-SIZE:]
