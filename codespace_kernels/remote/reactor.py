"""The child's event loop: ZMQ sockets and file descriptors, each as often as it has something.

Level-triggered, because a callback may stop reading before a socket is empty: that is how a flooding kernel leaves room
for others. ZMQ's own poll is that, too, but asks every socket in every turn, with two system calls each: with a hundred
kernels each message would wait for a thousand of them. So descriptors are watched, ZMQ's among them. One of those says
that something *may* have come, until its socket is asked (zmq_getsockopt(3), ZMQ_FD).
"""

from __future__ import annotations

import selectors
import time
from typing import Any, Callable, Dict, Optional

import zmq

Callback = Callable[[], Any]

# Plain numbers: with pyzmq's flags, an `and` costs more than a small callback.
_EVENTS = zmq.EVENTS
_POLLIN = int(zmq.POLLIN)


def has_message(socket: Any) -> bool:
    """Ask a ZMQ socket whether it has a message."""
    return bool(socket.get(_EVENTS) & _POLLIN)


class Reactor:
    """Calls back what became readable or writable.

    Attributes:
        now: Seconds of the monotonic clock at the beginning of this turn.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._readers: Dict[Any, Callback] = {}
        self._writers: Dict[Any, Callback] = {}
        self._descriptors: Dict[Any, int] = {}
        self._to_ask: Dict[Any, None] = {}

    def add_reader(self, source: Any, callback: Callback) -> None:
        """Call `callback` in each turn in which `source` (ZMQ socket or descriptor) can be read, or failed.

        A ZMQ socket is not asked in the next turn where its callback returns true: it was found empty.
        """
        self._readers[source] = callback
        self._register(source)
        self.look_at(source)

    def add_writer(self, descriptor: int, callback: Callback) -> None:
        """Call `callback` in each turn in which `descriptor` can be written, or failed."""
        self._writers[descriptor] = callback
        self._register(descriptor)

    def remove_writer(self, descriptor: int) -> None:
        """Stop watching whether `descriptor` can be written."""
        if self._writers.pop(descriptor, None) is not None:
            self._register(descriptor)

    def remove(self, source: Any) -> None:
        """Stop watching `source`; must be called before it is closed."""
        self._readers.pop(source, None)
        self._writers.pop(source, None)
        self._to_ask.pop(source, None)
        self._register(source)

    def look_at(self, source: Any) -> None:
        """Ask a ZMQ socket in the next turn; to be called when it was sent something, which takes its sign away."""
        if isinstance(source, zmq.Socket) and source in self._readers:
            self._to_ask[source] = None

    def turn(self, deadline: Optional[float]) -> None:
        """Wait until something happens or `deadline` (monotonic seconds, None for never), then call back."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        happened = self._selector.select(0 if self._to_ask else timeout)
        self.now = time.monotonic()
        for key, events in happened:
            source = key.data
            # What happened before may have had it removed.
            self.look_at(source)
            if isinstance(source, zmq.Socket):
                continue
            if events & selectors.EVENT_READ and source in self._readers:
                self._readers[source]()
            if events & selectors.EVENT_WRITE and source in self._writers:
                self._writers[source]()
        for socket in list(self._to_ask):
            if socket not in self._to_ask:
                continue
            if not has_message(socket) or self._readers[socket]():
                self._to_ask.pop(socket, None)

    def _register(self, source: Any) -> None:
        events = (selectors.EVENT_READ if source in self._readers else 0) | (
            selectors.EVENT_WRITE if source in self._writers else 0
        )
        known = self._descriptors.get(source)
        if known is None:
            if events:
                number: Any = source.get(zmq.FD) if isinstance(source, zmq.Socket) else source
                self._selector.register(number, events, source)
                self._descriptors[source] = number
        elif events:
            self._selector.modify(known, events, source)
        else:
            self._selector.unregister(known)
            del self._descriptors[source]
