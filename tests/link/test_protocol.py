"""The link as a state machine: whatever happens, each message arrives whole, once and in order."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from codespace_kernels.link import frames, session, window

from .ends import End, Ends

FRAGMENT, WINDOW, UNFINISHED, UNCONFIRMED = 120, 1500, 4000, 1200


@contextlib.contextmanager
def small_sizes() -> Iterator[None]:
    """Let a few hundred bytes do what takes megabytes otherwise: pieces, turns, a window that is full."""
    with (
        mock.patch.multiple(frames, MAX_FRAGMENT=FRAGMENT, MIN_PIECE=FRAGMENT, MAX_UNFINISHED=UNFINISHED),
        mock.patch.multiple(session, TURN=100, ACK_BYTES=400, UNCONFIRMED=UNCONFIRMED),
        mock.patch.multiple(window, SMALLEST=300, LARGEST=WINDOW),
    ):
        yield


def size_of(kept: Iterable[Any]) -> int:
    return sum(len(frame.header) + len(frame.body) for frame in kept)


sides = st.sampled_from(["left", "right"])
kernels = st.integers(0, 3)
messages = st.lists(st.binary(max_size=30) | st.integers(0, 900).map(bytes), max_size=4)


class LinkMachine(RuleBasedStateMachine):
    """Two ends that are given messages, and everything that may happen between them."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes = contextlib.ExitStack()
        self._sizes.enter_context(small_sizes())
        self._folder = tempfile.TemporaryDirectory()
        self._sizes.callback(self._folder.cleanup)
        self.ends = Ends(Path(self._folder.name))

    def end(self, name: str) -> End:
        return self.ends.left if name == "left" else self.ends.right

    @rule(side=sides, kernel=kernels, channel=st.integers(0, 4), parts=messages)
    def send(self, side: str, kernel: int, channel: int, parts: list[bytes]) -> None:
        self.end(side).send(kernel, channel, parts)

    @rule(side=sides, count=st.integers(1, 30))
    def send_many(self, side: str, count: int) -> None:
        for index in range(count):
            self.end(side).send(index % 3, 1, [bytes(index * 7)])

    @rule(side=sides, kernel=kernels)
    def discard(self, side: str, kernel: int) -> None:
        self.end(side).discard(kernel)

    @rule(side=sides, max_bytes=st.sampled_from([1, 50, 300, 100_000]))
    def give(self, side: str, max_bytes: int) -> None:
        self.ends.give(self.end(side), max_bytes)

    @rule(side=sides, count=st.integers(1, 40) | st.integers(41, 5000))
    def carry(self, side: str, count: int) -> None:
        self.ends.carry(self.end(side), count)

    @rule(turns=st.integers(1, 6))
    def go_on(self, turns: int) -> None:
        for _ in range(turns):
            for end in (self.ends.left, self.ends.right):
                self.ends.give(end, 500)
                self.ends.carry(end, 100_000)

    @rule()
    def connect(self) -> None:
        self.ends.connect()

    @precondition(lambda self: self.ends.whole)
    @rule(left_notices=st.booleans(), right_notices=st.booleans())
    def break_stream(self, left_notices: bool, right_notices: bool) -> None:
        noticing = zip((self.ends.left, self.ends.right), (left_notices, right_notices), strict=True)
        self.ends.break_stream([end for end, notices in noticing if notices])

    @rule(side=sides)
    def replace(self, side: str) -> None:
        self.ends.break_stream([])
        self.end(side).renew()

    @rule(right_notices=st.booleans())
    def die(self, right_notices: bool) -> None:
        self.ends.break_stream([self.ends.right] if right_notices else [])
        self.ends.left.die(self.ends.right)

    @rule(count=st.integers(1, 20))
    def deliver(self, count: int) -> None:
        self.ends.left.deliver(count)

    @rule(side=sides, seconds=st.sampled_from([0.001, 0.05, 1.0, 20.0, 1e6]))
    def time_passes(self, side: str, seconds: float) -> None:
        self.end(side).clock += seconds

    @rule(side=sides)
    def ping(self, side: str) -> None:
        if self.ends.whole:
            self.end(side).session.ping(self.end(side).clock)

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for end in (self.ends.left, self.ends.right):
            assert end.session.kept_bytes >= 0
            # What a restored end has is what its log has, until the peer tells what it has taken.
            if end.session.connected or not getattr(end.session, "is_restored", False):
                assert end.session.kept_bytes <= WINDOW + FRAGMENT + frames.DATA_OVERHEAD
            assert end.session.queued_bytes >= 0

    @invariant()
    def the_window_holds_what_is_on_its_way(self) -> None:
        for end in (self.ends.left, self.ends.right):
            if end.session.connected:
                unsent = size_of(end.session._replay)
                assert end.session._in_flight == size_of(end.session._kept) - unsent

    @invariant()
    def unfinished_messages_are_bounded(self) -> None:
        for end in (self.ends.left, self.ends.right):
            assert sum(part.size for part in end.session._fragments.values()) == end.session._unfinished <= UNFINISHED

    @invariant()
    def nothing_queued_is_forgotten(self) -> None:
        for end in (self.ends.left, self.ends.right):
            waits = any(end.queued.values())
            assert bool(end.session.queued_bytes) == waits

    def teardown(self) -> None:
        try:
            self.ends.settle()
        finally:
            self.ends.left.session.close()
            self._sizes.close()


TestLink = LinkMachine.TestCase
TestLink.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
