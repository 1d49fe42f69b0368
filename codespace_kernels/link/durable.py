"""The broker's end of a link, which another process can go on with."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING

from codespace_kernels.link import frames, journal
from codespace_kernels.link.journal import JournalError, LinkJournal, place_mark, read_journal
from codespace_kernels.link.receipts import Receipts
from codespace_kernels.link.session import Session, _Kept, _Queue
from codespace_kernels.remote_kernel import Token

if TYPE_CHECKING:
    from pathlib import Path

    from codespace_kernels.link.journal import Past, Record
    from codespace_kernels.link.session import MessageReceived


class DurableSession(Session):
    """A session whose journal stands in a folder.

    Args:
        session_id: As `Session`.
        folder: Private to this user.
        software: As `Session`.

    Attributes:
        is_restored: Whether another process began it.
        gaps: Kernels of which something was confirmed that was not delivered before the death.
    """

    def __init__(self, session_id: str, folder: Path, *, software: str = "") -> None:
        self.is_restored = False
        self._folder = folder
        self._link_journal = LinkJournal(folder, session_id)
        self.gaps: set[int] = set()
        super().__init__(session_id, software=software, journal=self._link_journal)

    @classmethod
    def restored(cls, session_id: str, folder: Path, *, software: str = "") -> DurableSession:
        """Go on with a session of a process that died: what it had to send is there, what came is asked for again.

        Raises:
            JournalError: There is no journal of it, or none that can be used.
        """
        try:
            past = read_journal(folder, session_id)
            session = cls.__new__(cls)
            session._restore(past, folder, software)
        except OSError as error:
            raise JournalError(f"the journal of a link cannot be read: {error}") from None
        except journal.BROKEN as error:
            raise JournalError(f"the journal of a link does not fit itself: {error!r}") from None
        return session

    def _restore(self, past: Past, folder: Path, software: str) -> None:
        self.is_restored = True
        self._folder = folder
        Session.__init__(self, past.session, software=software)
        self._endpoint, self._peer, self._sent = past.endpoint, past.peer, past.sent
        for record in past.records:
            self._repeat(record)
        self._received = past.confirmed
        self.gaps = {kernel for (kernel, _), one in past.seen.items() if one.given_up > one.delivered}
        self._journal = self._link_journal = LinkJournal(folder, past.session, past._replace(peer=self._peer))
        self._receipts = Receipts(self._journal, past.confirmed, past.seen)
        self._link_journal.go_on(self, past)

    def _repeat(self, record: Record) -> None:
        """Do once more what a record says was done."""
        body = record.body
        if record.kind == journal.QUEUED:
            kernel, channel, _ = journal.MESSAGE.unpack_from(body)
            self._queue(kernel, channel, body[journal.MESSAGE.size :])
        elif record.kind == journal.NUMBERED:
            (kernel,) = journal.KERNEL.unpack(body)
            self._turns.remove(kernel)
            self._turns.appendleft(kernel)
            self._number(kernel, self._queues[kernel])
        elif record.kind == journal.DISCARDED:
            self.discard(*journal.KERNEL.unpack(body))
        elif record.kind == journal.MET:
            met = json.loads(body)
            if met["lost"]:
                self._forget_past()
            self._peer = str(met["peer"])
        elif record.kind == journal.KEPT:
            self._keep(body)
        elif record.kind == journal.REST:
            kernel, channel, whole = journal.MESSAGE.unpack_from(body)
            self._queue_rest(kernel, channel, whole, body[journal.MESSAGE.size :])
        else:
            raise JournalError(f"a record of kind {record.kind}")

    def _keep(self, record: bytes) -> None:
        number, kernel, channel, more = journal.FRAME.unpack_from(record)
        body = record[journal.FRAME.size :]
        if number != self._sent + 1:
            raise JournalError(f"frame {number} after frame {self._sent}")
        self._sent = number
        header = frames.encode_data_header(number, kernel, channel, bool(more), len(body))
        self._kept.append(_Kept(number, header, body))
        self.kept_bytes += len(body) + frames.DATA_OVERHEAD

    def _queue_rest(self, kernel: int, channel: int, whole: int, rest: bytes) -> None:
        """Queue what is left of a message whose beginning was numbered; it is the first one of its kernel."""
        queue = self._queues[kernel] = _Queue(self._make_queue())
        self._turns.append(kernel)
        queue.pieces.extend((channel, more, piece) for more, piece in frames.cut_message(rest))
        queue.inside_message = True
        queue.in_pieces.append(whole)
        queue.size = len(rest)
        self.queued_bytes += len(rest)
        self._begun += whole

    def token(self, message: MessageReceived) -> Token | None:
        """See `Session.token`."""
        receipt, receipts = message.receipt, self._receipts
        if receipt is None or receipts is None or not receipts.is_current(receipt):
            return None
        place = place_mark(message.kernel, message.channel)
        return Token(self._link_journal.mark, place, receipt.last, receipts.undelivered_before(receipt))

    def outgoing(self) -> tuple[int, list[tuple[int, int, int, bool, bytes]], list[tuple[int, int, int, bytes]]]:
        """Give what is to be sent, for the journal.

        Returns:
            The number of the last frame before those that are kept; the kept ones as number, kernel, channel, whether
            more follow, and body; queued messages as kernel, channel, size, and what of them is not numbered.
        """
        kept = []
        for frame in self._kept:
            (decoded,) = frames.FrameDecoder().feed(frame.header + frame.body)
            kept.append((frame.number, decoded.kernel, decoded.channel, decoded.more, frame.body))
        queued = [message for kernel, queue in self._queues.items() for message in _messages_of(kernel, queue)]
        return self._sent - len(kept), kept, queued

    def renewed(self) -> DurableSession:
        """Close this session and give another one in its place."""
        self.close()
        return DurableSession(secrets.token_hex(16), self._folder, software=self._software)

    def forget_kernel(self, kernel: int) -> None:
        """Forget a kernel that is let go of."""
        self.discard(kernel)
        self._link_journal.forget(kernel)

    def close(self) -> None:
        """Let go of everything: the session is over, and nobody goes on with it."""
        super().close()
        with contextlib.suppress(OSError):
            self._link_journal.remove()

    def leave(self) -> None:
        """Let go of everything but the journal: another process goes on."""
        self.detach()
        self._link_journal.close()


def _messages_of(kernel: int, queue: _Queue) -> list[tuple[int, int, int, bytes]]:
    """Put the pieces of a kernel's queue together to messages."""
    messages = []
    sizes = iter(queue.in_pieces)
    parts: list[bytes] = []
    inside = queue.inside_message
    for channel, more, piece in queue.pieces:
        parts.append(piece)
        if not more:
            whole = next(sizes) if inside or len(parts) > 1 else len(piece)
            messages.append((kernel, channel, whole, b"".join(parts)))
            parts, inside = [], False
    return messages
