"""Both ends of a link, and a model of what must arrive."""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path
from typing import NamedTuple

from codespace_kernels.link import frames
from codespace_kernels.link.durable import DurableSession
from codespace_kernels.link.session import ACK_DELAY, Connected, Failed, MessageReceived, Session

ID = "0123456789abcdef"


class Sent(NamedTuple):
    """A message that an end was given; its parts tell it from all others."""

    serial: int
    channel: int
    parts: list[bytes]


class End:
    """One end, and what the model knows of the messages that it was given.

    Attributes:
        queued: Messages of each kernel that were not numbered, the one that is begun included.
        begun: Serials of messages of which at least one frame was given to a stream, whether it arrived or not.
        may_be_lost: Serials of messages that may be missing at the other end: one end was replaced, they were
            discarded, or given up by an end that died.
        held: Messages that came and were not delivered.
        again: Serials of messages that are to come once more, since this end died.
    """

    def __init__(self, name: str, clock: float, folder: Path | None = None) -> None:
        self.name = name
        self.clock = clock
        self.folder = folder
        self.held: list[MessageReceived] = []
        self.again: set[int] = set()
        self.incarnations = 0
        self.serial = 0
        self.sent: dict[int, dict[int, Sent]] = defaultdict(dict)
        self.may_be_lost: set[int] = set()
        self.got: dict[int, list[int]] = defaultdict(list)
        self.lost = 0
        self.renew()

    def renew(self) -> None:
        """Replace this end by one that knows nothing; what it had not delivered is gone with it."""
        self.incarnations += 1
        software = f"{self.name} {self.incarnations}"
        if self.folder is not None:
            if self.incarnations > 1:
                self.session.close()
            self.session: Session = DurableSession(ID, self.folder, software=software)
            self.held.clear()
            self.again.clear()
        else:
            self.session = Session(ID, software=software)
        self.may_be_lost |= {serial for messages in self.sent.values() for serial in messages}
        self.queued: dict[int, deque[int]] = defaultdict(deque)
        self.begun: set[int] = set()
        self._last_number = 0

    def die(self, other: End) -> None:
        """Be killed, and restored from the journal; messages that were taken and not delivered come again."""
        assert self.folder is not None
        assert isinstance(self.session, DurableSession)
        self.session._link_journal.close()
        kept = {id(receipt) for receipt in self.session._receipts._waiting.values()}
        torn = [receipt.key for receipt in self.session._receipts._unfinished.values() if id(receipt) not in kept]
        self.session = DurableSession.restored(ID, self.folder, software=f"{self.name} {self.incarnations}")
        for message in self.held:
            serial = int(message.parts[0])
            self.got[message.kernel].remove(serial)
            if id(message.receipt) in kept:
                self.again.add(serial)
            elif serial not in other.may_be_lost:  # What a peer sent that was replaced may be lost, and that is told.
                assert message.kernel in self.session.gaps
                other.may_be_lost.add(serial)
        for kernel, channel in torn:
            assert kernel in self.session.gaps
            other.may_be_lost.add(min(self._open_messages(kernel, channel, other), default=0))
        self.held.clear()

    def _open_messages(self, kernel: int, channel: int, other: End) -> set[int]:
        sent = {serial for serial, message in other.sent[kernel].items() if message.channel == channel}
        return sent - {*self.got[kernel]} - self.again - other.may_be_lost

    def deliver(self, count: int) -> None:
        """Say of messages that they are where they belong: in order on a channel, in any order besides."""
        for _ in range(min(count, len(self.held))):
            picked = self.held[count % len(self.held)]
            first = next(one for one in self.held if (one.kernel, one.channel) == (picked.kernel, picked.channel))
            self.held.remove(first)
            self.session.delivered(first)

    def send(self, kernel: int, channel: int, parts: list[bytes]) -> None:
        self.serial += 1
        message = Sent(self.serial, channel, [b"%d" % self.serial, *parts])
        self.sent[kernel][self.serial] = message
        self.queued[kernel].append(self.serial)
        self.session.send(kernel, channel, message.parts)

    def discard(self, kernel: int) -> None:
        self.may_be_lost |= set(self.queued[kernel])
        self.queued[kernel] = deque(serial for serial in self.queued[kernel] if serial in self.begun)
        self.session.discard(kernel)

    def give(self, max_bytes: int) -> bytes:
        """Give bytes for the stream, noting which messages stand in them for the first time."""
        data = self.session.data_to_send(self.clock, max_bytes)
        for frame in frames.FrameDecoder().feed(data):
            assert not isinstance(frame, frames.ProtocolError)
            if isinstance(frame, frames.Data) and frame.number > self._last_number:
                assert frame.number == self._last_number + 1
                self._last_number = frame.number
                self.begun.add(self.queued[frame.kernel][0])
                if not frame.more:
                    self.queued[frame.kernel].popleft()
        return data

    def take(self, data: bytes, other: End) -> None:
        """Take bytes of the stream; every message must be the next one of its kernel that may not be missing."""
        for event in self.session.receive_data(data, self.clock):
            assert not isinstance(event, Failed), event
            if isinstance(event, MessageReceived):
                self._check(event, other)
                if self.folder is not None:
                    self.held.append(event)
            elif isinstance(event, Connected) and event.lost:
                self._peer_was_replaced()

    def _check(self, event: MessageReceived, other: End) -> None:
        serial = int(event.parts[0])
        message = other.sent[event.kernel][serial]
        assert (event.channel, event.parts) == (message.channel, message.parts), "not whole"
        if serial in self.again:
            self.again.discard(serial)
            self.got[event.kernel] = sorted([*self.got[event.kernel], serial])
            return
        before = self.got[event.kernel][-1] if self.got[event.kernel] else 0
        assert serial > before, f"message {serial} of kernel {event.kernel} came after {before}"
        skipped = {known for known in other.sent[event.kernel] if before < known < serial}
        skipped -= self.again
        assert skipped <= other.may_be_lost, f"lost: {skipped - other.may_be_lost}"
        self.got[event.kernel].append(serial)

    def _peer_was_replaced(self) -> None:
        self.lost += 1
        self._last_number = 0
        self.may_be_lost |= self.begun
        for kernel, waiting in self.queued.items():
            self.queued[kernel] = deque(serial for serial in waiting if serial not in self.begun)

    def missing(self, other: End) -> set[int]:
        """Serials of `other` that have not come and may not be missing."""
        sent = {serial for messages in other.sent.values() for serial in messages}
        return sent - other.may_be_lost - {serial for serials in self.got.values() for serial in serials}


class Ends:
    """Two ends and the stream between them, of which each may think what it likes."""

    def __init__(self, folder: Path | None = None) -> None:
        # Clocks of two machines have nothing to do with each other.
        self.left, self.right = End("left", 1000.0, folder), End("right", 5.0)
        self.wires: dict[str, bytearray] = {"left": bytearray(), "right": bytearray()}
        self.whole = False

    def other(self, end: End) -> End:
        return self.right if end is self.left else self.left

    def connect(self) -> None:
        """Begin with a new stream; what was on the old one is gone."""
        self.left.session.attach()
        self.right.session.attach()
        self.wires = {"left": bytearray(), "right": bytearray()}
        self.whole = True

    def break_stream(self, who_notices: list[End]) -> None:
        self.whole = False
        self.wires = {"left": bytearray(), "right": bytearray()}
        for end in who_notices:
            end.session.detach()

    def give(self, end: End, max_bytes: int) -> int:
        data = end.give(max_bytes)
        if self.whole:
            self.wires[end.name] += data
        return len(data)

    def carry(self, source: End, count: int) -> int:
        """Hand over the next bytes of what `source` has given."""
        wire = self.wires[source.name]
        data = bytes(wire[:count])
        del wire[:count]
        if data:
            self.other(source).take(data, source)
        return len(data)

    def settle(self, rounds: int = 20000) -> None:
        """Carry on over a stream that stays whole: everything must arrive, and nothing may be kept in the end."""
        self.connect()
        for _ in range(rounds):
            moved = 0
            for end in (self.left, self.right):
                moved += self.give(end, 1000) + self.carry(end, 1 << 30)
                end.deliver(len(end.held))
            if not moved:
                if self.at_rest:
                    break
                for end in (self.left, self.right):
                    end.clock += ACK_DELAY
        assert self.at_rest, "the ends do not come to rest"
        assert not self.left.missing(self.right)
        assert not self.right.missing(self.left)

    @property
    def at_rest(self) -> bool:
        sessions = (self.left.session, self.right.session)
        return not any(session.kept_bytes or session.queued_bytes for session in sessions)
