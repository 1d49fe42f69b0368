"""What has come over the link, and what of it was delivered: the peer keeps the rest, in case this end dies.

An acknowledgement says that a frame arrived and makes room on the link; a confirmation says that it was delivered, or
given up, together with all before it: only then does the peer let go of it. An end that died is restored from its
journal and has everything sent again from its last confirmation on; what was delivered since then is known by kernel
and channel, and dropped.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Deque, Dict, NamedTuple, Optional, Tuple

UNCONFIRMED = 8 * 1024 * 1024
"""Bytes that a peer is asked to keep beyond what was confirmed. Beyond it the oldest message is given up: who reads
slowly must not stop what others get. It is delivered all the same, unless this end dies before."""

UNCONFIRMED_BY_ACKS = 64 * 1024
"""The same with a peer that knows no confirmations: what is not acknowledged takes room on the link there."""

Key = Tuple[int, int]


class Seen(NamedTuple):
    """What a restored end knows of the frames of one kernel and channel.

    Attributes:
        delivered: Number of the last frame of the last message that was delivered.
        given_up: Number of the last frame that was given up.
        unfinished: Whether more frames of that message were to come.
    """

    delivered: int = 0
    given_up: int = 0
    unfinished: bool = False


class Receipt:
    """One message that comes, or has come.

    Attributes:
        key: Its kernel and channel.
        first, last: Numbers of its first and its last frame; the latter is 0 while it is not whole.
        era: Changes when frames are numbered anew.
        delivered: Whether it is where it belongs.
        before: The one before it of the same key, as long as that may not be where it belongs.
    """

    __slots__ = ("before", "delivered", "era", "first", "key", "last")

    def __init__(self, key: Key, first: int, era: int, before: Optional[Receipt] = None) -> None:
        self.key = key
        self.first = first
        self.era = era
        self.before = before
        self.last = 0
        self.delivered = False


class Receipts:
    """Of one end.

    Args:
        journal: Told what must be known after a death, before the peer is: `confirmed`, `delivered`, `given_up`.
        confirmed: Where a restored end begins.
        seen: By kernel and channel, what a restored end had delivered beyond that.

    Attributes:
        received: Number of the last frame that was taken.
        limit: Bytes, see `UNCONFIRMED`.
    """

    def __init__(self, journal: Any, confirmed: int = 0, seen: Optional[Dict[Key, Seen]] = None) -> None:
        self._journal = journal
        self._era = 0
        self._begin(confirmed, seen or {})

    def _begin(self, confirmed: int, seen: Dict[Key, Seen]) -> None:
        self.received = confirmed
        self.limit = UNCONFIRMED
        self._waiting: "OrderedDict[int, Receipt]" = OrderedDict()
        self._unfinished: Dict[Key, Receipt] = {}
        self._in_order: Dict[Key, Deque[Receipt]] = {}
        self._sizes: Deque[Tuple[int, int]] = deque()
        self._bytes = 0
        self._old = {key: max(one.delivered, one.given_up) for key, one in seen.items()}
        self._torn = {key for key, one in seen.items() if one.unfinished and one.given_up > one.delivered}

    @property
    def confirmed(self) -> int:
        """Number up to which everything was delivered or given up."""
        for first in self._waiting:
            return first - 1
        return self.received

    def forget(self) -> None:
        """Begin anew with a peer that numbers anew."""
        self._era += 1
        self._begin(0, {})

    def take(self, number: int, key: Key, more: bool, size: int) -> Optional[Receipt]:
        """Note the next frame; None for one whose message was delivered or given up before a death."""
        self.received = number
        if self._old and self._is_old(number, key, more):
            return None
        receipt = self._unfinished.get(key)
        if receipt is None:
            in_order = self._in_order.setdefault(key, deque())
            receipt = self._waiting[number] = Receipt(key, number, self._era, in_order[-1] if in_order else None)
            in_order.append(receipt)
            if more:
                self._unfinished[key] = receipt
        if not more:
            receipt.last = number
            self._unfinished.pop(key, None)
            if receipt.first not in self._waiting:
                self._journal.given_up(key, number, unfinished=False)
        self._sizes.append((number, size))
        self._bytes += size
        if self._bytes > self.limit:
            self._shorten()
        while self._bytes > self.limit and self._waiting:
            self._give_up(number)
        return receipt

    def _is_old(self, number: int, key: Key, more: bool) -> bool:
        if number <= self._old.get(key, 0):
            return True
        if key not in self._torn:
            return False
        if not more:
            self._torn.discard(key)
        return True

    def delivered(self, receipt: Receipt) -> None:
        """Note that a whole message is where it belongs."""
        if receipt.era != self._era or receipt.delivered:
            return
        receipt.delivered = True
        in_order = self._in_order[receipt.key]
        while in_order and in_order[0].delivered:
            # Not beyond one that is held: what is kept for a person counts as delivered when it is shown.
            first = in_order.popleft()
            first.before = None
            self._journal.delivered(receipt.key, first.last)
        if not in_order:
            del self._in_order[receipt.key]
        if self._waiting.get(receipt.first) is receipt:
            del self._waiting[receipt.first]
            self._shorten()

    def is_current(self, receipt: Receipt) -> bool:
        """Tell whether a receipt is of the peer that numbers frames now."""
        return receipt.era == self._era

    @staticmethod
    def undelivered_before(receipt: Receipt) -> int:
        """Give the last frame of the last message before one, of its key, that is not delivered; 0 where all are."""
        before = receipt.before
        while before is not None and before.delivered:
            before = receipt.before = before.before
        return before.last if before is not None else 0

    def _give_up(self, number: int) -> None:
        """Let the oldest message be confirmed undelivered; what follows a death is to know that it may be missing."""
        _, receipt = self._waiting.popitem(last=False)
        self._journal.given_up(receipt.key, receipt.last or number, unfinished=not receipt.last)
        self._shorten()

    def _shorten(self) -> None:
        confirmed, sizes = self.confirmed, self._sizes
        while sizes and sizes[0][0] <= confirmed:
            self._bytes -= sizes.popleft()[1]
