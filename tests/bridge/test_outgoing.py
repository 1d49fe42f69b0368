"""What one connection sends: at once, gathered, and what waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from codespace_kernels.bridge.outgoing import Outgoing, SendQueue


class Queue:
    """A queue, its other end, and what it asked for."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.ours = ours
        self.watched: list[bool] = []
        self.asked = 0
        self.done: list[int] = []
        self.queue = SendQueue(ours, self.watched.append, self.ask)

    def ask(self) -> None:
        self.asked += 1

    def send(self, number: int, data: bytes) -> None:
        outgoing = Outgoing([data], 1, lambda: self.done.append(number))
        self.queue.send([data], outgoing)

    def arrived(self) -> bytes:
        data = b""
        while True:
            try:
                piece = self.theirs.recv(1 << 20)
            except BlockingIOError:
                return data
            if not piece:
                return data
            data += piece


@pytest.fixture
def queue() -> Iterator[Queue]:
    queue = Queue()
    yield queue
    queue.ours.close()
    queue.theirs.close()


def test_what_is_sent_in_a_turn_leaves_together(queue: Queue) -> None:
    for number, data in enumerate((b"a", b"b", b"c")):
        queue.send(number, data)
    assert queue.arrived() == b""
    assert queue.asked == 1
    assert not queue.queue
    queue.queue.send_gathered()
    assert queue.arrived() == b"abc"
    assert queue.done == [0, 1, 2]


def test_the_next_turn_begins_anew(queue: Queue) -> None:
    queue.send(0, b"a")
    queue.queue.send_gathered()
    queue.send(1, b"b")
    assert queue.arrived() == b"a"
    assert queue.asked == 2
    queue.queue.send_gathered()
    assert queue.arrived() == b"b"


def test_much_is_not_gathered_for_long(queue: Queue) -> None:
    queue.send(0, b"a")
    for number in range(1, 64):
        queue.send(number, b"b")
    assert queue.arrived() == b"a" + 63 * b"b"
    queue.send(64, b"c")
    assert queue.arrived() == b""
    queue.queue.send_gathered()
    assert queue.arrived() == b"c"
    assert queue.done == list(range(65))


def test_what_the_socket_does_not_take_waits_in_order(queue: Queue) -> None:
    queue.send(0, b"a")
    queue.send(1, b"b" * 31_000)
    queue.send(2, b"c" * 100_000)
    queue.send(3, b"d")
    assert queue.queue
    assert queue.watched == [True]
    data = queue.arrived()
    while queue.queue:
        queue.queue.flush()
        data += queue.arrived()
    assert data == b"a" + b"b" * 31_000 + b"c" * 100_000 + b"d"
    assert queue.watched == [True, False]
    assert queue.done == [0, 1, 2, 3]


def test_a_broken_connection_is_told_and_keeps_what_it_was_given(queue: Queue) -> None:
    queue.send(0, b"a")
    queue.queue.send_gathered()
    queue.theirs.close()
    queue.send(1, b"b")
    with pytest.raises(OSError):
        queue.queue.send_gathered()
    queue.queue.stop()
    queue.send(2, b"c")
    assert [outgoing.frames for outgoing in queue.queue.take_all()] == [[b"b"], [b"c"]]
    assert queue.done == [0]
