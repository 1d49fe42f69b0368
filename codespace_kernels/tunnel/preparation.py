"""What can be had for a connection to a codespace before GitHub has said anything about it."""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import TYPE_CHECKING

import httpx

from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.ssh.threads import run_blocking
from codespace_kernels.tunnel.relay import connect_relay
from codespace_kernels.tunnel.ways import KnownWay, load_way

if TYPE_CHECKING:
    import socket
    import ssl

logger = logging.getLogger(__name__)

KEPT_SECONDS = 20.0
"""How long a connection that was opened early waits for its use."""

_FILE_SECONDS = 5.0
_TLS_SECONDS = 10.0
_CONNECT_SECONDS = 15.0
_IMPORT_SECONDS = 60.0


class Preparation:
    """For one connection: TLS settings, modules, the way as it was last, and a connection to the relay that it names.

    It begins when it is made. Whoever does not use it closes it; after `KEPT_SECONDS` it lets go of the relay anyway.

    Args:
        name: The codespace, uniquely among all accounts and hosts; empty to know no way.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._context: asyncio.Task[ssl.SSLContext] = asyncio.create_task(_make_context())
        self._way = asyncio.create_task(self._load())
        self._socket = asyncio.create_task(self._connect())
        self._modules = asyncio.create_task(_load_modules())
        for task in (self._context, self._modules):
            # Whoever needs it meets the error again; nobody may.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._closed = self._taken = False
        self._expiry = asyncio.get_running_loop().call_later(KEPT_SECONDS, self.close)

    async def context(self) -> ssl.SSLContext:
        """Give the TLS settings.

        Raises:
            WaitTimeoutError: The certificates cannot be read in time.
        """
        return await asyncio.shield(self._context)

    async def way(self) -> KnownWay | None:
        """Give the way as it was last; None where none is known."""
        return await asyncio.shield(self._way)

    async def take_socket(self) -> socket.socket | None:
        """Give the connection to the relay, the caller's from now on; None where there is none."""
        if self._is_open():
            await asyncio.wait({self._socket})
        if not self._is_open():
            return None
        self._taken = True
        return self._socket.result()

    def _is_open(self) -> bool:
        return not (self._closed or self._taken)

    def close(self) -> None:
        """Close what was not taken. Closing twice is no error."""
        self._expiry.cancel()
        if self._closed:
            return
        self._closed = True
        self._modules.cancel()
        if not self._taken:
            self._socket.cancel()
            self._socket.add_done_callback(_close_socket)

    async def _load(self) -> KnownWay | None:
        if not self._name:
            return None
        try:
            return await run_blocking("the way to the codespace", _FILE_SECONDS, load_way, self._name)
        except CodespaceKernelsError as error:
            logger.info("no way is known: %s", error)
            return None

    async def _connect(self) -> socket.socket | None:
        way = await self.way()
        if way is None:
            return None
        try:
            return await run_blocking(
                "the dev tunnel's relay",
                _CONNECT_SECONDS + 1,
                connect_relay,
                way.relay_uri,
                await self.context(),
                _CONNECT_SECONDS,
                discard=lambda sock: sock.close(),
            )
        except CodespaceKernelsError as error:
            logger.info("not connected early: %s", error)
            return None


async def _make_context() -> ssl.SSLContext:
    # Reads certificate files: tens of milliseconds. One for all, so that all trust the same authorities.
    return await run_blocking("TLS settings", _TLS_SECONDS, httpx.create_ssl_context)


async def _load_modules() -> None:
    """Import what connecting needs, gRPC and SSH, while the network is waited for."""
    await run_blocking("modules", _IMPORT_SECONDS, importlib.import_module, "codespace_kernels.tunnel.codespace")


def _close_socket(task: asyncio.Task[socket.socket | None]) -> None:
    if not task.cancelled() and task.exception() is None and (sock := task.result()) is not None:
        sock.close()
