"""How a broker becomes nobody's child, and how its starter learns that it serves, or why not."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from codespace_kernels import platforms
from codespace_kernels.broker.process import log_path, set_up_logging
from codespace_kernels.errors import BrokerError, CodespaceKernelsError
from codespace_kernels.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Serve = Callable[[Callable[[str], None]], None]

SERVES = "ok"
"""What a broker says to its starter when it serves; else it says why not, and ends."""

_END_SECONDS = 5.0
_STDOUT = 1
_STANDARD_STREAMS = (0, _STDOUT, 2)


def run_daemon(serve: Serve, arguments: Sequence[str]) -> int:
    """Run a broker in a detached process; return when it says that it serves, or why it does not.

    The end of the process that calls this is what makes the broker nobody's descendant, so that a front end that ends
    all its descendants does not reach it.

    Args:
        serve: Runs the broker; called in the child with a function to call once: with an empty text when it serves.
        arguments: Of the command line, to the same end, where a process cannot be forked.

    Returns:
        Exit code for the caller: 0 when the broker serves, else the broker's.
    """
    return _spawn(arguments) if platforms.is_windows() else _fork(serve)


def run_detached(serve: Serve) -> int:
    """Serve in this process, which has been detached by its starter; tell it on stdout how it went.

    Args:
        serve: As in `run_daemon`.

    Returns:
        The exit code.
    """
    # A folder that is some process's current one cannot be removed on Windows.
    os.chdir(state_dir())
    # By number: `pythonw.exe` need not have a `sys.stdout`.
    return _serve(serve, _STDOUT)


def _serve(serve: Serve, report_to: int) -> int:
    def report(problem: str) -> None:
        with contextlib.suppress(OSError):
            os.write(report_to, f"{problem or SERVES}\n".encode())
        _leave_streams(*_STANDARD_STREAMS, report_to)

    try:
        set_up_logging(foreground=False)
        serve(report)
    except Exception as error:  # the starter must hear of whatever it was
        # What is ours is explained by its text: one of several that start at once finds another one alive, say.
        ours = isinstance(error, CodespaceKernelsError)
        logging.getLogger(__name__).log(logging.ERROR, "the broker ended: %r", error, exc_info=not ours)
        report(f"{type(error).__name__}: {error}")
        return error.exit_code if isinstance(error, BrokerError) else 1
    return 0


def _leave_streams(*descriptors: int) -> None:
    """Lead file descriptors nowhere, so that whoever reads their other ends is not kept waiting."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in {*descriptors}:
        os.dup2(null, descriptor)
    os.close(null)


def _fork(serve: Serve) -> int:
    read_end, write_end = os.pipe()
    # Windows has neither this nor setsid, as type checkers know; nobody comes here there.
    if child := os.fork():  # type: ignore[attr-defined,unused-ignore]
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            return _hear(pipe, lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.close(read_end)
    os.setsid()  # type: ignore[attr-defined,unused-ignore]
    os.chdir("/")
    _leave_streams(*_STANDARD_STREAMS)
    os._exit(_serve(serve, write_end))


def _spawn(arguments: Sequence[str]) -> int:
    argv = [platforms.background_python(), "-m", "codespace_kernels.broker", "--detached", *arguments]
    process = _start_apart(argv)
    assert process.stdout is not None
    with process.stdout:
        return _hear(process.stdout, lambda: process.wait(_END_SECONDS))


def _start_apart(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that shares neither console nor process group nor, where that is allowed, job with this one."""
    apart, in_our_job = platforms.detached_flags()
    try:
        return _start(argv, apart)
    except PermissionError:
        return _start(argv, in_our_job)


def _start(argv: Sequence[str], flags: int) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, creationflags=flags)


def _hear(pipe: IO[bytes], wait: Callable[[], int]) -> int:
    """Read what a new broker says; give 0 when it serves, else its exit code after having passed on its last words.

    The line that says so is waited for, not the pipe's end: the `python.exe` of an environment on Windows is a parent
    of the real one that keeps its own hold on the pipe.
    """
    said = ""
    for line in pipe:
        said = line.decode(errors="replace").strip() or said
        if said == SERVES:
            return 0
    print(said or f"It ended at once; see {log_path()}.", file=sys.stderr)  # noqa: T201  (read by who started us)
    return wait() or 1
