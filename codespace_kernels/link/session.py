"""One end of the link as a state machine without I/O; both ends are the same.

A session outlives the streams that carry it. Messages are cut into numbered frames, kept until the other end says that
it took them, and sent again over the next stream when the last one broke. The frame after number n is n + 1; anything
else is either an old one, dropped, or an error. So each message arrives once, whole and in order per kernel.

An end with a journal outlives its process: see `durable`.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import frames, window
from .receipts import UNCONFIRMED, UNCONFIRMED_BY_ACKS, Receipt, Receipts

ACK_BYTES = 128 * 1024
ACK_DELAY = 0.05
"""An acknowledgement goes out after so many bytes or seconds, or with whatever else is sent."""

SOON_BYTES = 8 * 1024
SOON_DELAY = 0.003
"""The delay where so many bytes came: a peer that has much to send over a slow link waits for it with the rest."""

TURN = 16 * 1024
"""Bytes that one kernel sends before the next one's turn."""

SHARED_SECONDS = 2.0
"""For so long after two kernels took turns, the link counts as shared."""

MAX_CONTROL = 64
"""Answers to pings that wait to be sent; a peer that asks without reading the answers gets no more."""

BATCH = 128 * 1024
"""Bytes that one call of `data_to_send` gives at most, unless told otherwise."""


class MessageReceived(NamedTuple):
    """A whole message, once and in order.

    Attributes:
        receipt: At an end with a journal, for `Session.delivered`.
    """

    kernel: int
    channel: int
    parts: List[bytes]
    receipt: Optional[Receipt] = None


class Connected(NamedTuple):
    """The peer's hello came.

    Attributes:
        lost: The peer knows nothing of what this session exchanged before: it was replaced. Frames that were sent but
            not acknowledged are dropped (they may have been taken or not), numbering starts anew on both sides,
            messages that were only queued are still sent.
        software: The peer's version.
        minor: The link's minor version that both ends use from now on.
    """

    lost: bool
    software: str
    minor: int = frames.MAX_MINOR


class PongReceived(NamedTuple):
    """The peer lives; `rtt` is in seconds."""

    rtt: float


class ClosedByPeer(NamedTuple):
    """The peer is done with the session for good."""

    reason: str


class Failed(NamedTuple):
    """One side broke the protocol; this stream carries no more. The session may go on over another one.

    Attributes:
        reason: What was wrong.
        version: Set where the ends have no version of the link in common: no other stream will help.
    """

    reason: str
    version: Optional[frames.VersionError] = None


class _Kept(NamedTuple):
    number: int
    header: bytes
    body: bytes


class _Queue:
    """What waits to be numbered for one kernel: `pieces` is a deque, or what keeps them elsewhere.

    `in_pieces` has the sizes of the messages that do not fit into one piece, in order.
    """

    def __init__(self, pieces: Any) -> None:
        self.pieces = pieces
        self.size = 0
        self.credit = 0
        self.inside_message = False
        self.in_pieces: Deque[int] = deque()


class Session:
    """One end of a session.

    Args:
        session_id: 8 to 64 characters, chosen by the client, the same at both ends.
        software: Version of this side's package, for the peer.
        minors: The lowest and the highest minor version of the link that this side speaks.
        make_queue: Gives a `deque`, or what keeps a kernel's pieces (channel, whether more follow, bytes) elsewhere: it
            needs `append`, `popleft`, `clear` and a truth value.
        journal: Where this end writes down what another process needs to go on in its place (see `journal`); messages
            that come must then be said to be `delivered`. None for an end that goes with its process.

    Attributes:
        kept_bytes: Bytes that were sent and not yet acknowledged, or confirmed where the peer does that.
        queued_bytes: Bytes that wait to be sent.
        window: What was measured of the link.
    """

    def __init__(
        self,
        session_id: str,
        *,
        software: str = "",
        minors: Tuple[int, int] = (frames.MIN_MINOR, frames.MAX_MINOR),
        make_queue: Callable[[], Any] = deque,
        journal: Any = None,
    ) -> None:
        self.session_id = session_id
        self.kept_bytes = 0
        self.queued_bytes = 0
        self.window = window.Window()
        self._software = software
        self._minors = minors
        self._make_queue = make_queue
        self._endpoint = secrets.token_hex(8)
        self._peer = ""
        self._sent = 0
        self._kept: Deque[_Kept] = deque()
        self._acked: Deque[_Kept] = deque()
        self._peer_confirms = False
        self._confirmed = 0
        self._journal = journal
        self._receipts = Receipts(journal) if journal is not None else None
        self._queues: Dict[int, _Queue] = {}
        self._turns: Deque[int] = deque()
        self._begun = 0
        self._sender = -1
        self._takes_turns = False
        self._shared_until = float("-inf")
        self._received = 0
        self._unfinished = 0
        self._fragments: Dict[Tuple[int, int], frames.Fragments] = {}
        self._ping_times: Dict[int, float] = {}
        self._pings = 0
        self.detach()
        if journal is not None:
            journal.begin(self._endpoint)

    # -- streams ------------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether both hellos were exchanged over the stream of now."""
        return self._connected

    def attach(self) -> None:
        """Begin with a new stream; an earlier one counts as lost."""
        self.detach()
        self._attached = True
        # What is taken and not confirmed comes again, and is dropped: the peer may not know yet that it must keep it.
        received = self._received if self._receipts is None else self._note_confirmed(self._receipts)
        self._said_confirmed = -1
        hello = frames.Hello(self.session_id, self._endpoint, self._peer, received, *self._minors, self._software)
        self._control.append(frames.encode_hello(hello))

    def detach(self) -> None:
        """Forget the stream: it broke or was closed. What was sent over it and not acknowledged will be sent again."""
        self._attached = self._connected = self._failed = False
        self._decoder = frames.FrameDecoder()
        self._control: Deque[bytes] = deque()
        self._replay: Deque[_Kept] = deque()
        self._in_flight = 0
        self._to_ack = 0
        self._to_ack_at = 0.0
        self._to_ack_since: Optional[float] = None
        self._confirms = False
        self._said_confirmed = -1
        self._to_confirm_since: Optional[float] = None
        self._ping_times.clear()
        self.window.restart()

    def close(self) -> None:
        """Let go of all that is queued: the session is over."""
        self.detach()
        for queue in self._queues.values():
            queue.pieces.clear()
        self._queues.clear()
        self._turns.clear()
        self.queued_bytes = 0

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, kernel: int, channel: int, parts: Sequence[bytes]) -> None:
        """Queue a message; possible at any time.

        Raises:
            ValueError: The message is larger than the link carries.
        """
        body = frames.encode_message(parts)
        if self._journal is not None:
            self._journal.queued(kernel, channel, body)
        self._queue(kernel, channel, body)

    def _queue(self, kernel: int, channel: int, body: bytes) -> None:
        queue = self._queues.get(kernel)
        if queue is None:
            queue = self._queues[kernel] = _Queue(self._make_queue())
        if not queue.pieces:
            self._turns.append(kernel)
        queue.size += len(body)
        self.queued_bytes += len(body)
        if len(body) <= frames.MAX_FRAGMENT:
            queue.pieces.append((channel, False, body))
        else:
            queue.in_pieces.append(len(body))
            for more, piece in frames.cut_message(body):
                queue.pieces.append((channel, more, piece))

    def discard(self, kernel: int) -> None:
        """Drop what is queued for a kernel, but for the rest of a message whose beginning is on its way."""
        queue = self._queues.get(kernel)
        if queue is None:
            return
        if self._journal is not None:
            self._journal.discarded(kernel)
        rest = _take_rest(queue) if queue.inside_message else []
        queue.pieces.clear()
        self.queued_bytes -= queue.size
        queue.size = 0
        queue.in_pieces = deque(list(queue.in_pieces)[: bool(rest)])
        for piece in rest:
            queue.pieces.append(piece)
            queue.size += len(piece[2])
        self.queued_bytes += queue.size
        if not rest:
            self._turns.remove(kernel)
            del self._queues[kernel]

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life."""
        self._pings += 1
        self._ping_times[self._pings] = now
        self._control.append(frames.encode_ping(self._pings))

    def say_bye(self, reason: str) -> None:
        """Tell the peer that this session is over for good."""
        self._control.append(frames.encode_bye(reason))

    def data_to_send(self, now: float, max_bytes: int = BATCH) -> bytes:
        """Give the next bytes for the stream; empty when there is nothing to send now.

        Args:
            now: Seconds of a monotonic clock.
            max_bytes: About how many bytes; a single frame may be longer.
        """
        if not self._attached:
            return b""
        out: List[bytes] = list(self._control)
        self._control.clear()
        # Not before the peer's hello: what a peer takes that is replaced before its hello comes, its successor would
        # be sent again.
        if self._connected and not self._failed:
            self._fill(out, max_bytes, now)
        ack = bool(self._to_ack and (out or self._ack_is_due(now)))
        if self._receipts is not None:
            # First: a peer that has heard of no confirmation lets go of what is acknowledged.
            self._confirm(self._receipts, out, now, at_once=ack)
        if ack:
            out.append(self._make_ack(now))
        if self._journal is not None:
            self._journal.flush(self)
        return b"".join(out)

    @property
    def has_to_send(self) -> bool:
        """Whether `data_to_send` may have something to give at once."""
        if self._control or self._turns or self._replay or self._to_ack >= ACK_BYTES:
            return True
        if self._receipts is None or not self._connected or self._to_confirm_since is not None:
            return False
        # A confirmation goes out with an acknowledgement; without one it has no time yet.
        is_planned = self._to_ack_since is not None and self._said_confirmed >= 0
        return not is_planned and self._receipts.confirmed != self._said_confirmed

    def next_deadline(self) -> Optional[float]:
        """Tell when `data_to_send` will have something to give although nothing happens; None for never."""
        if not self._attached:
            return None
        if self._to_ack_since is not None:
            return self._to_ack_since + self._ack_delay
        return None if self._to_confirm_since is None else self._to_confirm_since + ACK_DELAY

    def _fill(self, out: List[bytes], max_bytes: int, now: float) -> None:
        size = last = 0
        self.window.shared = now < self._shared_until
        while size < max_bytes and self._in_flight < self.window.size:
            if not self._replay and self.kept_bytes >= window.LARGEST:
                break
            frame = self._replay.popleft() if self._replay else self._take_next()
            if frame is None:
                break
            out.append(frame.header)
            out.append(frame.body)
            last = frame.number
            length = len(frame.header) + len(frame.body)
            size += length
            self._in_flight += length
        if self._takes_turns:
            self._takes_turns, self._shared_until = False, now + SHARED_SECONDS
        if size:
            self.window.sent(last, now, not self._turns)

    def _take_next(self) -> Optional[_Kept]:
        """Number the next piece: the kernels take turns of `TURN` bytes, what one took too much it waits out."""
        turns = self._turns
        if not turns:
            return None
        queue = self._queues[turns[0]]
        while queue.credit <= 0 or self._must_wait(queue):
            queue.credit = min(queue.credit + TURN, TURN)
            turns.rotate(-1)
            queue = self._queues[turns[0]]
        return self._number(turns[0], queue)

    def _must_wait(self, queue: _Queue) -> bool:
        """Whether a kernel's next message would be more than the peer takes of unfinished ones: others end first."""
        if not self._begun or queue.inside_message or not queue.in_pieces:
            return False
        return self._begun + queue.in_pieces[0] > frames.MAX_UNFINISHED

    def _number(self, kernel: int, queue: _Queue) -> _Kept:
        channel, more, body = queue.pieces.popleft()
        size = len(body)
        if more and not queue.inside_message:
            self._begun += queue.in_pieces[0]
        elif queue.inside_message and not more:
            self._begun -= queue.in_pieces.popleft()
        queue.size -= size
        queue.credit -= size + frames.DATA_OVERHEAD
        queue.inside_message = more
        if not queue.pieces:
            self._turns.popleft()
            del self._queues[kernel]
        if kernel != self._sender:
            self._sender, self._takes_turns = kernel, True
        self._sent += 1
        if self._journal is not None:
            self._journal.numbered(kernel)
        kept = _Kept(self._sent, frames.encode_data_header(self._sent, kernel, channel, more, size), body)
        self._kept.append(kept)
        self.queued_bytes -= size
        self.kept_bytes += size + frames.DATA_OVERHEAD
        return kept

    def _ack_is_due(self, now: float) -> bool:
        since = self._to_ack_since
        return self._to_ack >= ACK_BYTES or (since is not None and now - since >= self._ack_delay)

    @property
    def _ack_delay(self) -> float:
        return SOON_DELAY if self._to_ack >= SOON_BYTES else ACK_DELAY

    def _make_ack(self, now: float) -> bytes:
        delay = now - self._to_ack_at
        self._to_ack, self._to_ack_since = 0, None
        if self._receipts is not None and not self._confirms:
            # A peer that knows no confirmations lets go of what is acknowledged.
            return frames.encode_ack(self._note_confirmed(self._receipts), delay)
        return frames.encode_ack(self._received, delay)

    def _confirm(self, receipts: Receipts, out: List[bytes], now: float, *, at_once: bool) -> None:
        """Confirm what was delivered, along with whatever else is sent, or after a while."""
        if not self._connected or receipts.confirmed == self._said_confirmed:
            self._to_confirm_since = None
        elif out or at_once or self._said_confirmed < 0 or now - (self._to_confirm_since or now) >= ACK_DELAY:
            confirmed = self._note_confirmed(receipts)
            out.append(frames.encode_confirm(confirmed) if self._confirms else frames.encode_ack(confirmed, 0.0))
        elif self._to_confirm_since is None:
            self._to_confirm_since = now

    def _note_confirmed(self, receipts: Receipts) -> int:
        """Write down what is about to be confirmed: the peer will not send it to whoever goes on in our place."""
        self._said_confirmed = receipts.confirmed
        self._to_confirm_since = None
        self._journal.confirmed(self._said_confirmed)
        return self._said_confirmed

    def is_receiving(self, kernel: int) -> bool:
        """Tell whether a message of a kernel has begun to come and is not whole yet."""
        return any(number == kernel for number, _ in self._fragments)

    def delivered(self, message: MessageReceived) -> None:
        """Hear that a message is where it belongs; to be told of each one at an end with a journal."""
        if self._receipts is not None and message.receipt is not None:
            self._receipts.delivered(message.receipt)

    def token(self, message: MessageReceived) -> Any:
        """Give what a message is known by to another process that goes on with this session; None where none can."""
        return None

    # -- receiving ----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> List[Any]:
        """Take bytes from the stream and give the events that they make, in order.

        Never raises: what breaks the protocol is a `Failed` event, the last one of this stream, and the peer is told.

        Args:
            data: As it came.
            now: Seconds of a monotonic clock.
        """
        events: List[Any] = []
        if self._failed or not self._attached:
            return events
        try:
            for frame in self._decoder.feed(data):
                if type(frame) is frames.Data:
                    self._take_data(frame, events, now)
                else:
                    self._take_control(frame, events, now)
        except frames.ProtocolError as error:
            self._failed = True
            self._control.append(frames.encode_error(str(error)))
            events.append(Failed(str(error), error if isinstance(error, frames.VersionError) else None))
        return events

    def _take_data(self, frame: frames.Data, events: List[Any], now: float) -> None:
        if not self._connected:
            raise frames.ProtocolError("a numbered frame before the hello")
        if frame.number > self._received + 1:
            raise frames.ProtocolError("frame %d came after frame %d" % (frame.number, self._received))
        self._note_for_ack(len(frame.body) + frames.DATA_OVERHEAD, now)
        if frame.number <= self._received:
            return
        self._received = frame.number
        key = (frame.kernel, frame.channel)
        receipt = None
        if self._receipts is not None:
            receipt = self._receipts.take(frame.number, key, frame.more, len(frame.body) + frames.DATA_OVERHEAD)
            if receipt is None:
                return
        if frame.more or key in self._fragments:
            fragments = self._fragments.setdefault(key, frames.Fragments())
            parts = fragments.add(frame.body, frame.more)
            self._unfinished += len(frame.body)
            if parts is None:
                if self._unfinished > frames.MAX_UNFINISHED:
                    raise frames.ProtocolError("unfinished messages of more than %d bytes" % frames.MAX_UNFINISHED)
                return
            self._unfinished -= fragments.size
            del self._fragments[key]
        else:
            parts = frames.decode_message(frame.body)
        events.append(MessageReceived(frame.kernel, frame.channel, parts, receipt))

    def _note_for_ack(self, size: int, now: float) -> None:
        self._to_ack += size
        self._to_ack_at = now
        if self._to_ack_since is None:
            self._to_ack_since = now

    def _take_control(self, frame: Any, events: List[Any], now: float) -> None:
        if isinstance(frame, frames.Hello):
            events.append(self._take_hello(frame))
        elif isinstance(frame, frames.Ack):
            self._take_ack(frame, now)
        elif isinstance(frame, frames.Confirm):
            self._take_confirm(frame.number)
        elif isinstance(frame, frames.Ping):
            if len(self._control) < MAX_CONTROL:
                self._control.append(frames.encode_pong(frame.token))
        elif isinstance(frame, frames.Pong):
            if frame.token in self._ping_times:
                events.append(PongReceived(now - self._ping_times.pop(frame.token)))
        elif isinstance(frame, frames.Bye):
            events.append(ClosedByPeer(frame.reason))
        elif isinstance(frame, frames.PeerError):
            self._failed = True
            events.append(Failed("the other end gave up: %s" % frame.reason))
        else:
            raise frame

    def _take_hello(self, hello: frames.Hello) -> Connected:
        if self._connected:
            raise frames.ProtocolError("a second hello")
        if hello.session != self.session_id:
            raise frames.ProtocolError("the hello is for another session")
        minor = frames.agreed_minor(hello, *self._minors)
        lost = self._peer not in ("", hello.endpoint)
        if lost:
            self._forget_past()
        received = hello.received if hello.peer == self._endpoint else 0
        if received > self._sent:
            raise frames.ProtocolError("frame %d is said to be received, %d was the last one" % (received, self._sent))
        # What was acknowledged to one that died must be sent again to whoever goes on in its place.
        self._kept = self._acked + self._kept
        self._acked = deque()
        self._drop_kept(received)
        self._replay = deque(self._kept)
        if self._journal is not None and hello.endpoint != self._peer:
            self._journal.met(hello.endpoint, lost)
        self._peer = hello.endpoint
        self._connected = True
        self._confirms = minor >= frames.CONFIRMATIONS
        self.window.smallest = window.SMALLEST if minor >= frames.PROMPT_ACKS else window.USUAL
        if self._receipts is not None:
            self._receipts.limit = UNCONFIRMED if self._confirms else UNCONFIRMED_BY_ACKS
        return Connected(lost, hello.software, minor)

    def _take_ack(self, ack: frames.Ack, now: float) -> None:
        if not self._connected or ack.number > self._sent:
            raise frames.ProtocolError("an acknowledgement of frame %d, %d was the last one" % (ack.number, self._sent))
        not_sent = self._forget_replay(ack.number)
        size = self._drop_kept(ack.number) - not_sent
        self._in_flight -= size
        self.window.acked(ack.number, size, ack.delay, now)

    def _forget_replay(self, number: int) -> int:
        """Let go of what the peer has although its hello, which names what is confirmed, did not say so; give bytes.

        What was not sent over this stream is not on its way, and never will be.
        """
        size = 0
        while self._replay and self._replay[0].number <= number:
            frame = self._replay.popleft()
            size += len(frame.header) + len(frame.body)
        return size

    def _drop_kept(self, number: int) -> int:
        """Let go of what the peer has up to `number`, but for what it may want once more; give the bytes."""
        kept = self._kept
        size = 0
        while kept and kept[0].number <= number:
            frame = kept.popleft()
            size += len(frame.header) + len(frame.body)
            self._acked.append(frame)
        self._drop_acked(self._confirmed if self._peer_confirms else number)
        return size

    def _take_confirm(self, number: int) -> None:
        if not self._connected or number > self._sent:
            raise frames.ProtocolError("a confirmation of frame %d, %d was the last one" % (number, self._sent))
        self._peer_confirms = True
        self._confirmed = number
        self._drop_acked(number)

    def _drop_acked(self, number: int) -> None:
        acked = self._acked
        while acked and acked[0].number <= number:
            frame = acked.popleft()
            self.kept_bytes -= len(frame.header) + len(frame.body)

    def _forget_past(self) -> None:
        """Begin anew with a peer that knows nothing: see `Connected.lost`."""
        self._kept.clear()
        self._acked.clear()
        self.kept_bytes = self._sent = self._received = self._confirmed = 0
        self._peer_confirms = False
        if self._receipts is not None:
            self._receipts.forget()
        self._fragments.clear()
        self._begun = self._unfinished = 0
        for queue in self._queues.values():
            if queue.inside_message:
                queue.in_pieces.popleft()
                size = sum(len(body) for _, _, body in _take_rest(queue))
                queue.size -= size
                self.queued_bytes -= size
                queue.inside_message = False
        self._queues = {kernel: queue for kernel, queue in self._queues.items() if queue.pieces}
        self._turns = deque(kernel for kernel in self._turns if kernel in self._queues)


def _take_rest(queue: _Queue) -> List[Tuple[int, bool, bytes]]:
    """Take the pieces that belong to the message whose beginning was numbered already."""
    rest = []
    more = True
    while more:
        piece = queue.pieces.popleft()
        rest.append(piece)
        more = piece[1]
    return rest
