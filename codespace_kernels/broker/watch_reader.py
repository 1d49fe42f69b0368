"""The broker's watch stream as a coroutine reads it: in a thread, since a broker is reached by blocking sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import threading
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import check, events, hang_up, read_json, send
from codespace_kernels.errors import BrokerError, CodespaceKernelsError

if TYPE_CHECKING:
    from codespace_kernels.broker.client import BrokerClient

log = logging.getLogger(__name__)

SILENCE = 60.0
"""Seconds without a document after which the broker is thought dead: it sends one at least every 15 s."""


class WatchReader:
    """One stream of `GET /v1/watch`, of which only the newest document is kept.

    Args:
        client: Of the broker.
    """

    def __init__(self, client: BrokerClient) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._newest: dict[str, Any] | None = None
        self._ended = False
        self._refusal: CodespaceKernelsError | None = None
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._closed = False
        # Not a thread of the loop's executor: the interpreter would wait for it at its end.
        threading.Thread(target=self._run, name="broker-watch", daemon=True).start()

    async def next(self) -> dict[str, Any] | None:
        """Give the newest document that was not given yet; None when the stream has ended, or no broker is there.

        Raises:
            CodespaceKernelsError: The broker refuses to be watched.
        """
        while self._newest is None and not self._ended:
            self._news.clear()
            await self._news.wait()
        document, self._newest = self._newest, None
        if document is None and self._refusal is not None:
            raise self._refusal
        return document

    def close(self) -> None:
        """End the stream. Closing twice is no error."""
        with self._lock:
            self._closed = True
            connection = self._connection
        hang_up(connection)

    def _run(self) -> None:
        refusal: CodespaceKernelsError | None = None
        try:
            self._read()
        except CodespaceKernelsError as error:
            refusal = error
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.debug("the watch stream ended: %r", error)
        # The loop may be gone with whoever watched.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, refusal)

    def _read(self) -> None:
        try:
            connection = self._client.connect(SILENCE)
        except BrokerError as error:
            log.debug("%s", error)
            return
        try:
            with self._lock:
                if self._closed:
                    return
                self._connection = connection
            response = send(connection, "GET", "watch", None)
            if response.status != 200:
                check(response.status, read_json(response))
            for document in events(response):
                self._loop.call_soon_threadsafe(self._take, document)
        finally:
            connection.close()

    def _take(self, document: dict[str, Any]) -> None:
        self._newest = document
        self._news.set()

    def _end(self, refusal: CodespaceKernelsError | None) -> None:
        self._ended, self._refusal = True, refusal
        self._news.set()
