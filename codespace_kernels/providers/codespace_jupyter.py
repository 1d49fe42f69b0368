"""The codespace's own JupyterLab: the way in where the image has no SSH server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from codespace_kernels.errors import WorkspaceConnectionError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.ssh.forward import Forwarder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from codespace_kernels.connection import Stream
    from codespace_kernels.progress import Progress
    from codespace_kernels.tunnel.services import RunningServer
    from codespace_kernels.tunnel.tunnel import Tunnel

_PAGES = frozenset({"lab", "tree", "notebooks", "edit", "doc", "nbclassic"})
"""First segment of a page's path; what is before it is the server's base."""


class CodespaceJupyter:
    """A `JupyterUrl` on a local port that stays the same while tunnels come and go. Made by `open`.

    Args:
        open_tunnel: Opens a tunnel to the codespace, with credentials fetched for it.
    """

    def __init__(self, open_tunnel: Callable[[], Awaitable[Tunnel]]) -> None:
        self._open_tunnel = open_tunnel
        self._tunnel: Tunnel | None = None
        self._server: RunningServer | None = None
        self._changing = asyncio.Lock()
        # Hosts of tunnels do not pass the end of one direction on.
        self._forwarder = Forwarder(half_close=False)
        self._local_port = 0
        self._closed = False

    @classmethod
    async def open(cls, open_tunnel: Callable[[], Awaitable[Tunnel]], progress: Progress) -> CodespaceJupyter:
        """Have JupyterLab started in the codespace and forward it.

        Raises:
            NoJupyterError: The image has none.
            WorkspaceConnectionError: The tunnel cannot be had.
        """
        jupyter = cls(open_tunnel)
        try:
            progress(ProgressEvent("server", "Starting the codespace's own JupyterLab"))
            await jupyter._connected()
            jupyter._local_port = await jupyter._forwarder.listen(jupyter._open_stream)
        except BaseException:
            await jupyter.close()
            raise
        return jupyter

    @property
    def base_url(self) -> str:
        """Address on this machine, with a trailing slash; see `JupyterUrl.base_url`."""
        assert self._server is not None
        parts = urlsplit(self._server.url)
        return f"{parts.scheme}://127.0.0.1:{self._local_port}{_base_path(parts.path)}"

    async def headers(self) -> dict[str, str]:
        """Give the server's token as a header; asked anew after a reconnect, as the server may have been restarted.

        Raises:
            WorkspaceConnectionError: The tunnel was lost and cannot be had again now.
        """
        _, server = await self._connected()
        token = parse_qs(urlsplit(server.url).query).get("token", [""])[0]
        return {"Authorization": f"token {token}"} if token else {}

    async def notify_activity(self) -> None:
        """Tell that the codespace is in use; opens no tunnel for it."""
        if self._tunnel is not None and not self._tunnel.closed.done():
            await self._tunnel.services.notify_activity(["keepAlive"])

    async def close(self) -> None:
        """Close the local port and the tunnel. Closing twice is no error."""
        self._closed = True
        self._forwarder.close()
        # Whoever is opening a tunnel finishes first, so that none is left open.
        async with self._changing:
            if self._tunnel is not None:
                await self._tunnel.close()

    async def _connected(self) -> tuple[Tunnel, RunningServer]:
        """Give an open tunnel and the server behind it, both anew where the tunnel was lost."""
        async with self._changing:
            if self._closed:
                raise WorkspaceConnectionError("The way to the codespace's JupyterLab was closed here.")
            if self._tunnel is None or self._server is None or self._tunnel.closed.done():
                self._tunnel, self._server = await self._connect()
            return self._tunnel, self._server

    async def _connect(self) -> tuple[Tunnel, RunningServer]:
        tunnel = await self._open_tunnel()
        try:
            server = await tunnel.services.get_running_server()
            await tunnel.services.notify_activity(["connected"])
        except BaseException:
            await tunnel.close()
            raise
        return tunnel, server

    async def _open_stream(self) -> Stream:
        tunnel, server = await self._connected()
        return await tunnel.open_stream(server.port)


def _base_path(path: str) -> str:
    """Give the server's base of a page's path: `/`, or `/prefix/`."""
    base: list[str] = []
    for segment in filter(None, path.split("/")):
        if segment in _PAGES:
            break
        base.append(segment)
    return "/" + "".join(f"{segment}/" for segment in base)
