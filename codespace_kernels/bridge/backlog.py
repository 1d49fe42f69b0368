"""Bounds what waits for local clients that read more slowly than a kernel publishes."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import zmq

from codespace_kernels.messages import MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codespace_kernels.messages import Message

LIMIT = 256 * 1024 * 1024
"""Bytes of one kernel that may wait in this process for its clients. The sockets have no mark of their own: a full
queue would drop messages without a word, statuses included."""

REFILL = 0.5
"""Outputs go on when so much of it is left, so that gaps are few and large."""

SAMPLE = 256 * 1024
"""Bytes from one message whose way is followed to the next: following each would cost more than sending it."""

_KEPT = frozenset({"status", "error", "execute_input"})


class Backlog:
    """Leaves the newest outputs out while too much waits, and says so in their cells.

    ZMQ does not tell how much a socket has queued, but it does tell when it lets go of a message's memory: every client
    has then been sent that one, and all before it.

    Args:
        say: Shows a sentence in the cell of a request, given by its header.
    """

    def __init__(self, say: Callable[[bytes, str], None]) -> None:
        self._say = say
        self._followed: collections.deque[tuple[zmq.MessageTracker, int]] = collections.deque()
        self._waiting = 0
        self._since = 0
        self._full = False
        self._gaps: dict[bytes, tuple[int, int]] = {}

    @property
    def waiting(self) -> int:
        """Bytes that wait for clients, about."""
        while self._followed and self._followed[0][0].done:
            self._waiting -= self._followed.popleft()[1]
        return self._waiting

    def takes(self, message: Message) -> bool:
        """Tell whether a message that the kernel published is to be sent on."""
        if self._waiting >= REFILL * LIMIT:
            self._full = self.waiting >= (REFILL * LIMIT if self._full else LIMIT)
        else:
            self._full = False
        if self._full and _is_output(message):
            count, size = self._gaps.get(message.parent, (0, 0))
            self._gaps[message.parent] = count + 1, size + sum(map(len, message[1:5])) + sum(map(len, message.buffers))
            return False
        if self._gaps:
            self._tell()
        return True

    def follow(self, frames: Sequence[bytes]) -> list[bytes | zmq.Frame]:
        """Give the frames of a message as they are to be sent."""
        self._since += sum(map(len, frames))
        if self._since < SAMPLE:
            return list(frames)
        last = zmq.Frame(frames[-1], track=True, copy=False, copy_threshold=0)
        # Not the frame: while that is referred to, ZMQ's own copy of it stays.
        self._followed.append((last.tracker, self._since))
        self._waiting += self._since
        self._since = 0
        return [*frames[:-1], last]

    def _tell(self) -> None:
        gaps, self._gaps = self._gaps, {}
        for parent, (count, size) in gaps.items():
            self._say(
                parent,
                f"Here {count} messages of output ({size / 2**20:.1f} MiB) are missing: the front end takes them more "
                f"slowly than the kernel makes them, and {LIMIT >> 20} MiB waited for it already.",
            )


def _is_output(message: Message) -> bool:
    try:
        return message.header_dict().get("msg_type") not in _KEPT
    except MalformedMessageError:
        return True
