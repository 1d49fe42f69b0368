"""The broker's blocking client, for coroutines; its threads are no reason for the Jupyter server to live on."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient, hang_up
from codespace_kernels.errors import BrokerError
from codespace_kernels.github.keyrings import in_daemon_thread

if TYPE_CHECKING:
    import http.client

    from codespace_kernels.progress import Progress, ProgressEvent


class _OneCall(BrokerClient):
    """A client whose one request can be given up from another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._given_up = False

    def connect(self, timeout: float | None) -> http.client.HTTPConnection:
        connection = super().connect(timeout)
        with self._lock:
            if self._given_up:
                connection.close()
                raise BrokerError("The request was given up.")
            self._connection = connection
        return connection

    def hang_up(self) -> None:
        with self._lock:
            self._given_up = True
            connection = self._connection
        hang_up(connection)


async def stream(path: str, body: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Make a long request of a broker, which is started where none runs; cancelling hangs up, and the broker gives up.

    Args:
        path: Below the API's version.
        body: Sent as JSON.
        progress: Called on this event loop.

    Raises:
        CodespaceKernelsError: As `BrokerClient.stream`.
    """
    loop, client = asyncio.get_running_loop(), _OneCall()

    def report(event: ProgressEvent) -> None:
        loop.call_soon_threadsafe(progress, event)

    def call() -> dict[str, Any]:
        client.ensure()
        return client.stream(path, body, report)

    try:
        return await in_daemon_thread(call)
    finally:
        client.hang_up()
