"""Delivers to a client by its routing identity, also where its connection comes a moment later than its request."""

from __future__ import annotations

import asyncio
import collections
import errno
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a message waits for its client to connect."""

_RETRY_SECONDS = 0.02


class _Waiting(NamedTuple):
    frames: list[bytes]
    until: float


class PatientDelivery:
    """Sends on a ROUTER; what is for a client that is not connected yet is tried again for a while, in order.

    A client connects its channels one by one and may run `input()` before its stdin channel is up. A ROUTER drops what
    it cannot route (RFC 28 of ZeroMQ), a kernel's own, too: the cell then waits for an answer to a question that nobody
    has seen. With `ROUTER_MANDATORY` the socket says `EHOSTUNREACH` instead.

    Args:
        socket: A ROUTER with `ROUTER_MANDATORY`, without a high-water mark.
        sent: Called after each use of the socket that may have swallowed its descriptor's edge.
    """

    def __init__(self, socket: zmq.Socket[bytes], sent: Callable[[zmq.Socket[bytes]], None]) -> None:
        self._socket = socket
        self._sent = sent
        self._waiting: dict[bytes, collections.deque[_Waiting]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def send(self, frames: list[bytes]) -> None:
        """Send, or keep until the client is there; never blocks."""
        queue = self._waiting.get(frames[0])
        if queue is None and self._try(frames):
            return
        if queue is None:
            queue = self._waiting[frames[0]] = collections.deque()
        queue.append(_Waiting(frames, time.monotonic() + PATIENCE))
        self._plan()

    def forget(self) -> None:
        """Drop what waits: it came from a kernel that is gone, or is not listened to any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _try(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, track=False)
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        finally:
            self._sent(self._socket)
        return True

    def _plan(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        for client, queue in list(self._waiting.items()):
            self._drain(client, queue)
            if not queue:
                del self._waiting[client]
        if self._waiting:
            self._plan()

    def _drain(self, client: bytes, queue: collections.deque[_Waiting]) -> None:
        while queue and self._try(queue[0].frames):
            queue.popleft()
        while queue and queue[0].until <= time.monotonic():
            queue.popleft()
            _log.warning(
                "dropped a message for local client %s: its stdin channel did not connect in %g s",
                client[:16].hex(),
                PATIENCE,
            )
