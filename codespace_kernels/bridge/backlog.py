"""Bounds what waits for local clients that read more slowly than a kernel publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codespace_kernels.messages import MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.messages import Message

LIMIT = 256 * 1024 * 1024
"""Bytes of one kernel that may wait in this process for its clients. The sockets have no mark of their own: a full
queue would drop messages without a word, statuses included."""

REFILL = 0.5
"""Outputs go on when so much of it is left, so that gaps are few and large."""

_KEPT = frozenset({"status", "error", "execute_input"})


class Backlog:
    """Leaves the newest outputs out while too much waits, and says so in their cells.

    Args:
        say: Shows a sentence in the cell of a request, given by its header.
        waiting: Gives the bytes that wait for clients.
    """

    def __init__(self, say: Callable[[bytes, str], None], waiting: Callable[[], int]) -> None:
        self._say = say
        self._waiting = waiting
        self._full = False
        self._gaps: dict[bytes, tuple[int, int]] = {}

    def takes(self, message: Message) -> bool:
        """Tell whether a message that the kernel published is to be sent on."""
        self._full = self._waiting() >= (REFILL * LIMIT if self._full else LIMIT)
        if self._full and _is_output(message):
            count, size = self._gaps.get(message.parent, (0, 0))
            self._gaps[message.parent] = count + 1, size + sum(map(len, message[1:5])) + sum(map(len, message.buffers))
            return False
        if self._gaps:
            self._tell()
        return True

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
