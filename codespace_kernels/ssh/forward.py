"""Local ports that lead into the workspace."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.ssh.stream import splice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from codespace_kernels.connection import Stream

logger = logging.getLogger(__name__)


class Forwarder:
    """Listeners on 127.0.0.1 whose connections are carried over streams.

    Args:
        half_close: See `ssh.stream.splice`.
    """

    def __init__(self, *, half_close: bool) -> None:
        self._half_close = half_close
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, open_stream: Callable[[], Awaitable[Stream]]) -> int:
        """Listen on a free port of 127.0.0.1, with a stream of its own for each connection; give the port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await self._carry(reader, writer, open_stream)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=262144)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        open_stream: Callable[[], Awaitable[Stream]],
    ) -> None:
        try:
            stream = await open_stream()
        except CodespaceKernelsError as error:
            # All that a TCP client can be told.
            logger.info("forwarded connection refused: %s", error)
            writer.close()
        except asyncio.CancelledError:
            writer.close()
        else:
            await self._splice(reader, writer, stream)

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream) -> None:
        try:
            await splice(reader, writer, stream, half_close=self._half_close)
        except asyncio.CancelledError:
            # Closing was asked for. The server logs a task that ends cancelled as an error.
            writer.close()

    def close(self) -> None:
        """Close the listeners and cut their connections."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for task in self._tasks:
            task.cancel()
