"""What an SSH session runs over, as paramiko wants it: a socket-like object, here with sends that never block.

paramiko reads from its own thread, so `recv` blocks; once a session stands, an event loop reads by `receive_nowait`
(see `loop_reader`). It sends from whatever thread has something to say, and one of ours is an event loop, so
`send_nowait` takes what fits and returns.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import selectors
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from codespace_kernels.ssh.threads import call_here, call_in_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from codespace_kernels.ssh.channel import ClientChannel

READ_SIZE = 262144
"""Bytes asked of the layer below at once. paramiko asks for 16 bytes, then for the rest of a packet."""

POLL_SECONDS = 1.0
"""How often a waiting reader looks up, for paramiko's time limits. `close` wakes it at once."""

_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
# What a socket that is not ready says, with and without TLS.
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire(ABC):
    """A stream of bytes in both directions. One thread reads; any number of threads send, one at a time."""

    def __init__(self) -> None:
        self._closed = False  # The name is paramiko's: its stop_thread() reads it.
        self._unread = b""
        self._position = 0

    def settimeout(self, seconds: float | None) -> None:
        """Accept paramiko's wish; the wire has its own rhythm (`POLL_SECONDS`)."""
        del seconds

    def recv(self, size: int) -> bytes:
        """Give 1 to `size` bytes; `b""` at the end.

        Raises:
            TimeoutError: Nothing came for `POLL_SECONDS`.
            OSError: The wire broke.
        """
        if self._position == len(self._unread):
            self._unread, self._position = self._receive(), 0
        start = self._position
        self._position = min(start + size, len(self._unread))
        return self._unread[start : self._position]

    @property
    def kept(self) -> int:
        """Bytes that `recv` gives without waiting."""
        return len(self._unread) - self._position

    def peek(self, size: int) -> bytes:
        """Give the first of the bytes that are kept, and keep them."""
        return self._unread[self._position : self._position + size]

    def keep(self, data: bytes) -> None:
        """Put what `receive_nowait` gave behind what is kept."""
        self._unread = self._unread[self._position :] + data if self.kept else data
        self._position = 0

    @abstractmethod
    def _receive(self) -> bytes:
        """Give whatever is there, as `recv` does."""

    @abstractmethod
    def receive_nowait(self) -> bytes | None:
        """Give what is there without waiting: None for nothing, `b""` at the end.

        Raises:
            OSError: The wire broke.
        """

    @abstractmethod
    def watch(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> Callable[[], None]:
        """Have `readable` called on the loop whenever `receive_nowait` may give something; give what ends that.

        Raises:
            NotImplementedError: The loop cannot watch such a thing.
        """

    @abstractmethod
    def send_nowait(self, data: bytes) -> int:
        """Take as many bytes as can be sent without waiting; 0 where none can.

        Raises:
            OSError: The wire broke or is closed.
        """

    def flush_nowait(self) -> bool:
        """Send what a wire took from `send_nowait` and keeps back still, as far as possible without waiting.

        Returns:
            Whether nothing is kept back any more.

        Raises:
            OSError: The wire broke or is closed.
        """
        return True

    @abstractmethod
    def wait_writable(self, seconds: float) -> None:
        """Wait until `send_nowait` may take something, or for so long.

        Raises:
            OSError: The wire broke or is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """End both directions; a reader that waits returns at once. Closing twice is no error."""


class SocketWire(Wire):
    """A connected socket, plain or TLS. Owns it.

    Calls on one TLS object must not overlap, hence the lock; the socket is non-blocking, so that it is held shortly.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._lock = threading.Lock()
        self._watched = False
        self._readable = _Selector()
        self._readable.register(sock, selectors.EVENT_READ)
        self._writable = _Selector()
        self._writable.register(sock, selectors.EVENT_WRITE)

    def recv_any(self) -> bytes:
        """Give whatever is there, as `recv` does."""
        while not self._closed:
            # A plain socket is worth asking only when it is ready; TLS may have decrypted data in store.
            if not self._is_tls and not self._readable.select(POLL_SECONDS):
                raise TimeoutError
            try:
                with self._lock:
                    return self._sock.recv(READ_SIZE)
            except _NOT_READY:
                if self._is_tls and not self._readable.select(POLL_SECONDS):
                    raise TimeoutError from None
        return b""

    _receive = recv_any

    def receive_nowait(self) -> bytes | None:
        """See `Wire.receive_nowait`."""
        if self._closed:
            return b""
        try:
            with self._lock:
                return self._sock.recv(READ_SIZE)
        except _NOT_READY:
            return None

    def watch(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> Callable[[], None]:
        """See `Wire.watch`."""
        number = self._sock.fileno()
        loop.add_reader(number, readable)
        self._watched = True

        def stop() -> None:
            loop.remove_reader(number)
            self._watched = False
            if self._closed:
                self._sock.close()

        return stop

    def send_nowait(self, data: bytes) -> int:
        """See `Wire.send_nowait`."""
        try:
            with self._lock:
                return self._sock.send(data)
        except _NOT_READY:
            return 0

    def wait_writable(self, seconds: float) -> None:
        """See `Wire.wait_writable`."""
        if self._closed:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        self._writable.select(seconds)

    def close(self) -> None:
        """See `Wire.close`."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            # The plain shutdown: SSLSocket's own would make a reader in another thread see bare ciphertext.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        # A loop that watches would take whatever gets the number next for this socket; it sees the end first.
        if not self._watched:
            self._sock.close()


class ChannelWire(Wire):
    """A channel of another SSH session: SSH within SSH. Owns the channel."""

    def __init__(self, channel: ClientChannel) -> None:
        super().__init__()
        self._channel = channel
        channel.settimeout(POLL_SECONDS)

    def _receive(self) -> bytes:
        data = self._channel.recv(READ_SIZE)
        if not data and not self._closed and (self._channel.lost or not self._channel.session.active):
            raise ConnectionResetError(errno.ECONNRESET, self._channel.session.end_reason())
        return data

    def receive_nowait(self) -> bytes | None:
        """See `Wire.receive_nowait`."""
        channel = self._channel
        # Looked at first: the last data may come between the two questions.
        ended = channel.eof_received or channel.closed
        if channel.recv_ready() or ended:
            return self._receive()
        return b"" if self._closed else None

    def watch(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> Callable[[], None]:
        """See `Wire.watch`."""
        scheduled = False

        def look() -> None:
            nonlocal scheduled
            scheduled = False
            readable()

        def changed() -> None:
            nonlocal scheduled
            if not scheduled:
                scheduled = True
                call_in_loop(loop, look)

        self._channel.listen(changed, functools.partial(call_here, loop, readable, changed))
        return lambda: self._channel.listen(None)

    def send_nowait(self, data: bytes) -> int:
        """See `Wire.send_nowait`."""
        channel = self._channel
        if channel.closed or channel.eof_sent:
            raise ConnectionResetError(errno.ECONNRESET, "channel closed")
        if channel.session.congested or not channel.send_ready():
            return 0
        return channel.send(data)

    def wait_writable(self, seconds: float) -> None:
        """See `Wire.wait_writable`."""
        channel = self._channel
        if not channel.session.wait_uncongested(seconds):
            return
        with channel.out_buffer_cv:
            if channel.out_window_size == 0 and not channel.closed:
                channel.out_buffer_cv.wait(seconds)

    def close(self) -> None:
        """See `Wire.close`."""
        self._closed = True
        # The session around may have ended in this moment, and not know it yet.
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
