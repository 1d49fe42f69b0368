"""How many bytes may be on their way at once: enough to fill the link, little enough to keep others' waits short.

Too small a window caps the rate at window / round-trip time; too large a one puts a queue of seconds in front of a
keystroke's completion. So it is twice the product of the best round-trip time and the best delivery rate of the last
seconds. While the link is not full, the rate grows with the window, and the window with it; when it is full, both stay.

Where that product is small, the window is what the link delivers in `QUEUE_SECONDS`, as far as that lies between
`SMALLEST` and `USUAL`: the programs at both ends need something in hand, and a slow link must not take long over it.
While nobody else waits behind it, they have more: see `ALONE`.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, NamedTuple, Optional

SMALLEST = 32 * 1024
USUAL = 256 * 1024
"""The least where the link was never full, or where the peer acknowledges too seldom for less."""

QUEUE_SECONDS = 0.01

ALONE = 4 * 1024 * 1024
ALONE_SECONDS = 0.05
"""In place of `USUAL` and `QUEUE_SECONDS` where a kernel has the link for itself.

With 256 KiB each process waits for the next one's turn: large displays take half as long again (measured).
"""

LARGEST = 32 * 1024 * 1024
_SMOOTHING = 0.1
_MEMORY = 10.0
"""Seconds that a best value counts before a worse one replaces it."""


class _Flight(NamedTuple):
    number: int
    sent_at: float
    delivered: int
    delivered_at: float
    starved: bool


class Window:
    """Measures a link by what is sent and acknowledged. Times are seconds of one monotonic clock.

    Attributes:
        size: Bytes that may be unacknowledged.
        smallest: Least bytes of that, whatever was measured.
        shared: Whether more than one has something to send these days.
        rtt: Best round-trip time of the last seconds, in seconds; None before the first acknowledgement.
    """

    def __init__(self) -> None:
        self.size = 2 * USUAL
        self.smallest = SMALLEST
        self.shared = False
        self.rtt: Optional[float] = None
        self._rtt_at = 0.0
        self._rate = 0.0
        self._rate_at = 0.0
        self._full_rate: Optional[float] = None
        self._delivered = 0
        self._delivered_at = 0.0
        self._flights: Deque[_Flight] = deque()
        self._probing_since: Optional[float] = None

    def restart(self) -> None:
        """Forget what is on its way: a new stream carries the link."""
        self._flights.clear()

    def sent(self, number: int, now: float, starved: bool) -> None:
        """Note a batch that ended with frame `number`; `starved` means that there was nothing more to send."""
        if not self._flights:
            self._delivered_at = now
        self._flights.append(_Flight(number, now, self._delivered, self._delivered_at, starved))

    def acked(self, number: int, size: int, delay: float, now: float) -> None:
        """Note that frames up to `number`, `size` bytes more than before, arrived; the peer waited `delay` seconds."""
        self._delivered += size
        self._delivered_at = now
        flight = None
        while self._flights and self._flights[0].number <= number:
            flight = self._flights.popleft()
        if flight is not None:
            self._measure(flight, delay, now)

    def _measure(self, flight: _Flight, delay: float, now: float) -> None:
        self._measure_rtt(flight, max(now - flight.sent_at - delay, 1e-5), now)
        # From the acknowledgement before the batch was sent to its own: what arrived in that time was the link's rate.
        rate = (self._delivered - flight.delivered) / max(now - flight.delivered_at - delay, 1e-5)
        if rate >= self._rate or (now - self._rate_at > _MEMORY and not flight.starved):
            self._rate, self._rate_at = rate, now
        if not flight.starved:
            # Not the best one: a queue lasts as long as the link is slow.
            full = rate if self._full_rate is None else self._full_rate
            self._full_rate = full + _SMOOTHING * (rate - full)
        least = self._least
        wanted = 2 * self._rate * (self.rtt or 0.0)
        self.size = int(least if self._probing_since is not None else max(least, min(wanted, LARGEST)))

    @property
    def _least(self) -> float:
        if self._full_rate is None:
            return USUAL
        seconds, most = (QUEUE_SECONDS, USUAL) if self.shared else (ALONE_SECONDS, ALONE)
        return min(max(self._full_rate * seconds, self.smallest), most)

    def _measure_rtt(self, flight: _Flight, rtt: float, now: float) -> None:
        probed = self._probing_since is not None and flight.sent_at >= self._probing_since
        if self.rtt is None or rtt <= self.rtt or probed:
            self.rtt, self._rtt_at, self._probing_since = rtt, now, None
        elif now - self._rtt_at > _MEMORY and self._probing_since is None:
            # A round trip behind a full window measures our own queue, and would let the window double for ever:
            # the old value is only replaced by one that was taken with little on its way.
            self._probing_since = now
