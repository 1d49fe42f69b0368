"""Messages on their way to local clients, and the queue of each connection."""

from __future__ import annotations

import collections
import logging
import socket
from typing import TYPE_CHECKING, NamedTuple

from codespace_kernels.zmtp.frames import encode_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codespace_kernels.bridge.takings import Slot
    from codespace_kernels.remote_kernel import Token

_log = logging.getLogger(__name__)

_BATCH_BYTES = 1024 * 1024
_BATCH_PIECES = 64
"""Handed to the operating system at once, at most: far below the 1024 pieces that each system takes."""

_GATHERED_BYTES = 32 * 1024

_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")  # not on Windows


class Tally:
    """Bytes that wait in this process for some clients; what several wait for counts once, as it is kept once."""

    def __init__(self) -> None:
        self.waiting = 0


class Outgoing:
    """A message to one or more clients.

    Args:
        frames: As the clients get them.
        receivers: How many clients it goes to.
        done: Called when the operating system has taken the whole message for each of them, or they are gone.
        tally: Where its bytes count while one of them waits for it.

    Attributes:
        frames: As given.
        connections: How many it is handed to.
    """

    __slots__ = ("_counted", "_done", "_left", "_pieces", "_tally", "connections", "frames")

    def __init__(
        self, frames: Sequence[bytes], receivers: int, done: Callable[[], None] | None, tally: Tally | None = None
    ) -> None:
        self.frames = frames
        self.connections = receivers
        self._left = receivers
        self._done = done
        self._tally = tally
        self._counted = 0
        self._pieces: list[bytes] | None = None

    @property
    def token(self) -> Token | None:
        """What it is known by to a process that goes on after this one was killed; None where it is not."""
        return getattr(self._done, "token", None)

    @property
    def pieces(self) -> list[bytes]:
        """The message as `encode_message` has it, made once for all."""
        if self._pieces is None:
            self._pieces = encode_message(self.frames)
        return self._pieces

    def waits(self, pieces: Sequence[bytes]) -> None:
        """Note that it waits for a client, as these bytes: those that all share count once."""
        if self._tally is not None and not (self._counted and pieces is self._pieces):
            size = sum(map(len, pieces))
            self._counted += size
            self._tally.waiting += size

    def finished(self) -> None:
        """Note that one client has it, or is gone."""
        self._left -= 1
        if self._left:
            return
        if self._tally is not None:
            self._tally.waiting -= self._counted
        if self._done is not None:
            try:
                self._done()
            except Exception:
                # Whoever sent one message must not end the connection for all that follow.
                _log.exception("what was to be done after a message was sent failed")


class _Entry(NamedTuple):
    """What waits of one message, where in the bytes of the connection it ends, and its whole size."""

    pieces: collections.deque[memoryview]
    outgoing: Outgoing | None
    end: int
    size: int


class SendQueue:
    """What one connection has to send; keeps what the operating system does not take.

    What is sent within one turn of the loop is gathered: each system call may wake the client up, and one for each
    message of a burst was a third of all that a broker did.

    Args:
        sock: Connected, not blocking.
        watch: Told whether `flush` is to be called when the socket takes more.
        soon: Called to have `send_gathered` called in the loop's next turn.
        slot: Where messages are noted before they are handed over; None for nowhere.
        taken: How many bytes the connection has had before.
    """

    def __init__(
        self,
        sock: socket.socket,
        watch: Callable[[bool], None],
        soon: Callable[[], object],
        slot: Slot | None = None,
        taken: int = 0,
    ) -> None:
        self._socket = sock
        self._watch = watch
        self._soon = soon
        self._slot = slot
        self._entries: collections.deque[_Entry] = collections.deque()
        self._end = taken
        self._stopped = False
        self._gathers = False
        self._gathered = 0

    def __bool__(self) -> bool:
        """Whether something waits for the socket."""
        return bool(self._entries) and not self._gathers

    def send(self, pieces: Sequence[bytes], outgoing: Outgoing | None = None) -> None:
        """Send bytes in the loop's next turn, or keep them until the socket takes them.

        Args:
            pieces: In this order.
            outgoing: The message that they are; it is told when they are sent.

        Raises:
            OSError: The connection is broken; the message counts as kept.
        """
        size = sum(map(len, pieces))
        self._end += size
        if not self._gathers and not self._entries and not self._stopped:
            self._gathers = True
            self._soon()
        self._keep(pieces, size, outgoing)
        if not self._gathers:
            return
        self._gathered += size
        if self._gathered >= _GATHERED_BYTES or len(self._entries) >= _BATCH_PIECES:
            self._send_gathered(goes_on=True)

    def send_gathered(self) -> None:
        """Send what was gathered, and gather no more.

        Raises:
            OSError: The connection is broken.
        """
        if self._gathers:
            self._send_gathered(goes_on=False)

    def _send_gathered(self, *, goes_on: bool) -> None:
        self._gathered = 0
        self._gathers = False
        taken = self._send_waiting()
        if self._entries:
            self._watch(True)
        else:
            self._gathers = goes_on
        _finish(taken)

    def flush(self) -> None:
        """Send what the socket takes of what waits.

        Raises:
            OSError: The connection is broken.
        """
        taken = self._send_waiting()
        if not self._entries:
            self._watch(False)
        _finish(taken)

    def _send_waiting(self) -> list[Outgoing | None]:
        return self._drop(self._write(self._batch())) if self._entries else []

    def stop(self) -> None:
        """Send nothing more; what is given is kept."""
        self._stopped = True
        self._gathers = False
        self._watch(False)

    def take_all(self) -> list[Outgoing]:
        """Forget what waits, and give the messages of which something was not sent."""
        entries, self._entries = self._entries, collections.deque()
        return [entry.outgoing for entry in entries if entry.outgoing is not None]

    def _keep(self, pieces: Sequence[bytes], size: int, outgoing: Outgoing | None) -> None:
        left = collections.deque(memoryview(piece) for piece in pieces)
        self._entries.append(_Entry(left, outgoing, self._end, size))
        if outgoing is not None:
            outgoing.waits(pieces)

    def _batch(self) -> list[memoryview]:
        batch: list[memoryview] = []
        size = 0
        for entry in self._entries:
            self._note(entry.end, entry.size, entry.outgoing)
            for piece in entry.pieces:
                batch.append(piece)
                size += len(piece)
                if size >= _BATCH_BYTES or len(batch) >= _BATCH_PIECES:
                    return batch
        return batch

    def _note(self, end: int, size: int, outgoing: Outgoing | None) -> None:
        if self._slot is not None and end > self._slot.noted:
            self._slot.note(end, size, outgoing)

    def _drop(self, sent: int) -> list[Outgoing | None]:
        taken = []
        while self._entries:
            entry = self._entries[0]
            sent = _advance(entry.pieces, sent)
            if entry.pieces:
                break
            self._entries.popleft()
            taken.append(entry.outgoing)
        return taken

    def _write(self, pieces: Sequence[bytes | memoryview]) -> int:
        try:
            if len(pieces) == 1 or not _HAS_SENDMSG:
                return self._socket.send(pieces[0])
            return self._socket.sendmsg(pieces[:_BATCH_PIECES])
        except (BlockingIOError, InterruptedError):
            return 0


def _finish(taken: Sequence[Outgoing | None]) -> None:
    for outgoing in taken:
        if outgoing is not None:
            outgoing.finished()


def _advance(pieces: collections.deque[memoryview], count: int) -> int:
    """Take `count` bytes off the front; give how many of them there were too few for."""
    while pieces and count >= len(pieces[0]):
        count -= len(pieces.popleft())
    if pieces and count:
        pieces[0] = pieces[0][count:]
        count = 0
    return count
