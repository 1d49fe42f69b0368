"""Keeps what kernels send while nobody takes it: a set size in memory, the rest on disk, and that is bounded, too.

A laptop may be away for hours while a cell prints. A kernel cannot be held back meanwhile: its publisher does not wait
for a slow reader but drops messages without a word, statuses included. So everything is read at once and kept here, and
at the bound new outputs are left out (see `outputs`), never the old ones.

The files have no names: they are private, and gone with the process, however it ends. A thread writes them: a disk that
is behind holds a write up for a second (measured), and other kernels must not wait for that.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import tempfile
import threading
from collections import deque
from typing import Deque, Optional, Tuple

Piece = Tuple[int, bool, bytes]
"""Channel, whether more pieces of the message follow, and the bytes: what a `Session` queues."""

MEMORY = 32 * 1024 * 1024
"""Bytes of all clients and kernels that are kept in memory."""

DISK = 2 * 1024 * 1024 * 1024
"""Bytes on disk at most, and no more than half of what was free."""

UNWRITTEN = 64 * 1024 * 1024
"""Bytes that may wait for the disk, in memory too."""

SEGMENT = 32 * 1024 * 1024
"""Bytes of one file; its space is free again when all of it was sent."""

BLOCK = 128 * 1024
"""Bytes that are written or read at once; each kernel that spools has two of them in memory."""

REFILL = 0.9
"""A spool that was full takes no outputs until so much of it is left, so that gaps are few and large."""

OVERHEAD = 128
"""Bytes that a piece costs beside its own."""

_PREFIX = "spool-"
_RECORD = struct.Struct("!BBI")


class Spool:
    """What all queues of this process may use together.

    Args:
        folder: Private folder for the files; what a crash left in it is removed.
        memory, disk, unwritten: The bounds, bytes.

    Attributes:
        memory: Bytes in memory, those that wait for the disk left out.
        disk: Bytes that are on disk, or wait for it.
        unwritten: Bytes that wait for the disk.
    """

    def __init__(self, folder: str, memory: int = MEMORY, disk: int = DISK, unwritten: int = UNWRITTEN) -> None:
        self.folder = folder
        self.memory = 0
        self.disk = 0
        self.unwritten = 0
        self._bounds = (memory, disk, unwritten)
        self._limit = disk
        self._measured_at = -SEGMENT
        self._full = False
        self.lock = threading.Lock()
        self._to_write: "queue.SimpleQueue[Optional[_Block]]" = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None
        _remove_leftovers(folder)

    @property
    def size(self) -> int:
        """Bytes that are kept now, in memory and on disk."""
        return self.memory + self.disk

    def has_room(self, size: int) -> bool:
        """Tell whether an output of so many bytes may still be kept."""
        memory, disk, unwritten = self._bounds
        bound = memory + self._limit
        if not self._full:
            self._full = self.size + size > bound or self.unwritten > unwritten
        elif self.size <= REFILL * bound and self.unwritten <= REFILL * unwritten:
            self._full = False
            # What the disk refused then it may take now.
            self._limit, self._measured_at = disk, -SEGMENT
        return not self._full

    def take_memory(self, size: int) -> bool:
        """Count bytes in memory if they fit; tell whether they do."""
        if self.memory + size > self._bounds[0]:
            return False
        self.memory += size
        return True

    def take_disk(self, size: int) -> None:
        """Count bytes on disk; now and then ask how much there is."""
        self.disk += size
        if abs(self.disk - self._measured_at) >= SEGMENT // 4:
            self._measured_at = self.disk
            with contextlib.suppress(OSError):
                free = os.statvfs(self.folder)
                self._limit = min(self._bounds[1], (self.disk + free.f_bavail * free.f_frsize) // 2)

    def write(self, block: "_Block") -> None:
        """Have a block written as soon as the disk is ready for it."""
        with self.lock:
            self.unwritten += block.size
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_blocks, name="spool", daemon=True)
            self._thread.start()
        self._to_write.put(block)

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._to_write.put(None)
            self._thread.join()
            self._thread = None

    def disk_failed(self) -> None:
        """Note that the disk takes no more, whatever it says of itself."""
        self._limit = min(self._limit, self.disk)
        self._full = True

    def _write_blocks(self) -> None:
        while True:
            block = self._to_write.get()
            if block is None:
                return
            try:
                block.write()
            except OSError:
                # It stays in memory.
                self.disk_failed()


class _Segment:
    """A file without a name. It is closed when nobody holds it any more; to be changed with the spool's lock only."""

    def __init__(self, folder: str) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder, prefix=_PREFIX)  # noqa: SIM115
        self.descriptor = self._file.fileno()
        self.size = 0
        self.holders = 1

    def release(self) -> None:
        self.holders -= 1
        if not self.holders:
            self._file.close()


class _Block:
    """Records that are written and read together: in memory until they are written."""

    def __init__(self, spool: Spool, data: bytes, segment: Optional[_Segment]) -> None:
        self.size = len(data)
        self._spool = spool
        self._data: Optional[bytes] = data
        self._segment = segment
        self._taken = False
        if segment is not None:
            self._offset = segment.size
            segment.size += self.size
            with spool.lock:
                # For the reader and for the writer.
                segment.holders += 2
        spool.take_disk(self.size)

    def write(self) -> None:
        """Write the block, unless it was read already; the writer's thread does this.

        Raises:
            OSError: It cannot be written.
        """
        with self._spool.lock:
            data = None if self._taken else self._data
        try:
            if data is not None and self._segment is not None:
                _write(self._segment.descriptor, data, self._offset)
                self._written()
        finally:
            with self._spool.lock:
                if self._segment is not None:
                    self._segment.release()

    def _written(self) -> None:
        with self._spool.lock:
            if not self._taken:
                self._data = None
                self._spool.unwritten -= self.size

    def take(self) -> bytes:
        """Give the records, and with that their place."""
        with self._spool.lock:
            data = self._data
            self._forget()
        if data is None:
            assert self._segment is not None
            data = os.pread(self._segment.descriptor, self.size, self._offset)
        self._release()
        return data

    def drop(self) -> None:
        """Give the place of the records back."""
        with self._spool.lock:
            self._forget()
        self._release()

    def _forget(self) -> None:
        self._taken = True
        if self._data is not None:
            self._data = None
            self._spool.unwritten -= self.size

    def _release(self) -> None:
        self._spool.take_disk(-self.size)
        with self._spool.lock:
            if self._segment is not None:
                self._segment.release()


class SpoolQueue:
    """Pieces in order, for one kernel of one session; has of `deque` what a `Session` uses.

    Args:
        spool: Shared by all queues.
    """

    __slots__ = ("_blocks", "_head", "_last", "_segment", "_spool")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._head: Deque[Piece] = deque()
        self._blocks: Deque[_Block] = deque()
        self._last = bytearray()
        self._segment: Optional[_Segment] = None

    def __bool__(self) -> bool:
        return bool(self._head or self._blocks or self._last)

    def append(self, piece: Piece) -> None:
        """Put a piece at the end."""
        if not self._blocks and not self._last and self._spool.take_memory(len(piece[2]) + OVERHEAD):
            self._head.append(piece)
            return
        channel, more, body = piece
        self._last += _RECORD.pack(channel, more, len(body))
        self._last += body
        self._spool.memory += _RECORD.size + len(body)
        if len(self._last) >= BLOCK:
            self._seal()

    def popleft(self) -> Piece:
        """Take the first piece."""
        if not self._head:
            self._refill()
        piece = self._head.popleft()
        self._spool.memory -= len(piece[2]) + OVERHEAD
        return piece

    def clear(self) -> None:
        """Drop all pieces."""
        self._spool.memory -= sum(len(body) + OVERHEAD for _, _, body in self._head) + len(self._last)
        self._head.clear()
        self._last.clear()
        while self._blocks:
            self._blocks.popleft().drop()
        self._end_segment()

    def _seal(self) -> None:
        """Make a block of the last records, to be written."""
        self._spool.memory -= len(self._last)
        block = _Block(self._spool, bytes(self._last), self._current_segment())
        self._last.clear()
        self._blocks.append(block)
        self._spool.write(block)

    def _current_segment(self) -> Optional[_Segment]:
        """Give the file to write to; None where none can be made."""
        if self._segment is None or self._segment.size >= SEGMENT:
            self._end_segment()
            try:
                self._segment = _Segment(self._spool.folder)
            except OSError:
                self._spool.disk_failed()
        return self._segment

    def _end_segment(self) -> None:
        if self._segment is not None:
            with self._spool.lock:
                self._segment.release()
            self._segment = None

    def _refill(self) -> None:
        """Take the next block, or what is not one yet, into memory."""
        if self._blocks:
            data = self._blocks.popleft().take()
        else:
            data = bytes(self._last)
            self._spool.memory -= len(data)
            self._last.clear()
        if not self._blocks:
            self._end_segment()
        start = 0
        while start < len(data):
            channel, more, length = _RECORD.unpack_from(data, start)
            start += _RECORD.size + length
            self._head.append((channel, bool(more), data[start - length : start]))
            self._spool.memory += length + OVERHEAD


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _remove_leftovers(folder: str) -> None:
    """Remove files that a process had not yet taken the name of when it was killed (where that takes two steps)."""
    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
