"""A proxy that knows websockets, and so can end a connection with a goodbye to both sides."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from codespace_kernels.jupyter import ServerClient, ServerUrl


class PoliteProxy:
    def __init__(self, url: ServerUrl) -> None:
        self._url = url
        self._pairs: list[tuple] = []

    async def __aenter__(self) -> PoliteProxy:  # noqa: PYI034  (never subclassed)
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            subprotocols=["v1.kernel.websocket.jupyter.org"],
            compression=None,
            max_size=None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info) -> None:
        self._server.close()
        await self._server.wait_closed()

    def client(self) -> ServerClient:
        """A client whose websockets, and only these, go through the proxy."""
        port = self.port

        class Client(ServerClient):
            def channels_url(self, kernel_id: str, session_id: str) -> str:
                path = super().channels_url(kernel_id, session_id).partition("api/")[2]
                return f"ws://127.0.0.1:{port}/api/{path}"

        return Client(self._url)

    async def say_goodbye(self) -> None:
        """End every connection, the server's side first, as a gateway does that is restarted."""
        pairs, self._pairs = self._pairs, []
        for near, far in pairs:
            await far.close()
            await near.close()

    async def _serve(self, near: ServerConnection) -> None:
        address = "ws" + self._url.base_url.removeprefix("http").rstrip("/") + near.request.path
        headers = {"Authorization": near.request.headers["Authorization"]}
        async with connect(address, subprotocols=[near.subprotocol], additional_headers=headers, compression=None,
                           max_size=None) as far:  # fmt: skip
            self._pairs.append((near, far))
            await asyncio.gather(self._pump(near, far), self._pump(far, near))

    async def _pump(self, source, sink) -> None:
        try:
            async for message in source:
                await sink.send(message)
        except ConnectionClosed:
            return
        await sink.close()
