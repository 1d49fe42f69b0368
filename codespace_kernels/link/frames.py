"""The bytes of the link: frames, and messages of several parts inside them.

A frame is a payload's length (4 bytes, big-endian), its kind (1 byte) and the payload:

    HELLO  JSON object, see `Hello`
    DATA   number (8), kernel (4), channel (1), flags (1), then a whole message or one piece of it
    ACK    number of the last DATA taken (8), microseconds that the acknowledgement was held back (4)
    PING   8 bytes that come back in
    PONG
    BYE    UTF-8 sentence: the sender is done with the session, for good
    ERROR  UTF-8 sentence: what the sender could not accept; nothing follows it
    CONFIRM  number up to which every DATA was delivered, and need not be kept (8); since minor version 2

Every length is checked before anything is kept, so that a peer that sends nonsense costs no memory.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

PROTOCOL = "codespace-kernels-link"
MAJOR = 1
MIN_MINOR = 0
MAX_MINOR = 3
"""Minor versions that this code speaks. Both ends use the highest one that both speak (see `Hello`).

    0  the first
    1  the server remembers what it answered to commands that change kernels: all commands may be sent again
    2  CONFIRM: an end that says it has everything kept until then, not only until it is acknowledged
    3  what comes in quantity is acknowledged within milliseconds, so that the window may be small
"""

REPEATABLE_COMMANDS = 1
"""First minor version in which any command may be sent again to another end of the same server."""

CONFIRMATIONS = 2
"""First minor version with CONFIRM frames."""

PROMPT_ACKS = 3
"""First minor version in which acknowledgements do not wait for 128 KiB or 50 ms."""

MAX_FRAGMENT = 65536
"""Bytes of a message in one frame; a longer message is sent in pieces, so that others get in between."""

MAX_MESSAGE = 1 << 30
"""Bytes of a whole message, its parts and their lengths together."""

MAX_UNFINISHED = MAX_MESSAGE
"""Bytes of all messages together of which some pieces are still to come: so much memory may a peer take."""

MIN_PIECE = 16384
"""Bytes of a piece that is not a message's last one: pieces without end must end at `MAX_UNFINISHED`."""

MAX_PARTS = 65536

FLAG_MORE = 1
"""More pieces of this message follow on the same kernel and channel."""

_HEADER = struct.Struct("!IB")
_DATA = struct.Struct("!QIBB")
_DATA_FRAME = struct.Struct("!IBQIBB")
_ACK = struct.Struct("!QI")
_PING = struct.Struct("!Q")

DATA_OVERHEAD = _DATA_FRAME.size
ACK_FRAME_SIZE = _HEADER.size + _ACK.size


class ProtocolError(Exception):
    """The peer sent something that is no part of the protocol; the text says what."""


class VersionError(ProtocolError):
    """The ends have no version of the link in common.

    Attributes:
        software: Version of the peer's package, as it says.
        peer_is_newer: Whether it is this end that is too old.
    """

    def __init__(self, software: str, peer: str, own: str, *, peer_is_newer: bool) -> None:
        text = "the other end (codespace-kernels %s) speaks version %s of the link, this end %s: the %s must be updated"
        super().__init__(text % (software, peer, own, "latter" if peer_is_newer else "former"))
        self.software = software
        self.peer_is_newer = peer_is_newer


class Kind(enum.IntEnum):
    """Kinds of frames."""

    HELLO = 1
    DATA = 2
    ACK = 3
    PING = 4
    PONG = 5
    BYE = 6
    ERROR = 7
    CONFIRM = 8


_MIN_PAYLOAD = {1: 2, 2: _DATA.size, 3: _ACK.size, 4: _PING.size, 5: _PING.size, 6: 0, 7: 0, 8: _PING.size}
_MAX_PAYLOAD = {
    1: 16384,
    2: _DATA.size + MAX_FRAGMENT,
    3: _ACK.size,
    4: _PING.size,
    5: _PING.size,
    6: 8192,
    7: 8192,
    8: _PING.size,
}


class Hello(NamedTuple):
    """The first frame on every new stream, in both directions.

    Attributes:
        session: Which session this stream is to carry; chosen by the client.
        endpoint: Which end of the session the sender is; a new value means that the old end and all it kept are gone.
        peer: The `endpoint` that the sender spoke to before, empty for none.
        received: Number of the last DATA frame that the sender has taken from `peer`.
        min_minor, max_minor: Range of minor versions that the sender speaks.
        software: Version of the sender's package, for logs.
    """

    session: str
    endpoint: str
    peer: str
    received: int
    min_minor: int = MIN_MINOR
    max_minor: int = MAX_MINOR
    software: str = ""


class Data(NamedTuple):
    """One numbered frame."""

    number: int
    kernel: int
    channel: int
    more: bool
    body: bytes


class Ack(NamedTuple):
    """Everything up to `number` was taken; `delay` is how long (seconds) the peer held this frame back."""

    number: int
    delay: float


class Confirm(NamedTuple):
    """Everything up to `number` was delivered."""

    number: int


class Ping(NamedTuple):
    """A question for a sign of life; `token` comes back."""

    token: int


class Pong(NamedTuple):
    """The answer to a `Ping`."""

    token: int


class Bye(NamedTuple):
    """The peer is done with the session."""

    reason: str


class PeerError(NamedTuple):
    """The peer could not accept what it got."""

    reason: str


def encode_hello(hello: Hello) -> bytes:
    """Give a HELLO frame."""
    fields: Dict[str, Any] = {"protocol": PROTOCOL, "major": MAJOR, **hello._asdict()}
    return _frame(Kind.HELLO, json.dumps(fields).encode())


def encode_data_header(number: int, kernel: int, channel: int, more: bool, size: int) -> bytes:
    """Give what stands before the `size` bytes of a DATA frame's body."""
    return _DATA_FRAME.pack(_DATA.size + size, Kind.DATA, number, kernel, channel, FLAG_MORE if more else 0)


def encode_ack(number: int, delay: float) -> bytes:
    """Give an ACK frame."""
    microseconds = max(0, min(int(delay * 1e6), 0xFFFFFFFF))
    return _frame(Kind.ACK, _ACK.pack(number, microseconds))


def encode_confirm(number: int) -> bytes:
    """Give a CONFIRM frame."""
    return _frame(Kind.CONFIRM, _PING.pack(number))


def encode_ping(token: int) -> bytes:
    """Give a PING frame."""
    return _frame(Kind.PING, _PING.pack(token))


def encode_pong(token: int) -> bytes:
    """Give a PONG frame."""
    return _frame(Kind.PONG, _PING.pack(token))


def encode_bye(reason: str) -> bytes:
    """Give a BYE frame."""
    return _frame(Kind.BYE, reason.encode()[:4096])


def encode_error(reason: str) -> bytes:
    """Give an ERROR frame."""
    return _frame(Kind.ERROR, reason.encode()[:4096])


def _frame(kind: Kind, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), kind) + payload


class FrameDecoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._kept: List[bytes] = []
        self._size = 0
        self._wanted = _HEADER.size

    def feed(self, data: bytes) -> List[Any]:
        """Take bytes as they came and give the frames that are complete now.

        A frame that breaks the protocol is given as the `ProtocolError` that says why, last in the list: the good ones
        before it count.
        """
        if self._kept:
            self._kept.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return []
            data = b"".join(self._kept)
            self._kept.clear()
        frames: List[Any] = []
        try:
            rest = self._split(data, frames)
        except ProtocolError as error:
            frames.append(error)
        else:
            if rest:
                self._kept.append(rest)
                self._size = len(rest)
        return frames

    def _split(self, data: bytes, frames: List[Any]) -> bytes:
        """Append the complete frames of `data`; give the bytes that are left."""
        start, end = 0, len(data)
        append = frames.append
        while end - start >= 5:
            length, kind = _HEADER.unpack_from(data, start)
            _check_length(kind, length)
            stop = start + 5 + length
            if stop > end:
                self._wanted = 5 + length
                return data[start:]
            if kind == 2:
                number, kernel, channel, flags = _DATA.unpack_from(data, start + 5)
                append(Data(number, kernel, channel, flags == FLAG_MORE, data[start + 19 : stop]))
                if flags > FLAG_MORE:
                    frames.pop()
                    raise ProtocolError("unknown flags %#x in a DATA frame" % flags)
            else:
                append(_decode_control(kind, data[start + 5 : stop]))
            start = stop
        self._wanted = _HEADER.size
        return data[start:]


def _check_length(kind: int, length: int) -> None:
    largest = _MAX_PAYLOAD.get(kind)
    if largest is None:
        raise ProtocolError("unknown kind of frame: %d" % kind)
    if not _MIN_PAYLOAD[kind] <= length <= largest:
        raise ProtocolError("%s frame of %d bytes" % (Kind(kind).name, length))


def _decode_control(kind: int, payload: bytes) -> Any:
    if kind == Kind.ACK:
        number, microseconds = _ACK.unpack(payload)
        return Ack(number, microseconds / 1e6)
    if kind == Kind.PING:
        return Ping(_PING.unpack(payload)[0])
    if kind == Kind.CONFIRM:
        return Confirm(_PING.unpack(payload)[0])
    if kind == Kind.PONG:
        return Pong(_PING.unpack(payload)[0])
    if kind == Kind.HELLO:
        return decode_hello(payload)
    text = payload.decode("utf-8", "replace")
    return Bye(text) if kind == Kind.BYE else PeerError(text)


def decode_hello(payload: bytes) -> Hello:
    """Read a HELLO frame's payload.

    Raises:
        VersionError: It is of another major version, of which nothing more is known.
        ProtocolError: It is none.
    """
    try:
        fields = json.loads(payload.decode())
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or fields.get("protocol") != PROTOCOL:
        raise ProtocolError("the first frame is no hello of this protocol")
    major = fields.get("major")
    if major != MAJOR:
        newer = isinstance(major, int) and major > MAJOR
        raise VersionError(str(fields.get("software"))[:40], str(major)[:10], str(MAJOR), peer_is_newer=newer)
    return _checked_hello(fields)


def _checked_hello(fields: Dict[str, Any]) -> Hello:
    texts = dict.fromkeys(("session", "endpoint", "peer", "software"), str)
    types = {**texts, **dict.fromkeys(("received", "min_minor", "max_minor"), int)}
    for name, wanted in types.items():
        if type(fields.get(name)) is not wanted:
            raise ProtocolError("hello without a valid %r" % name)
    hello = Hello(**{name: fields[name] for name in types})
    if not 8 <= len(hello.session) <= 64 or not 0 <= hello.received < 1 << 63:
        raise ProtocolError("hello with a session or a number out of range")
    return hello


def agreed_minor(hello: Hello, lowest: int, highest: int) -> int:
    """Give the highest minor version that both the sender of `hello` and this end, which speaks a range, have.

    Raises:
        VersionError: There is none.
    """
    if lowest <= hello.max_minor and hello.min_minor <= highest:
        return min(hello.max_minor, highest)
    peer, own = _range(hello.min_minor, hello.max_minor), _range(lowest, highest)
    raise VersionError(hello.software[:40], peer, own, peer_is_newer=hello.min_minor > highest)


def _range(lowest: int, highest: int) -> str:
    return "%d.%d to %d.%d" % (MAJOR, lowest, MAJOR, highest)


def encode_message(parts: Sequence[bytes]) -> bytes:
    """Join the parts of a message: their count, their lengths, then the parts (lengths are 4 bytes each).

    Raises:
        ValueError: More than `MAX_PARTS` parts or `MAX_MESSAGE` bytes.
    """
    sizes = [len(part) for part in parts]
    total = sum(sizes) + 4 * len(sizes) + 4
    if len(sizes) > MAX_PARTS or total > MAX_MESSAGE:
        msg = "a message of %d parts and %d bytes; the link carries %d parts and %d bytes at most"
        raise ValueError(msg % (len(sizes), total, MAX_PARTS, MAX_MESSAGE))
    return b"".join([struct.pack("!%dI" % (len(sizes) + 1), len(sizes), *sizes), *parts])


def decode_message(body: bytes) -> List[bytes]:
    """Split what `encode_message` joined.

    Raises:
        ProtocolError: Count and lengths do not fit the bytes.
    """
    size = len(body)
    count = int.from_bytes(body[:4], "big")
    start = 4 * count + 4
    if size < 4 or count > MAX_PARTS or start > size:
        raise ProtocolError("a message of %d bytes that claims %d parts" % (size, count))
    parts = []
    for length in struct.unpack_from("!%dI" % count, body, 4):
        stop = start + length
        parts.append(body[start:stop])
        start = stop
    _check_size(start, size)
    return parts


def _decode_pieces(pieces: List[bytes]) -> List[bytes]:
    """Split what `encode_message` joined and `cut_message` cut, each byte copied once; the list is emptied."""
    count = int.from_bytes(pieces[0][:4], "big")
    position = 4 * count + 4
    if position > len(pieces[0]):
        return decode_message(b"".join(pieces))
    lengths = struct.unpack_from("!%dI" % count, pieces[0], 4)
    _check_size(position + sum(lengths), sum(map(len, pieces)))
    pieces.reverse()
    parts = []
    for length in lengths:
        taken = []
        while length:
            piece = pieces[-1]
            # The whole piece, where it is whole, is no copy.
            chunk = piece[position : position + length]
            taken.append(chunk)
            length -= len(chunk)
            position += len(chunk)
            if position == len(piece):
                # A large message need not be in memory twice.
                pieces.pop()
                position = 0
        parts.append(b"".join(taken))
    return parts


def _check_size(claimed: int, size: int) -> None:
    if claimed != size:
        raise ProtocolError("the parts of a message are %d bytes, not %d" % (size, claimed))


class Fragments:
    """Puts the pieces of one message together again.

    Attributes:
        size: Bytes that have come.
    """

    def __init__(self) -> None:
        self.size = 0
        self._pieces: List[bytes] = []

    def add(self, body: bytes, more: bool) -> Optional[List[bytes]]:
        """Take a piece; give the message's parts with its last piece.

        Raises:
            ProtocolError: A piece is too small, the message grew beyond `MAX_MESSAGE`, or its parts do not fit.
        """
        if more and len(body) < MIN_PIECE:
            raise ProtocolError("a piece of %d bytes with more to follow" % len(body))
        self._pieces.append(body)
        self.size += len(body)
        if self.size > MAX_MESSAGE:
            raise ProtocolError("a message of more than %d bytes" % MAX_MESSAGE)
        if more:
            return None
        return _decode_pieces(self._pieces)


def cut_message(body: bytes) -> List[Tuple[bool, bytes]]:
    """Cut a joined message into pieces: whether more follow, and the piece."""
    if len(body) <= MAX_FRAGMENT:
        return [(False, body)]
    starts = range(0, len(body), MAX_FRAGMENT)
    return [(start + MAX_FRAGMENT < len(body), body[start : start + MAX_FRAGMENT]) for start in starts]
