"""The websocket messages of servers that know no subprotocol: JSON text, or with buffers an offset table before them.

With buffers, a binary message: big-endian unsigned 4-byte integers, the number of parts and each part's offset; the
parts are the JSON text and the buffers, the last one ends with the message.
"""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any

from codespace_kernels.messages import Channel, MalformedMessageError, Message

_SIZE = 4
_DOCUMENTS = ("header", "parent_header", "metadata", "content")


def encode(channel: Channel, message: Message) -> str | bytes:
    """Give the websocket message: text without buffers, else binary. Identities are left out.

    The documents are put in as they are, undecoded.
    """
    documents = b",".join(
        b'"%s":%s' % (name.encode(), part) for name, part in zip(_DOCUMENTS, message[1:5], strict=True)
    )
    text = b'{"channel":"%s",%s,"buffers":[]}' % (channel.name.lower().encode(), documents)
    if not message.buffers:
        # A kernel's surrogates may make bytes that are no UTF-8; text frames must be.
        return text.decode(errors="replace")
    parts = [text, *message.buffers]
    offsets = itertools.accumulate(map(len, parts[:-1]), initial=_SIZE * (len(parts) + 1))
    return b"".join([struct.pack(f">{len(parts) + 1}I", len(parts), *offsets), *parts])


def decode(data: str | bytes) -> tuple[str, Message]:
    """Split a websocket message into the channel's name and the message, which has no identities.

    Raises:
        MalformedMessageError: No JSON, a part is missing, or the offsets do not fit the data.
    """
    if isinstance(data, str):
        return _message(data, ())
    text, *buffers = _parts(data)
    return _message(text, tuple(buffers))


def _parts(data: bytes) -> list[bytes]:
    count = int.from_bytes(data[:_SIZE], "big")
    start = _SIZE * (count + 1)
    if not count or start > len(data):
        raise MalformedMessageError(f"binary message of {len(data)} bytes with {count} parts")
    offsets = [*struct.unpack_from(f">{count}I", data, _SIZE), len(data)]
    if offsets[0] < start or any(a > b for a, b in itertools.pairwise(offsets)):
        raise MalformedMessageError(f"binary message of {len(data)} bytes whose offsets do not fit")
    return [data[a:b] for a, b in itertools.pairwise(offsets)]


def _message(text: str | bytes, buffers: tuple[bytes, ...]) -> tuple[str, Message]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise MalformedMessageError(f"not JSON: {error}") from None
    except RecursionError:
        raise MalformedMessageError("JSON that is nested too deeply") from None
    if not isinstance(value, dict):
        raise MalformedMessageError("not a JSON object")
    header, parent, metadata, content = (_document(value, name) for name in _DOCUMENTS)
    return str(value.get("channel", "")), Message((), header, parent, metadata, content, buffers)


def _document(value: dict[str, Any], name: str) -> bytes:
    document = value.get(name) or {}
    if not isinstance(document, dict) or (name == "header" and not document):
        raise MalformedMessageError(f"{name} is missing or no JSON object")
    return json.dumps(document).encode()
