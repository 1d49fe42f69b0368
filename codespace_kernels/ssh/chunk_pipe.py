"""paramiko's pipe between a session and whoever reads a channel, without its copies."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from paramiko.buffered_pipe import BufferedPipe

if TYPE_CHECKING:
    from typing import Any

    _BytesPipe = BufferedPipe[bytes]
else:
    _BytesPipe = BufferedPipe


class Chunks:
    """Bytes in the chunks that they came in; has of `array.array` what the pipe asks for besides its two hooks."""

    def __init__(self) -> None:
        self._chunks: collections.deque[bytes] = collections.deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        """Put a chunk at the end."""
        if data:
            self._chunks.append(data)
            self._size += len(data)

    def first(self, limit: int | None) -> bytes:
        """Give the first bytes, all or so many; they stay."""
        if limit is None or limit >= self._size:
            return b"".join(self._chunks)
        taken, size = [], 0
        for chunk in self._chunks:
            taken.append(chunk[: limit - size])
            size += len(taken[-1])
            if size == limit:
                break
        return b"".join(taken)

    def __delitem__(self, place: slice) -> None:
        """Drop the first bytes: `[:]` or `[:count]`."""
        left = self._size if place.stop is None else min(place.stop, self._size)
        self._size -= left
        while left:
            chunk = self._chunks.popleft()
            if len(chunk) > left:
                self._chunks.appendleft(chunk[left:])
                return
            left -= len(chunk)


class ChunkPipe(_BytesPipe):
    """A pipe that hands a chunk on as it came; paramiko's copies each byte three times (a tenth of a fast stream)."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer: Any = Chunks()

    def _buffer_frombytes(self, data: bytes) -> None:
        self._buffer.append(data)

    def _buffer_tobytes(self, limit: int | None = None) -> bytes:
        taken: bytes = self._buffer.first(limit)
        return taken
