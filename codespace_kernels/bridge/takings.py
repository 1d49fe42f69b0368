"""What the operating system has taken of the messages to local clients, known even after this process was killed.

A process that is killed right after `sendmsg` leaves it to nobody to note that the message was taken. So each one is
noted *before* it is handed over, in a table in memory that outlives the process, with the place of its end in the bytes
of its connection; and a keeper, a process that does nothing else, holds a second descriptor of each connection. When
this process dies, the keeper asks the operating system how many bytes of each connection it has taken, which tells of
each noted message whether it was (see `broker.keeper`).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol

from codespace_kernels.remote_kernel import Token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from codespace_kernels.bridge.outgoing import Outgoing

MAGIC = 0x434B54414B494E31  # "CKTAKIN1"
CONNECTIONS = 1024
RING = 128
"""Messages that are noted of a connection: twice as many as one call hands over."""

_ID_WORDS = 32
_HEAD, _ENTRY = 3 + _ID_WORDS, 6
_SLOT = _HEAD + RING * _ENTRY
_SIZE = 8 * (1 + CONNECTIONS * _SLOT)
_NUMBER = (1 << 48) - 1
_MOST_CONNECTIONS = (1 << 15) - 1


class Keeper(Protocol):
    """Holds second descriptors of connections."""

    def hold(self, slot: int, sock: socket.socket, *, lasting: bool) -> bool:
        """Hold one, if it is to last until another process goes on with it; tell whether it will."""

    def drop(self, slot: int) -> None:
        """Let go of it."""


class Rest(NamedTuple):
    """The message of which a connection had the beginning, but not the end.

    Attributes:
        token: Which one.
        size: Bytes of the whole message.
        left: Bytes that are missing.
    """

    token: Token
    size: int
    left: int


class Past(NamedTuple):
    """What a connection had of another process's messages.

    Attributes:
        taken: Bytes.
        first: Number of the first message of those that it had without a gap; so their place goes.
        last: The last one; None for none.
        rest: What it had a part of.
        routing_id: What its client is called.
    """

    taken: int
    first: int
    last: Token | None
    rest: Rest | None
    routing_id: bytes

    def has(self, token: Token | None) -> bool:
        """Tell whether it has a message."""
        last = self.last
        return (
            token is not None
            and last is not None
            and token[:2] == last[:2]
            and self.first <= token.number <= last.number
        )


class Inherited(NamedTuple):
    """A connection that another process had, and that its client knows nothing new of."""

    sock: socket.socket
    past: Past


class Takings:
    """The table of all connections of this process.

    Args:
        path: Of the file; a private one is made.
        keeper: Holds the connections.
        inherited: What another process had, by local port.
    """

    def __init__(self, path: Path, keeper: Keeper, inherited: Mapping[int, list[Inherited]] | None = None) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("Q")
        self._words[0] = MAGIC
        self._keeper = keeper
        self._inherited = dict(inherited or {})
        self._held: dict[int, tuple[socket.socket, bool]] = {}
        self._free = list(range(CONNECTIONS - 1, -1, -1))

    @property
    def has_connections(self) -> bool:
        """Whether connections are noted."""
        return bool(self._held)

    def inherit(self, port: int) -> list[Inherited]:
        """Give the connections that another process had on a port, once."""
        return self._inherited.pop(port, [])

    def disinherit(self) -> None:
        """Close what another process had and nobody has asked for."""
        for one in itertools.chain.from_iterable(self._inherited.values()):
            one.sock.close()
        self._inherited.clear()

    def open(self, sock: socket.socket, *, lasting: bool = False) -> Slot | None:
        """Note what is handed to a connection from now on; None where that cannot be done.

        Args:
            sock: The connection.
            lasting: Whether another process may go on with it.
        """
        if not self._free:
            return None
        number = self._free.pop()
        if not self._keeper.hold(number, sock, lasting=lasting):
            self._free.append(number)
            return None
        self._held[number] = sock, lasting
        return Slot(self, self._words, number)

    def close_slot(self, number: int) -> None:
        """End a connection: who has it too would hold it open."""
        sock, _ = self._held.pop(number)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        start = 1 + number * _SLOT
        for at in (start, *range(start + _HEAD, start + _SLOT, _ENTRY)):
            self._words[at] = 0
        self._keeper.drop(number)
        self._free.append(number)

    def renew(self, keeper: Keeper) -> None:
        """Have all connections held by another keeper: the last one is gone."""
        self._keeper = keeper
        for number, (sock, lasting) in self._held.items():
            keeper.hold(number, sock, lasting=lasting)


class Slot:
    """What is noted of one connection.

    Attributes:
        noted: Where the last message ends that was noted.
    """

    __slots__ = ("_is_routed", "_last", "_next", "_number", "_start", "_takings", "_words", "noted")

    def __init__(self, takings: Takings, words: memoryview, number: int) -> None:
        self.noted = 0
        self._number = number
        self._takings = takings
        self._words = words
        self._start = 1 + number * _SLOT
        self._next = 0
        self._last = (0, 0, 0)
        self._is_routed = False

    def restore(self, past: Past) -> None:
        """Note what a connection had of another process."""
        if past.last is not None:
            self._note(past.taken - (past.rest.size - past.rest.left if past.rest else 0), 0, past.last, 0)
        else:
            self._add(past.taken, 0, 0, 0, 0, 0)
        if past.rest is not None:
            self._note(past.taken + past.rest.left, past.rest.size, past.rest.token, 0)
        self._words[self._start + 1] = past.first

    def name(self, routing_id: bytes) -> None:
        """Note what the client is called."""
        at = self._start + 2
        self._is_routed = bool(routing_id)
        self._words[at] = len(routing_id)
        self._words[at + 1 : at + 1 + _ID_WORDS] = memoryview(routing_id.ljust(8 * _ID_WORDS, b"\0")).cast("Q")

    def ready(self, is_ready: bool) -> None:
        """Note whether another process could go on with the connection, knowing nothing of what the client said."""
        self._words[self._start] = is_ready

    def note(self, end: int, size: int, outgoing: Outgoing | None) -> None:
        """Note a message that is about to be handed over.

        Args:
            end: How many bytes the connection has had with its last one.
            size: Bytes of the message.
            outgoing: The message; None for what is none.
        """
        token = outgoing.token if outgoing is not None else None
        if outgoing is None or token is None:
            self._add(end, size, 0, 0, 0, 0)
        else:
            self._note(end, size, token, outgoing.connections)

    def _note(self, end: int, size: int, token: Token, connections: int) -> None:
        if token[:2] != self._last[:2] or (not self._is_routed and token.after > self._last[2]):
            # Something before it was not handed to this connection. Of a client's own messages none is left out: what
            # is between them goes to others.
            self._words[self._start + 1] = token.number
        self._last = token[:3]
        number = token.number | min(connections, _MOST_CONNECTIONS) << 48
        self._add(end, size, token.session, token.place, number, token.after)

    def _add(self, end: int, size: int, session: int, place: int, number: int, after: int) -> None:
        self.noted = end
        words, at = self._words, self._start + _HEAD + self._next * _ENTRY
        self._next = (self._next + 1) % RING
        # While it is written it counts as none.
        words[at] = 0
        words[at + 1] = size
        words[at + 2] = session
        words[at + 3] = place
        words[at + 4] = number
        words[at + 5] = after
        words[at] = end

    def close(self) -> None:
        """End the connection."""
        self._takings.close_slot(self._number)


class _Note(NamedTuple):
    end: int
    size: int
    token: Token
    connections: int

    @property
    def is_message(self) -> bool:
        return bool(self.token.number)


class LeftTable:
    """The table of another process.

    Args:
        path: Of its file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such table.
    """

    def __init__(self, path: Path) -> None:
        if path.stat().st_size != _SIZE:
            raise ValueError("a table of another size")
        self._words = memoryview(path.read_bytes()).cast("Q")
        if self._words[0] != MAGIC:
            raise ValueError("no such table")

    def tokens(self, taken: Mapping[int, int]) -> set[Token]:
        """Tell which of the messages that were being handed over were taken for all whom they went to.

        Args:
            taken: By connection, how many bytes the operating system has taken.

        Raises:
            ValueError: A connection is none.
        """
        counts: dict[tuple[int, int, int], int] = {}
        tokens = set()
        for slot, size in taken.items():
            for note in self._notes(slot):
                if note.is_message and note.end <= size:
                    key = note.token[:3]
                    counts[key] = counts.get(key, 0) + 1
                    if counts[key] == note.connections:
                        tokens.add(note.token)
        return tokens

    def past(self, slot: int, taken: int) -> Past | None:
        """Tell what a connection had; None where nobody can go on with it.

        Args:
            slot: The connection.
            taken: How many bytes of it the operating system has taken.

        Raises:
            ValueError: The connection is none.
        """
        notes = self._notes(slot)
        if not self._words[1 + slot * _SLOT]:
            return None
        had = [note for note in notes if note.end <= taken]
        rest = None
        if not had or had[-1].end != taken:
            rest = next((n for n in notes if n.is_message and n.end - n.size < taken < n.end), None)
            if rest is None:
                return None
        last = next((note.token for note in reversed(had) if note.is_message), None)
        first = self._words[2 + slot * _SLOT]
        left = Rest(rest.token, rest.size, rest.end - taken) if rest else None
        return Past(taken, first, last, left, self._routing_id(slot))

    def _routing_id(self, slot: int) -> bytes:
        at = 3 + slot * _SLOT
        return self._words[at + 1 : at + 1 + _ID_WORDS].tobytes()[: self._words[at]]

    def _notes(self, slot: int) -> list[_Note]:
        if not 0 <= slot < CONNECTIONS:
            raise ValueError("a connection that is none")
        start = 1 + slot * _SLOT + _HEAD
        notes = []
        for at in range(start, start + RING * _ENTRY, _ENTRY):
            end, size, session, place, number, after = self._words[at : at + _ENTRY]
            if end:
                notes.append(_Note(end, size, Token(session, place, number & _NUMBER, after), number >> 48))
        return sorted(notes, key=lambda note: note.end)
