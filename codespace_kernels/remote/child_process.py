"""The server's side of its child process: start it, talk to it, replace it when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence

from . import records

log = logging.getLogger(__name__)

MAX_PAUSE = 5.0
"""Seconds; a child that dies again and again is started at this distance at most."""


class ChildProcess:
    """Keeps one child alive until `close`.

    Args:
        listener: The Unix socket that splices connect to. It stays ours: nobody is refused while a child is replaced.
        import_path: What the child needs on PYTHONPATH to import this package.
        keep: Seconds that the child keeps the session of a client which is away.
        folder: Private folder for what the child keeps on disk.
        received: Called with each record from the child.
        replaced: Called when a child died, before the next one starts.
    """

    def __init__(
        self,
        listener: socket.socket,
        import_path: str,
        keep: float,
        folder: str,
        received: Callable[[Dict[str, Any]], None],
        replaced: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._import_path = import_path
        self._options = ["--keep", str(keep), "--folder", folder]
        self._received = received
        self._replaced = replaced
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._begun: Optional[socket.socket] = None
        self._closing = False

    def begin(self) -> None:
        """Start the first child, which gets ready while the server does; `run` goes on with it.

        Raises:
            OSError: It cannot be started.
        """
        self._begun = self._start()

    @property
    def pid(self) -> Optional[int]:
        """Process id of the child, None between two."""
        return self._process.pid if self._process is not None else None

    def write(self, document: Dict[str, Any], raw: Sequence[bytes] = ()) -> None:
        """Send a record; dropped while there is no child, as all that it would be about died with the last one."""
        if self._writer is not None:
            self._writer.write(records.encode(document, raw))

    async def run(self) -> None:
        """Keep a child running; returns after `close`."""
        loop = asyncio.get_event_loop()
        pause = 0.0
        while True:
            started = loop.time()
            await self._run_once()
            if self._closing:
                return
            pause = 0.0 if loop.time() - started > MAX_PAUSE else min(2 * pause + 0.1, MAX_PAUSE)
            log.error("The process that carries the kernels' messages ended; the next one starts in %.1f s.", pause)
            self._replaced()
            await asyncio.sleep(pause)

    def close(self) -> None:
        """End the child: it goes when its socket pair is closed."""
        self._closing = True
        if self._begun is not None:
            self._begun.close()
        if self._writer is not None:
            self._writer.close()

    async def _run_once(self) -> None:
        ours, self._begun = self._begun or self._start(), None
        process = self._process
        assert process is not None
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            # A child that dies while something is written to it ends the stream with an error.
            with contextlib.suppress(OSError):
                await self._read(reader)
        finally:
            self._writer.close()
            self._writer = self._process = None
            # Already ended or about to: its socket pair is closed.
            await asyncio.get_event_loop().run_in_executor(None, _reap, process)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(theirs)
        return ours

    def _spawn(self, pair: socket.socket) -> subprocess.Popen[bytes]:
        inherited = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join(part for part in (self._import_path, inherited) if part)
        return subprocess.Popen(
            self._command(pair),
            stdin=subprocess.DEVNULL,
            pass_fds=(self._listener.fileno(), pair.fileno()),
            env={**os.environ, "PYTHONPATH": path},
        )

    def _command(self, pair: socket.socket) -> List[str]:
        numbers = ["--listener", str(self._listener.fileno()), "--server", str(pair.fileno())]
        return [sys.executable, "-m", __name__.rpartition(".")[0] + ".child", *numbers, *self._options]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = records.RecordDecoder()
        while True:
            data = await reader.read(262144)
            if not data:
                return
            for record, _ in decoder.feed(data):
                self._received(record)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
