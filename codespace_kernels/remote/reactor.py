"""The child's event loop: file descriptors, each as often as it has something, and timers.

Level-triggered, because a callback may stop reading before a socket is empty: that is how a flooding kernel leaves room
for others.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

Callback = Callable[[], Any]


class Timer:
    """A call that is due at some time; `cancel` it at any time, also when it has been made."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Optional[Callback] = callback

    def cancel(self) -> None:
        """Do not call back any more."""
        self.callback = None


class Reactor:
    """Calls back what became readable or writable.

    Attributes:
        now: Seconds of the monotonic clock at the beginning of this turn.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._readers: Dict[int, Callback] = {}
        self._writers: Dict[int, Callback] = {}
        self._soon: Dict[Callback, None] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def add_reader(self, descriptor: int, callback: Callback) -> None:
        """Call `callback` in each turn in which `descriptor` can be read, or failed."""
        self._readers[descriptor] = callback
        self._register(descriptor)

    def add_writer(self, descriptor: int, callback: Callback) -> None:
        """Call `callback` in each turn in which `descriptor` can be written, or failed."""
        self._writers[descriptor] = callback
        self._register(descriptor)

    def remove_writer(self, descriptor: int) -> None:
        """Stop watching whether `descriptor` can be written."""
        if self._writers.pop(descriptor, None) is not None:
            self._register(descriptor)

    def remove(self, descriptor: int) -> None:
        """Stop watching `descriptor`; must be called before it is closed."""
        self._readers.pop(descriptor, None)
        self._writers.pop(descriptor, None)
        self._register(descriptor)

    def call_soon(self, callback: Callback) -> None:
        """Call `callback` once in the next turn, which does not wait; asked for twice, it is called once."""
        self._soon[callback] = None

    def forget(self, callback: Callback) -> None:
        """Do not call `callback` any more, if `call_soon` was asked to."""
        self._soon.pop(callback, None)

    def call_at(self, at: float, callback: Callback) -> Timer:
        """Call `callback` once, in the first turn that begins at or after `at` (monotonic seconds)."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (at, next(self._numbers), timer))
        return timer

    def turn(self, deadline: Optional[float]) -> None:
        """Wait until something happens or `deadline` (monotonic seconds, None for never), then call back."""
        first = self._first_timer()
        if first is not None and (deadline is None or first < deadline):
            deadline = first
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        happened = self._selector.select(0 if self._soon else timeout)
        self.now = time.monotonic()
        soon = list(self._soon)
        for key, events in happened:
            # What happened before may have had it removed.
            if events & selectors.EVENT_READ and key.fd in self._readers:
                self._readers[key.fd]()
            if events & selectors.EVENT_WRITE and key.fd in self._writers:
                self._writers[key.fd]()
        for callback in soon:
            if callback in self._soon:
                del self._soon[callback]
                callback()
        if first is not None and first <= self.now:
            self._call_due()

    def _first_timer(self) -> Optional[float]:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _call_due(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            _, _, timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _register(self, descriptor: int) -> None:
        events = (selectors.EVENT_READ if descriptor in self._readers else 0) | (
            selectors.EVENT_WRITE if descriptor in self._writers else 0
        )
        known = descriptor in self._selector.get_map()
        if known and events:
            self._selector.modify(descriptor, events)
        elif known:
            self._selector.unregister(descriptor)
        elif events:
            self._selector.register(descriptor, events)
