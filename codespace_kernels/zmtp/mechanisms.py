"""How the two ends of a connection come to know each other: one mechanism for all connections of a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from codespace_kernels.zmtp.commands import decode_command, decode_properties, encode_command, encode_properties
from codespace_kernels.zmtp.frames import COMMAND, ZmtpError, encode_frame, encode_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Mechanism(Protocol):
    """One connection's handshake, and what it makes of the frames after that."""

    name: ClassVar[bytes]
    """As the greeting has it."""

    as_server: ClassVar[bool]
    """Whether the greeting says that this end is the mechanism's server."""

    plain: ClassVar[bool]
    """Whether messages go over the wire as `encode_message` has them, which is the same for all peers."""

    properties: Mapping[bytes, bytes] | None
    """What the peer says of itself; None until it has."""

    def start(self) -> bytes:
        """Give what is sent as soon as the peer has greeted."""

    def handshake(self, body: bytes) -> bytes:
        """Take a command of the handshake; give what is sent for it.

        Raises:
            ZmtpError: It does not fit, or the peer is not let in.
        """

    def decode(self, flags: int, body: bytes) -> tuple[int, bytes]:
        """Give the frame that one from the wire carries.

        Raises:
            ZmtpError: It carries none.
        """

    def encode(self, frames: Sequence[bytes]) -> list[bytes]:
        """Give the bytes of a message for the wire, in few pieces; in the order in which they are sent."""

    def encode_command(self, body: bytes) -> bytes:
        """Give a command's frame for the wire."""


class Null:
    """No secrets: whoever reaches the port is let in (RFC 37, "The NULL Security Mechanism").

    Args:
        properties: What is told to the peer.
    """

    name: ClassVar[bytes] = b"NULL"
    as_server: ClassVar[bool] = False
    plain: ClassVar[bool] = True

    def __init__(self, properties: Mapping[bytes, bytes]) -> None:
        self.properties: Mapping[bytes, bytes] | None = None
        self._own = properties

    def start(self) -> bytes:
        """Say READY without waiting for the peer's."""
        return encode_frame(COMMAND, encode_command(b"READY", encode_properties(self._own)))

    def handshake(self, body: bytes) -> bytes:
        """Take the peer's READY."""
        name, data = decode_command(body)
        if name != b"READY":
            raise ZmtpError(f"it said {name[:16]!r} instead of READY")
        self.properties = decode_properties(data)
        return b""

    def decode(self, flags: int, body: bytes) -> tuple[int, bytes]:
        """Frames are sent as they are."""
        return flags, body

    def encode(self, frames: Sequence[bytes]) -> list[bytes]:
        """Messages are sent as they are."""
        return encode_message(frames)

    def encode_command(self, body: bytes) -> bytes:
        """Commands are sent as they are."""
        return encode_frame(COMMAND, body)
