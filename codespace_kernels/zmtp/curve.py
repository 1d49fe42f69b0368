"""CurveZMQ (RFC 26, https://rfc.zeromq.org/spec/26/), the end that listens: who knows its public key is let in.

A connection file carries one pair of keys (jupyter_client's `transport_encryption`): clients use it as their own, too,
and the heartbeat's client makes one for itself. So which key a client has tells nothing; that it knows the file does,
without which it could not have written its first command.
"""

from __future__ import annotations

import base64
import os
import struct
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from nacl import bindings
from nacl.exceptions import CryptoError

from codespace_kernels.zmtp.commands import decode_command, decode_properties, encode_command, encode_properties
from codespace_kernels.zmtp.frames import COMMAND, MORE, SHARED_BYTES, ZmtpError, encode_frame, frame_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_FROM_Z85 = bytes.maketrans(_Z85, _B85)
_TO_Z85 = bytes.maketrans(_B85, _Z85)

_KEY_BYTES = 32
_COUNTER = struct.Struct(">Q")
_LONG_NONCE_BYTES = 16
_COOKIE_BYTES = 96
_VOUCH_BYTES = 80
_BOX_OVERHEAD = 16

# What stands in the bits of a MESSAGE's first byte (RFC 26, "MESSAGE Command").
_BOXED_MORE = 1
_BOXED_COMMAND = 2

_HELLO = struct.Struct(f">2s72x{_KEY_BYTES}s8s{64 + _BOX_OVERHEAD}s")
_MESSAGE = encode_command(b"MESSAGE")


class CurveKeys(NamedTuple):
    """A pair of keys, 32 bytes each.

    Attributes:
        public, secret: Of the end that listens.
    """

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "<CurveKeys>"

    @classmethod
    def generate(cls) -> CurveKeys:
        """Make a new pair."""
        return cls(*bindings.crypto_box_keypair())

    @classmethod
    def from_text(cls, public: str, secret: str) -> CurveKeys:
        """Read a connection file's `curve_publickey` and `curve_secretkey`, each in Z85 (RFC 32).

        Raises:
            ValueError: They are no keys, or no pair.
        """
        keys = cls(_from_z85(public), _from_z85(secret))
        if bindings.crypto_scalarmult_base(keys.secret) != keys.public:
            msg = "the two keys are no pair"
            raise ValueError(msg)
        return keys

    def to_text(self) -> tuple[str, str]:
        """Give the public and the secret key in Z85."""
        public, secret = (base64.b85encode(key).translate(_TO_Z85).decode() for key in self)
        return public, secret


def _from_z85(text: str) -> bytes:
    key = base64.b85decode(text.encode("ascii").translate(_FROM_Z85))
    if len(key) != _KEY_BYTES or any(letter not in _Z85 for letter in text.encode("ascii")):
        msg = "a key is not 40 letters of Z85"
        raise ValueError(msg)
    return key


class CurveServer:
    """One connection's keys and state.

    Args:
        keys: Ours, the same for all connections.
        properties: What is told to the peer.
    """

    name: ClassVar[bytes] = b"CURVE"
    as_server: ClassVar[bool] = True
    plain: ClassVar[bool] = False

    def __init__(self, keys: CurveKeys, properties: Mapping[bytes, bytes]) -> None:
        self.properties: Mapping[bytes, bytes] | None = None
        self._keys = keys
        self._own = properties
        self._public, self._secret = bindings.crypto_box_keypair()
        self._cookie = b""
        self._client = b""
        self._shared = b""
        self._sent = 0
        self._received = 0

    def start(self) -> bytes:
        """The client speaks first."""
        return b""

    def handshake(self, body: bytes) -> bytes:
        """Take HELLO, then INITIATE."""
        name, data = decode_command(body)
        try:
            if name == b"HELLO" and not self._cookie:
                return self._welcome(data)
            if name == b"INITIATE" and self._cookie:
                return self._ready(data)
        except (CryptoError, struct.error):
            raise ZmtpError(f"its {name.decode()} is not made with this kernel's key") from None
        raise ZmtpError(f"it said {name[:16]!r} out of turn")

    def _welcome(self, data: bytes) -> bytes:
        version, self._client, counter, box = _HELLO.unpack(data)
        if version != b"\1\0":
            raise ZmtpError("it speaks another version of CURVE")
        self._count(counter)
        bindings.crypto_box_open(box, b"CurveZMQHELLO---" + counter, self._client, self._keys.secret)
        self._shared = bindings.crypto_box_beforenm(self._client, self._secret)
        # Only this connection's end ever looks at it again, so it may be anything.
        self._cookie = os.urandom(_COOKIE_BYTES)
        nonce = os.urandom(_LONG_NONCE_BYTES)
        box = bindings.crypto_box(self._public + self._cookie, b"WELCOME-" + nonce, self._client, self._keys.secret)
        return encode_frame(COMMAND, encode_command(b"WELCOME", nonce + box))

    def _ready(self, data: bytes) -> bytes:
        cookie, counter, box = data[:_COOKIE_BYTES], data[_COOKIE_BYTES:][:8], data[_COOKIE_BYTES + 8 :]
        if cookie != self._cookie:
            raise ZmtpError("its cookie is another's")
        self._count(counter)
        said = bindings.crypto_box_open_afternm(box, b"CurveZMQINITIATE" + counter, self._shared)
        self._check_vouch(said[:_KEY_BYTES], said[_KEY_BYTES:][: _LONG_NONCE_BYTES + _VOUCH_BYTES])
        self.properties = decode_properties(said[_KEY_BYTES + _LONG_NONCE_BYTES + _VOUCH_BYTES :])
        counter = self._next()
        box = bindings.crypto_box_afternm(encode_properties(self._own), b"CurveZMQREADY---" + counter, self._shared)
        return encode_frame(COMMAND, encode_command(b"READY", counter + box))

    def _check_vouch(self, client: bytes, vouch: bytes) -> None:
        if len(client) != _KEY_BYTES or len(vouch) != _LONG_NONCE_BYTES + _VOUCH_BYTES:
            raise ZmtpError("an INITIATE of the wrong length")
        nonce, box = b"VOUCH---" + vouch[:_LONG_NONCE_BYTES], vouch[_LONG_NONCE_BYTES:]
        if bindings.crypto_box_open(box, nonce, client, self._secret) != self._client + self._keys.public:
            raise ZmtpError("a vouch for another connection")

    def decode(self, flags: int, body: bytes) -> tuple[int, bytes]:
        """Open the MESSAGE that each frame is."""
        if not body.startswith(_MESSAGE) or len(body) < len(_MESSAGE) + _COUNTER.size:
            raise ZmtpError("a frame that is no MESSAGE")
        counter, box = body[len(_MESSAGE) :][: _COUNTER.size], body[len(_MESSAGE) + _COUNTER.size :]
        self._count(counter)
        try:
            said = bindings.crypto_box_open_afternm(box, b"CurveZMQMESSAGEC" + counter, self._shared)
        except CryptoError:
            raise ZmtpError("a MESSAGE that is forged or broken") from None
        if not said:
            raise ZmtpError("an empty MESSAGE")
        return (MORE if said[0] & _BOXED_MORE else 0) | (COMMAND if said[0] & _BOXED_COMMAND else 0), said[1:]

    def encode(self, frames: Sequence[bytes]) -> list[bytes]:
        """Box each frame; the boxes of small ones are joined."""
        pieces: list[bytes] = []
        small: list[bytes] = []
        for left, frame in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            body = self._box(_BOXED_MORE if left else 0, frame)
            small.append(frame_header(0, len(body)))
            if len(body) < SHARED_BYTES:
                small.append(body)
            else:
                pieces += b"".join(small), body
                small = []
        return [*pieces, b"".join(small)] if small else pieces

    def encode_command(self, body: bytes) -> bytes:
        """Box a command."""
        return encode_frame(0, self._box(_BOXED_COMMAND, body))

    def _box(self, flags: int, body: bytes) -> bytes:
        counter = self._next()
        said = b"".join((bytes((flags,)), body))
        return b"".join(
            (_MESSAGE, counter, bindings.crypto_box_afternm(said, b"CurveZMQMESSAGES" + counter, self._shared))
        )

    def _next(self) -> bytes:
        self._sent += 1
        return _COUNTER.pack(self._sent)

    def _count(self, counter: bytes) -> None:
        """No command may come twice, or out of order."""
        number = _COUNTER.unpack(counter)[0]
        if number <= self._received:
            raise ZmtpError("a command that was said before")
        self._received = number
