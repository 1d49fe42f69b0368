"""What a connection that was accepted says, from its first byte on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from codespace_kernels.zmtp import greeting
from codespace_kernels.zmtp.commands import decode_command, encode_command
from codespace_kernels.zmtp.frames import COMMAND, MORE, FrameDecoder, ZmtpError
from codespace_kernels.zmtp.mechanisms import Null

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from codespace_kernels.zmtp.mechanisms import Mechanism

HANDSHAKE_BYTES = 8192
"""Bytes of a command of the handshake at most."""

FRAME_BYTES = 64
"""What a frame costs besides its bytes, about; so much of a limit it takes."""

_MAX_ROUTING_ID = 255
_TTL_BYTES = 2
_MAX_PING_CONTEXT = 16

# Which sockets may talk to which (RFC 28, RFC 29), as far as peers of a kernel use them.
_PEERS = {
    b"ROUTER": frozenset({b"REQ", b"DEALER", b"ROUTER"}),
    b"XPUB": frozenset({b"SUB", b"XSUB"}),
}


class Ready(NamedTuple):
    """The handshake is over.

    Attributes:
        routing_id: What the peer wants to be called; empty where it does not care.
    """

    routing_id: bytes


class Subscription(NamedTuple):
    """A subscriber wants all messages that begin with a topic, or no longer.

    Attributes:
        topic: The first bytes of a message's first frame.
        wanted: Whether it was subscribed or cancelled.
    """

    topic: bytes
    wanted: bool


Event = Ready | Subscription | list[bytes]
"""What a peer said; a list is a message's frames."""


class Peer:
    """The state of one connection, seen from the end that listens.

    Args:
        socket_type: Ours: `ROUTER` or `XPUB`.
        mechanism: Makes this connection's mechanism, given the properties that are told to the peer.
        limit: Bytes of a message at most, `FRAME_BYTES` for each of its frames included.

    Attributes:
        limit: May be changed at any time.
    """

    def __init__(self, socket_type: bytes, mechanism: Callable[[Mapping[bytes, bytes]], Mechanism], limit: int) -> None:
        self.limit = limit
        self._socket_type = socket_type
        self._mechanism = mechanism({b"Socket-Type": socket_type})
        self._decoder = FrameDecoder(HANDSHAKE_BYTES)
        self._greeting = b""
        self._ready = False
        self._frames: list[bytes] = []
        self._frames_size = 0
        self._out = greeting.encode_greeting(self._mechanism.name, as_server=self._mechanism.as_server)

    @classmethod
    def resumed(cls, socket_type: bytes, limit: int) -> Peer:
        """Go on with a connection without a mechanism whose handshake is over, between two messages of the peer's."""
        peer = cls(socket_type, Null, limit)
        peer._greeting = bytes(greeting.SIZE)
        peer._ready = True
        peer._decoder.limit = limit
        peer._out = b""
        return peer

    @property
    def ready(self) -> bool:
        """Whether the handshake is over."""
        return self._ready

    @property
    def kept(self) -> int:
        """Bytes of a message that is not complete yet."""
        return self._frames_size + self._decoder.kept

    @property
    def missing(self) -> int:
        """Bytes that are still to come of a frame that has begun."""
        return self._decoder.missing

    @property
    def mechanism(self) -> Mechanism:
        """This connection's mechanism; it encodes what is sent to the peer."""
        return self._mechanism

    def data_to_send(self) -> bytes:
        """Give what the protocol itself has to say; each byte once."""
        data, self._out = self._out, b""
        return data

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the peer; give what it said with them.

        Raises:
            ZmtpError: It does not keep to the protocol, or to a limit; the connection is of no use any more.
        """
        if len(self._greeting) < greeting.SIZE:
            data = self._greet(data)
        events: list[Event] = []
        for frame in self._decoder.feed(data):
            self._take(*frame, events)
        return events

    def _greet(self, data: bytes) -> bytes:
        whole = self._greeting + data
        self._greeting = whole[: greeting.SIZE]
        greeting.check_greeting(self._greeting)
        if len(self._greeting) == greeting.SIZE:
            asked = greeting.mechanism_of(self._greeting)
            if asked != self._mechanism.name:
                raise ZmtpError(f"it uses mechanism {asked!r}, not {self._mechanism.name!r}")
            self._out += self._mechanism.start()
        return whole[greeting.SIZE :]

    def _take(self, flags: int, body: bytes, events: list[Event]) -> None:
        if not self._ready:
            self._shake_hands(flags, body, events)
            return
        flags, body = self._mechanism.decode(flags, body)
        if flags & COMMAND:
            self._command(body, events)
            return
        self._frames.append(body)
        self._frames_size += len(body) + FRAME_BYTES
        if self._frames_size > self.limit:
            raise ZmtpError(f"a message of more than {self.limit} bytes")
        if not flags & MORE:
            events.append(self._message())
            self._frames, self._frames_size = [], 0
        self._decoder.limit = self.limit - self._frames_size

    def _message(self) -> Event:
        # SUB sockets of ZMTP 3.0 subscribe by messages (RFC 29); those of 3.1 use commands.
        if self._socket_type == b"XPUB" and len(self._frames) == 1 and self._frames[0][:1] in {b"\0", b"\1"}:
            return Subscription(self._frames[0][1:], self._frames[0][:1] == b"\1")
        return self._frames

    def _shake_hands(self, flags: int, body: bytes, events: list[Event]) -> None:
        if not flags & COMMAND:
            raise ZmtpError("a message before the handshake")
        self._out += self._mechanism.handshake(body)
        properties = self._mechanism.properties
        if properties is not None:
            events.append(Ready(self._check(properties)))
            self._ready = True
            self._decoder.limit = self.limit

    def _check(self, properties: Mapping[bytes, bytes]) -> bytes:
        kind, routing_id = properties.get(b"socket-type", b""), properties.get(b"identity", b"")
        if kind not in _PEERS[self._socket_type]:
            raise ZmtpError(f"a {kind[:16]!r} socket, where {self._socket_type.decode()} listens")
        # What begins with a zero is ours to give (RFC 37, "The Identity Property").
        if len(routing_id) > _MAX_ROUTING_ID or routing_id[:1] == b"\0":
            raise ZmtpError("a routing id that nobody may have")
        return routing_id

    def _command(self, body: bytes, events: list[Event]) -> None:
        name, data = decode_command(body)
        if name in {b"SUBSCRIBE", b"CANCEL"} and self._socket_type == b"XPUB":
            events.append(Subscription(data, name == b"SUBSCRIBE"))
        elif name == b"PING":
            self._out += self._mechanism.encode_command(encode_command(b"PONG", _ping_context(data)))
        elif name == b"ERROR":
            raise ZmtpError(f"it refuses: {data[1:80]!r}")


def _ping_context(data: bytes) -> bytes:
    if not _TTL_BYTES <= len(data) <= _TTL_BYTES + _MAX_PING_CONTEXT:
        raise ZmtpError("a PING of the wrong length")
    return data[_TTL_BYTES:]
