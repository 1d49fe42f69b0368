"""Jupyter messages as frames of bytes.

The wire form of a Jupyter message over ZMQ is any number of routing identities, the delimiter, the signature, then
header, parent header, metadata and content as JSON, then any number of raw buffers
(https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol). A message crosses the broker as the
bytes it came in: only what somebody asks for is decoded.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIMITER = b"<IDS|MSG>"

MAX_DECODED = 32 * 1024 * 1024
"""Bytes of a JSON document that is decoded at most: `[[],[],…]` takes 20 times its size in memory. Larger ones are
passed on as they are; only what is decoded here (headers, statuses, replies that are read) is limited."""


class Channel(enum.IntEnum):
    """The channels of a kernel that carry messages (the heartbeat carries none); values are the link's numbers."""

    SHELL = 1
    IOPUB = 2
    STDIN = 3
    CONTROL = 4


class MalformedMessageError(ValueError):
    """Frames that are no Jupyter message, or whose signature is wrong."""


class WrongSignatureError(MalformedMessageError):
    """A message that somebody signed with another key, or changed."""


class Message(NamedTuple):
    """One Jupyter message without its signature, which is made anew at each end.

    Attributes:
        identities: ZMQ routing prefix (shell, control, stdin) or the topic (iopub).
        header, parent, metadata, content: JSON documents, undecoded.
        buffers: Binary frames, untouched.
    """

    identities: tuple[bytes, ...]
    header: bytes
    parent: bytes
    metadata: bytes
    content: bytes
    buffers: tuple[bytes, ...] = ()

    def header_dict(self) -> dict[str, Any]:
        """Decode the header (`msg_id`, `msg_type`, `session`, …).

        Raises:
            MalformedMessageError: The header is no JSON object.
        """
        return _json_object(self.header)

    def parent_dict(self) -> dict[str, Any]:
        """Decode the parent header; empty for a message without a parent.

        Raises:
            MalformedMessageError: The parent header is no JSON object.
        """
        return _json_object(self.parent)

    def content_dict(self) -> dict[str, Any]:
        """Decode the content.

        Raises:
            MalformedMessageError: The content is no JSON object.
        """
        return _json_object(self.content)


_REMEMBERED_BYTES = 1024
_DECODER = json.JSONDecoder()


def _json_object(data: bytes) -> dict[str, Any]:
    # Several parts of the bridge ask for the same header, and a cell's messages have the same parent.
    return dict(_remembered(data)) if len(data) <= _REMEMBERED_BYTES else _decoded(data)


def _decoded(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_DECODED:
        raise MalformedMessageError(f"a document of {len(data)} bytes")
    try:
        value = decode_json(data.decode("utf-8", "surrogatepass"), _DECODER)
    except ValueError as error:
        raise MalformedMessageError(f"not JSON: {error}") from None
    except RecursionError:
        raise MalformedMessageError("JSON that is nested too deeply") from None
    if not isinstance(value, dict):
        raise MalformedMessageError("not a JSON object")
    return value


_remembered = functools.lru_cache(maxsize=64)(_decoded)


def decode_json(text: str, decoder: json.JSONDecoder) -> Any:
    """Decode a document as `JSONDecoder.decode` does, which looks for blanks around it: that takes half of the time.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        value, end = decoder.raw_decode(text)
    except json.JSONDecodeError:
        return decoder.decode(text)
    return value if end == len(text) else decoder.decode(text)


class Signer:
    """Signs and checks messages with a connection file's key.

    Args:
        key: The `key` of a connection file, as bytes. Empty switches signing off, as the protocol has it.
        scheme: The `signature_scheme`: `hmac-` and a digest of hashlib.

    Raises:
        ValueError: The scheme is not known.
    """

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        prefix, _, digest = scheme.partition("-")
        if prefix != "hmac" or digest not in hashlib.algorithms_available:
            msg = f"unknown signature scheme {scheme!r}"
            raise ValueError(msg)
        self.key = key
        self.scheme = scheme
        self._hmac = hmac.new(key, digestmod=digest) if key else None

    def __repr__(self) -> str:
        return f"<Signer {self.scheme}>"

    def sign(self, header: bytes, parent: bytes, metadata: bytes, content: bytes) -> bytes:
        """Give the hexadecimal signature of the four signed frames."""
        if self._hmac is None:
            return b""
        mac = self._hmac.copy()
        for frame in (header, parent, metadata, content):
            mac.update(frame)
        return mac.hexdigest().encode()

    def pack(self, message: Message) -> list[bytes]:
        """Give the frames of a signed message, ready for a ZMQ socket."""
        signature = self.sign(*message[1:5])
        return [*message.identities, DELIMITER, signature, *message[1:5], *message.buffers]

    def unpack(self, frames: Sequence[bytes], *, check: bool = True) -> Message:
        """Split frames from a ZMQ socket into a message.

        Args:
            frames: A whole multipart message.
            check: Whether a wrong signature is refused. Messages that came over an authenticated link need no check.

        Raises:
            MalformedMessageError: No delimiter or too few frames.
            WrongSignatureError: A wrong signature.
        """
        try:
            start = list(frames).index(DELIMITER) + 1
        except ValueError:
            raise MalformedMessageError("no delimiter") from None
        if len(frames) < start + 5:
            raise MalformedMessageError(f"{len(frames) - start} frames after the delimiter, 5 are the least")
        signature, header, parent, metadata, content = (bytes(f) for f in frames[start : start + 5])
        if check and not hmac.compare_digest(signature, self.sign(header, parent, metadata, content)):
            raise WrongSignatureError("wrong signature")
        return Message(tuple(frames[: start - 1]), header, parent, metadata, content, tuple(frames[start + 5 :]))
