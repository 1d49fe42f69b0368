"""The child's event loop: one level-triggered poll over ZMQ sockets and file descriptors.

Level-triggered, because a callback may stop reading before a socket is empty: that is how a flooding kernel leaves room
for others. asyncio over ZMQ's edge-triggered descriptor would need bookkeeping for exactly that.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Optional

import zmq

Callback = Callable[[], None]

# Plain numbers: with pyzmq's flags, an `and` costs more than a small callback.
_READABLE = int(zmq.POLLIN) | int(zmq.POLLERR)
_WRITABLE = int(zmq.POLLOUT) | int(zmq.POLLERR)


class Reactor:
    """Calls back what became readable or writable.

    Attributes:
        now: Seconds of the monotonic clock at the beginning of this turn.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._poller = zmq.Poller()
        self._readers: Dict[Any, Callback] = {}
        self._writers: Dict[Any, Callback] = {}

    def add_reader(self, source: Any, callback: Callback) -> None:
        """Call `callback` in each turn in which `source` (ZMQ socket or descriptor) can be read, or failed."""
        self._readers[source] = callback
        self._register(source)

    def add_writer(self, source: Any, callback: Callback) -> None:
        """Call `callback` in each turn in which `source` can be written, or failed."""
        self._writers[source] = callback
        self._register(source)

    def remove_writer(self, source: Any) -> None:
        """Stop watching whether `source` can be written."""
        if self._writers.pop(source, None) is not None:
            self._register(source)

    def remove(self, source: Any) -> None:
        """Stop watching `source`; must be called before it is closed."""
        self._readers.pop(source, None)
        self._writers.pop(source, None)
        self._register(source)

    def turn(self, deadline: Optional[float]) -> None:
        """Wait until something happens or `deadline` (monotonic seconds, None for never), then call back."""
        timeout = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
        # Rounded up: a poll that ends just before the deadline would spin until it.
        happened = self._poller.poll(None if timeout is None else int(timeout + 0.999))
        self.now = time.monotonic()
        for source, events in happened:
            if events & _READABLE and source in self._readers:
                self._readers[source]()
            if events & _WRITABLE and source in self._writers:
                self._writers[source]()

    def _register(self, source: Any) -> None:
        flags = (zmq.POLLIN if source in self._readers else 0) | (zmq.POLLOUT if source in self._writers else 0)
        if flags or source in self._poller:
            self._poller.register(source, flags)
