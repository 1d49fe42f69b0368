"""A `Connection` to this machine: commands are real processes, streams are their pipes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from codespace_kernels.connection import CompletedCommand
from codespace_kernels.errors import WorkspaceConnectionError


class PipeStream:
    """A process's stdin and stdout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.received = 0
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    async def read(self, max_bytes: int = 262144) -> bytes:
        data = await self._out.read(max_bytes)
        self.received += len(data)
        return data

    async def write(self, data: bytes) -> None:
        try:
            self._in.write(data)
            await self._in.drain()
        except (ConnectionError, RuntimeError) as error:
            raise WorkspaceConnectionError(f"The pipe is closed: {error}") from None

    def close(self) -> None:
        self._in.close()
        if self.process.returncode is None:
            # Reaps the process even where nobody waits for it.
            self.process._transport.close()  # type: ignore[attr-defined]


class LocalConnection:
    """Runs commands in a home folder of its own.

    Args:
        home: `HOME` of the commands.
        env: Variables on top of this process's; None removes one.
    """

    def __init__(self, home: Path, env: dict[str, str | None] | None = None) -> None:
        merged: dict[str, str | None] = {**os.environ, "HOME": str(home), **(env or {})}
        self.env = {key: value for key, value in merged.items() if value is not None}
        self.home = home
        self.commands: list[str] = []
        self.uploads: list[str] = []
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._streams: list[PipeStream] = []

    @property
    def description(self) -> str:
        return "this machine"

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60.0) -> CompletedCommand:
        self.commands.append(command)
        process = await self._start(command, asyncio.subprocess.PIPE)
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
        return CompletedCommand(process.returncode or 0, out, err)

    async def upload(self, data: bytes, path: str, *, mode: int = 0o600, timeout: float = 60.0) -> None:
        self.uploads.append(path)
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)

    async def open_command(self, command: str, *, timeout: float = 30.0) -> PipeStream:
        self.commands.append(command)
        stream = PipeStream(await self._start(command, None))
        self._streams.append(stream)
        return stream

    async def open_tcp(self, host: str, port: int, *, timeout: float = 30.0) -> PipeStream:
        raise NotImplementedError

    async def forward(self, host: str, port: int) -> int:
        return port

    async def close(self) -> None:
        if not self.closed.done():
            self.closed.set_result("closed")
        # While the loop runs: what a test left open would complain in the middle of another one.
        for stream in self._streams:
            stream.close()
        async with asyncio.timeout(60):
            await asyncio.gather(*(stream.process.wait() for stream in self._streams))

    async def _start(self, command: str, stderr: int | None) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_shell(
            command, stdin=pipe, stdout=pipe, stderr=stderr, env=self.env, cwd=self.home, start_new_session=True
        )
