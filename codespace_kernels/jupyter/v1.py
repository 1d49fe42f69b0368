"""The subprotocol `v1.kernel.websocket.jupyter.org`: one binary websocket message for one Jupyter message.

Little-endian unsigned 8-byte integers: the number of offsets, then the offsets; then the channel's name, header, parent
header, metadata, content and the buffers, each beginning at its offset. The last offset is the end. There are no
identities and no signature (https://jupyter-server.readthedocs.io/en/stable/developers/websocket-protocols.html).
"""

from __future__ import annotations

import itertools
import struct

from codespace_kernels.messages import Channel, MalformedMessageError, Message

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"

_SIZE = 8
_LEAST_OFFSETS = 6
"""Of the channel, the four documents, and the end."""


def encode(channel: Channel, message: Message) -> bytes:
    """Give the websocket message; identities are left out."""
    parts = [channel.name.lower().encode(), *message[1:5], *message.buffers]
    start = _SIZE * (len(parts) + 2)
    offsets = itertools.accumulate(map(len, parts), initial=start)
    return b"".join([struct.pack(f"<{len(parts) + 2}Q", len(parts) + 1, *offsets), *parts])


def decode(data: bytes) -> tuple[str, Message]:
    """Split a websocket message into the channel's name and the message, which has no identities.

    Raises:
        MalformedMessageError: The offsets do not fit the data, or a part is missing.
    """
    offsets = _offsets(data)
    channel, header, parent, metadata, content, *buffers = (data[a:b] for a, b in itertools.pairwise(offsets))
    return channel.decode(errors="replace"), Message((), header, parent, metadata, content, tuple(buffers))


def _offsets(data: bytes) -> tuple[int, ...]:
    if len(data) < _SIZE:
        raise MalformedMessageError(f"v1 message of {len(data)} bytes")
    count = int.from_bytes(data[:_SIZE], "little")
    start = _SIZE * (count + 1)
    if count < _LEAST_OFFSETS or start > len(data):
        raise MalformedMessageError(f"v1 message of {len(data)} bytes with {count} offsets")
    offsets = struct.unpack_from(f"<{count}Q", data, _SIZE)
    if offsets[0] < start or offsets[-1] > len(data) or any(a > b for a, b in itertools.pairwise(offsets)):
        raise MalformedMessageError(f"v1 message of {len(data)} bytes whose offsets do not fit")
    return offsets
