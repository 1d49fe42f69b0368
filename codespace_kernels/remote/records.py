"""Records between the server extension and its child: a length, then a JSON object and raw parts."""

from __future__ import annotations

import struct
from typing import Any, Dict, List, Sequence, Tuple

from ..link import commands, frames

_LENGTH = struct.Struct("!I")


def encode(document: Dict[str, Any], raw: Sequence[bytes] = ()) -> bytes:
    """Give the bytes of one record."""
    body = frames.encode_message(commands.encode(document, raw))
    return _LENGTH.pack(len(body)) + body


class RecordDecoder:
    """Cuts a stream of bytes into records."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Tuple[Dict[str, Any], List[bytes]]]:
        """Take bytes as they came and give the records that are complete now."""
        self._buffer += data
        records = []
        while len(self._buffer) >= _LENGTH.size:
            stop = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < stop:
                break
            body = bytes(self._buffer[_LENGTH.size : stop])
            del self._buffer[:stop]
            records.append(commands.decode(frames.decode_message(body)))
        return records
