"""A program whose stdin and stdout lead to an SSH server, as OpenSSH's ProxyCommand has it."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import socket
import subprocess
import threading
from pathlib import PurePath
from typing import IO, TYPE_CHECKING

from codespace_kernels import platforms
from codespace_kernels.errors import SshError
from codespace_kernels.ssh.threads import run_blocking
from codespace_kernels.ssh.wire import SocketWire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

_CHUNK = 65536
_STDERR_LINES = 8
_START_SECONDS = 15.0
_END_SECONDS = 2.0


class ProxyProcess:
    """A running proxy program. Made by `ProxyProcess.start`.

    Attributes:
        wire: Its stdin and stdout.
    """

    def __init__(self, process: subprocess.Popen[bytes], wire: SocketWire) -> None:
        self.wire = wire
        self._process = process
        self._stderr: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        assert process.stderr is not None
        self._stderr_reader = _thread(self._read_stderr, process.stderr)

    @classmethod
    async def start(
        cls, argv: Sequence[str], environment: Mapping[str, str], *, use_pipes: bool = platforms.is_windows()
    ) -> ProxyProcess:
        """Start the program.

        Args:
            argv: The program and its arguments. Others can read them: no secrets.
            environment: The program's whole environment; secrets may stand here.
            use_pipes: Whether it gets pipes and two threads that copy, where a socket cannot be a program's stdin.

        Raises:
            SshError: It cannot be started.
            WaitTimeoutError: Starting it took too long.
        """
        return await run_blocking(
            "the SSH proxy program to start",
            _START_SECONDS,
            cls._start,
            argv,
            environment,
            use_pipes,
            # The program ends with its stdin.
            discard=lambda proxy: proxy.wire.close(),
        )

    @classmethod
    def _start(cls, argv: Sequence[str], environment: Mapping[str, str], use_pipes: bool) -> ProxyProcess:
        ours, theirs = socket.socketpair()
        stream = subprocess.PIPE if use_pipes else theirs.fileno()
        try:
            process = subprocess.Popen(
                argv,
                stdin=stream,
                stdout=stream,
                stderr=subprocess.PIPE,
                env=dict(environment),
                # Ctrl-C in the terminal is for the front end, not for a connection that others share.
                **platforms.own_terminal_group(),
            )
        except OSError as error:
            ours.close()
            theirs.close()
            raise SshError(f"{PurePath(argv[0]).name} cannot be started: {error.strerror or error}.") from None
        if use_pipes:
            assert process.stdin is not None
            assert process.stdout is not None
            _thread(_copy_in, theirs, process.stdin)
            _thread(_copy_out, process.stdout, theirs)
        else:
            theirs.close()
        return cls(process, SocketWire(ours))

    def _read_stderr(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                text = line.decode(errors="replace").rstrip()
                logger.debug("%s: %s", PurePath(str(self._process.args[0])).name, text)  # type: ignore[index]
                self._stderr.append(text)

    async def failure(self) -> str:
        """Give what the program said last on its stderr, after it has ended or was given a moment to."""
        await run_blocking("the SSH proxy program", _END_SECONDS + 1, self._stderr_reader.join, _END_SECONDS)
        return " ".join(line for line in self._stderr if line)

    async def close(self) -> None:
        """End the program. Closing twice is no error."""
        self.wire.close()
        await run_blocking("the SSH proxy program to end", 3 * _END_SECONDS, self._end)

    def _end(self) -> None:
        for signal in (self._process.terminate, self._process.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                signal()
                self._process.wait(_END_SECONDS)
                break
        self._stderr_reader.join(_END_SECONDS)


def _thread(target: object, *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name="codespace-kernels ssh proxy", daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _copy_in(source: socket.socket, sink: IO[bytes]) -> None:
    with contextlib.suppress(OSError), sink:
        while data := source.recv(_CHUNK):
            sink.write(data)
            sink.flush()


def _copy_out(source: IO[bytes], sink: socket.socket) -> None:
    with contextlib.suppress(OSError), source, sink:
        while data := os.read(source.fileno(), _CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
