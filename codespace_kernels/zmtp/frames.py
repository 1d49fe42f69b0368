"""The frames of ZMTP: flags, a length in one byte or eight, and a body (RFC 37, "Framing")."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MORE = 1
"""More frames of the same message follow."""

LONG = 2
"""The length takes eight bytes."""

COMMAND = 4
"""The frame is a command, no part of a message."""

_VALID = frozenset({0, MORE, LONG, MORE | LONG, COMMAND, COMMAND | LONG})

SHARED_BYTES = 32 * 1024
"""From this size on a frame is sent as it is; copying smaller ones together costs less than sending them apart."""

_PIECE_BYTES = 4096

_LENGTH = struct.Struct(">Q")
_LONG_HEADER = struct.Struct(">BQ")


class ZmtpError(ValueError):
    """A peer that does not keep to the protocol, or asks for more than it may."""


def encode_frame(flags: int, body: bytes) -> bytes:
    """Give one small frame, header and body."""
    return frame_header(flags, len(body)) + body


def frame_header(flags: int, length: int) -> bytes:
    """Give what stands before a body of `length` bytes."""
    return bytes((flags, length)) if length < 256 else _LONG_HEADER.pack(flags | LONG, length)


def encode_message(frames: Sequence[bytes]) -> list[bytes]:
    """Give the bytes of a whole message in few pieces; large frames are pieces of their own, and the same objects."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    left = len(frames)
    for frame in frames:
        left -= 1
        small.append(frame_header(MORE if left else 0, len(frame)))
        if len(frame) < SHARED_BYTES:
            small.append(frame)
        else:
            pieces += b"".join(small), frame
            small = []
    if small:
        pieces.append(b"".join(small))
    return pieces


class FrameDecoder:
    """Cuts a stream of bytes into frames.

    Args:
        limit: Bytes of a frame's body at most.

    Attributes:
        limit: May be changed at any time.
        missing: Bytes that the frame lacks of which the header is known; 0 where there is none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.missing = 0
        self._header = b""
        self._flags = 0
        self._body: list[bytes | bytearray] = []
        self._kept = 0

    @property
    def kept(self) -> int:
        """Bytes of the frame that is not complete yet."""
        return len(self._header) + self._kept

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes; give the frames that they complete, each as its flags and its body.

        The limit may change from one to the next: it holds for what comes after the frame that was given last.

        Raises:
            ZmtpError: Flags that mean nothing, or a frame beyond the limit.
        """
        at = min(self.missing, len(data))
        if self.missing:
            self._keep(data if at == len(data) else data[:at])
            self.missing -= at
            if not self.missing:
                # Each byte is copied once, however many pieces a large body came in.
                body, self._body, self._kept = b"".join(self._body), [], 0
                yield self._flags, body
        elif self._header:
            data, self._header = self._header + data, b""
        end = len(data)
        while at < end:
            # All in one place: a call for each frame took as long as the rest.
            flags = data[at]
            if flags not in _VALID:
                raise ZmtpError(f"a frame with flags {flags:#04x}")
            start = at + (9 if flags & LONG else 2)
            if start > end:
                self._header = data[at:]
                break
            length = _LENGTH.unpack_from(data, at + 1)[0] if flags & LONG else data[at + 1]
            if length > self.limit:
                raise ZmtpError(f"a frame of {length} bytes, where {self.limit} are the most")
            at = start + length
            if at > end:
                self._flags, self.missing = flags, at - end
                self._keep(data[start:])
                break
            yield flags, data[start:at]

    def _keep(self, data: bytes) -> None:
        self._kept += len(data)
        if len(data) >= _PIECE_BYTES:
            self._body.append(data)
            return
        # Who sends byte for byte does not cost an object for each.
        if not self._body or not isinstance(self._body[-1], bytearray) or len(self._body[-1]) >= _PIECE_BYTES:
            self._body.append(bytearray())
        self._body[-1] += data
