"""Reads ZMQ sockets on an asyncio loop, fairly and without a task per message."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import zmq
from tornado.ioloop import IOLoop

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

MAX_MESSAGES = 64
"""How many messages one socket may hand over before the others, and the rest of the loop, get their turn."""

MAX_BYTES = 512 * 1024
"""The same in bytes: counting messages alone let a kernel with 1 MB displays hold up others for seconds (measured)."""


class _Source:
    """One socket: its handler, and whether a look at it is already planned."""

    def __init__(self, socket: zmq.Socket[bytes], handler: Callable[[list[bytes]], None]) -> None:
        self.socket = socket
        self.handler = handler
        self.planned = False

    def drain(self) -> bool:
        """Hand over what is there, within the limits; tell whether some may be left."""
        messages, size = 0, 0
        # Reading EVENTS is also what arms the descriptor's next edge.
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            if messages >= MAX_MESSAGES or size >= MAX_BYTES:
                return True
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
            messages += 1
            size += sum(map(len, frames))
            try:
                self.handler(frames)
            except Exception:
                # An error in one message must not end the channel for all that follow.
                _log.exception("a message from a local client was not handled")
        return False


class SocketPump:
    """Drains ZMQ sockets whenever one of them is readable, in the order they were added.

    A ZMQ socket's descriptor is edge-triggered, and any call on the socket may swallow the edge; so `sent_on` must
    follow every send on a socket that is also read.

    The descriptors are watched by Tornado, which does so in a thread where the loop itself cannot: the Proactor loop of
    Windows, without which no program could be started from a coroutine there.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watch = IOLoop.current()
        self._sources: dict[zmq.Socket[bytes], _Source] = {}
        self._closed = False

    def add(self, socket: zmq.Socket[bytes], handler: Callable[[list[bytes]], None]) -> None:
        """Read `socket` from now on; sockets that were added earlier are looked at first."""
        self._sources[socket] = _Source(socket, handler)
        self._watch.add_handler(int(socket.get(zmq.FD)), self._turn, IOLoop.READ)
        self.sent_on(socket)

    def sent_on(self, socket: zmq.Socket[bytes]) -> None:
        """Plan a look at a socket that was just used otherwise."""
        source = self._sources[socket]
        if not source.planned:
            source.planned = True
            self._loop.call_soon(self._look, source)

    def close(self) -> None:
        """Stop reading. The sockets stay open. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            for socket in self._sources:
                self._watch.remove_handler(int(socket.get(zmq.FD)))

    def _turn(self, _descriptor: int, _events: int) -> None:
        for source in self._sources.values():
            if not source.planned:
                self._drain(source)

    def _look(self, source: _Source) -> None:
        source.planned = False
        self._drain(source)

    def _drain(self, source: _Source) -> None:
        if not self._closed and source.drain() and not self._closed:
            self.sent_on(source.socket)
