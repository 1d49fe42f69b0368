"""SSH packets that are sent without blocking the thread that sends them, and received within bounds."""

from __future__ import annotations

import collections
import errno
import threading
import time
from typing import TYPE_CHECKING, Any

from paramiko import SSHException
from paramiko.packet import Packetizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from paramiko.message import Message

    from codespace_kernels.ssh.loop_reader import LoopReader
    from codespace_kernels.ssh.wire import Wire

HIGH_WATER = 262144
"""Bytes that wait for the wire; with more than this, streams stop handing over new ones."""
LOW_WATER = 65536
"""Bytes; with no more than this waiting, streams go on."""
MOST_WAITING = 64 * 1024 * 1024
"""Bytes that may wait for the wire: who asks without end and reads nothing is let go. Streams stop far below it."""

LARGEST_PACKET = 256 * 1024
"""Bytes of a packet from the peer, as in OpenSSH (`PACKET_MAX_SIZE`); paramiko would wait for the 4 GiB that fit."""

_SHORTEST_PACKET = 32
"""Bytes that paramiko may read of a packet before it looks at its length: a block, and more."""

LONGEST_GREETING = 64 * 1024
"""Bytes that a peer may say before its first packet: the version, and lines above it (RFC 4253, section 4.2)."""

_FLUSH_POLL_SECONDS = 1.0


class OutboxPacketizer(Packetizer):
    """Sends what the wire takes at once from the caller's thread, and leaves the rest to a thread that may wait.

    So a small message has no thread between it and the socket, and a stuck peer stops no event loop. The thread exists
    only once something had to wait.

    Attributes:
        received_at: `time.monotonic()` of the last whole packet from the peer.
        reader: Reads in place of the thread that calls `read_message`, once it is set.
        on_drained: Called, from any thread, when the outbox is no longer full.
        failure: Why sending failed, if it did.
    """

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)  # type: ignore[arg-type]  # paramiko takes anything with a socket's four methods
        self._wire = wire
        self._waiting: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._kept_back = False
        self._changed = threading.Condition()
        self._uncongested = threading.Event()
        self._uncongested.set()
        self._greeted = 0
        self._is_aead = False
        self._tag_size = 0
        self.reader: LoopReader | None = None
        self._flusher: threading.Thread | None = None
        self.received_at = time.monotonic()
        self.on_drained: Callable[[], None] = lambda: None
        self.failure: OSError | None = None

    @property
    def congested(self) -> bool:
        """Whether more waits for the wire than should."""
        return not self._uncongested.is_set()

    def wait_uncongested(self, seconds: float) -> bool:
        """Block until the outbox is no longer full, or for so long; tell which."""
        return self._uncongested.wait(seconds)

    def read_message(self) -> tuple[int, Message]:
        """Read a packet, or wait for the one that the loop leaves to this thread."""
        if self.reader is not None:
            packet = self.reader.wait()
            if packet is not None:
                return packet
            self.reader = None
        return self.read_packet()

    def read_packet(self) -> tuple[int, Message]:
        """Read a packet and note when it came."""
        message = super().read_message()
        self.received_at = time.monotonic()
        return message

    def set_inbound_cipher(  # type: ignore[override]  # paramiko calls it with keywords only
        self, *, aead: bool = False, mac_size: int, **others: Any
    ) -> None:
        """Note whether packets say their length in plain bytes, as with AES-GCM (RFC 5647, section 7.3)."""
        super().set_inbound_cipher(aead=aead, mac_size=mac_size, **others)
        self._is_aead, self._tag_size = aead, mac_size

    def holds_packet(self) -> bool | None:
        """Tell whether a whole packet is there; None where that cannot be told before it is decrypted."""
        if not self._is_aead:
            return None
        if self._wire.kept < _SHORTEST_PACKET:
            return False
        size = int.from_bytes(self._wire.peek(4), "big")
        # One that is too long is read at once, and refused.
        return size > LARGEST_PACKET or self._wire.kept >= 4 + size + self._tag_size

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read so many bytes of a packet.

        Raises:
            SSHException: No packet is that large.
        """
        if n > LARGEST_PACKET:
            raise SSHException(f"it announced a packet of {n} bytes, and {LARGEST_PACKET} are the most")
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        """Read some of the greeting; paramiko waits for a line's end without end."""
        data = bytes(super()._read_timeout(timeout))  # type: ignore[misc]  # paramiko's stubs leave it out
        self._greeted += len(data)
        if self._greeted > LONGEST_GREETING:
            raise SSHException(f"it said more than {LONGEST_GREETING} bytes before its first packet")
        return data

    def write_all(self, out: Any) -> None:
        """Send or store one encrypted packet; paramiko calls this for each, in order.

        Raises:
            EOFError: The wire is broken or closed, as paramiko's own packetizer says it.
        """
        with self._changed:
            if self.failure is not None or self.closed:
                raise EOFError
            sent = 0 if self._waiting else self._send(out)
            if sent < len(out):
                self._store(out[sent:])
            elif self._kept_back:
                self._wake_flusher()

    def _send(self, data: bytes) -> int:
        try:
            sent = self._wire.send_nowait(data)
            self._kept_back = not self._wire.flush_nowait()
            return sent
        except OSError as error:
            self.failure = error
            raise EOFError from error

    def _store(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_WAITING:
            self.failure = OSError(errno.ENOBUFS, "the other end wants answers and takes none")
            self._wire.close()
            raise EOFError
        if self._size > HIGH_WATER:
            self._uncongested.clear()
        self._wake_flusher()

    def _wake_flusher(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush, name="codespace-kernels ssh outbox", daemon=True)
            self._flusher.start()
        self._changed.notify()

    def _flush(self) -> None:
        """Send what waits until the session is closed; body of the thread."""
        try:
            while self._wait_for_work():
                self._wire.wait_writable(_FLUSH_POLL_SECONDS)
                self._send_waiting()
        except (OSError, EOFError):
            # The session's own thread sees the end of the wire and tells everybody.
            self._wire.close()
        self._set_uncongested()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._waiting or self._kept_back or self.closed):
                self._changed.wait()
            return not self.closed

    def _send_waiting(self) -> None:
        with self._changed:
            self._kept_back = not self._wire.flush_nowait()
            while self._waiting:
                head = self._waiting.popleft()
                sent = self._send(head)
                self._size -= sent
                if sent < len(head):
                    self._waiting.appendleft(head[sent:])
                    break
            drained = self.congested and self._size <= LOW_WATER
        if drained:
            self._set_uncongested()

    def _set_uncongested(self) -> None:
        self._uncongested.set()
        self.on_drained()

    def close(self) -> None:
        """Close the wire, and end the threads that may be waiting for it."""
        # paramiko's own thread for the handshake's time limit is no daemon: it would delay the program's end.
        self.complete_handshake()
        super().close()
        if self.reader is not None:
            self.reader.end()
        with self._changed:
            self._changed.notify()
