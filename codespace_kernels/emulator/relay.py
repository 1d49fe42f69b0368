"""The relay: a websocket that carries the bytes of one tunnel SSH session, protocol v1 (`tunnel-relay-client`).

The event loop only does the HTTP upgrade. The connection then belongs to the threads of the SSH session, which read and
write it by blocking calls: no byte crosses the loop, and a stalled relay stalls nobody else.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from websockets.http11 import Response

logger = logging.getLogger(__name__)
# The library tells of every connection that opens and closes; the tunnel service does that already.
_frames = logging.getLogger(f"{__name__}.frames")
_frames.setLevel(logging.WARNING)

SUBPROTOCOL = Subprotocol("tunnel-relay-client")

_READ_BYTES = 262144


def negotiate(path: str, headers: Iterable[tuple[str, str]]) -> tuple[ServerProtocol, Response]:
    """Answer a websocket upgrade request.

    Returns:
        The protocol's state and the response to send; status 101 where the upgrade is granted.
    """
    # The relay forwards a byte stream: messages of any size, and no compression, as the real one.
    protocol = ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=None, logger=_frames)
    # Through its parser, which must have seen the request before it takes frames.
    protocol.receive_data(Request(path, Headers(list(headers))).serialize())
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    return protocol, protocol.accept(request)


class RelayStream:
    """The byte stream inside one relay websocket; a socket as far as paramiko is concerned.

    Message borders mean nothing in either direction. `recv` is called by one thread, `send` by several.

    Args:
        sock: The TCP connection, owned from here on.
        protocol: State of the websocket, before the response was sent.
        response: What to answer the upgrade request with.
    """

    def __init__(self, sock: socket.socket, protocol: ServerProtocol, response: Response) -> None:
        self._socket = sock
        self._protocol = protocol
        self._state = threading.Lock()
        self._wire = threading.Lock()
        self._received = bytearray()
        self._held_until = 0.0
        self._wake = threading.Condition()
        # paramiko looks at this attribute too, under this name.
        self._closed = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0.1)
        protocol.send_response(response)
        self._write(protocol.data_to_send())

    def settimeout(self, seconds: float | None) -> None:
        """Set how long `recv` waits for data (seconds) before it raises `TimeoutError`."""
        self._socket.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """Give up to `size` bytes; `b""` when the websocket is closed.

        Raises:
            TimeoutError: Nothing came in the time that `settimeout` set.
        """
        while not self._received:
            if self._protocol.state is not State.OPEN:
                return b""
            self._wait_while_held()
            data = self._socket.recv(_READ_BYTES)
            while self._held():
                self._wait_while_held(patient=True)
            if not data:
                return b""
            self._take(data)
        chunk = bytes(self._received[:size])
        del self._received[:size]
        return chunk

    def send(self, data: bytes) -> int:
        """Send all of `data` as one message.

        Raises:
            OSError: The connection is closed.
        """
        with self._wire:
            with self._state:
                if self._protocol.state is not State.OPEN:
                    raise BrokenPipeError("The relay's websocket is closed.")
                self._protocol.send_binary(data)
                pieces = self._protocol.data_to_send()
            self._write(pieces)
        return len(data)

    def hold(self, seconds: float | None = None) -> None:
        """Carry nothing more in either direction, for some seconds or until `release`; the connection stays open."""
        self._held_until = time.monotonic() + seconds if seconds else float("inf")

    def release(self) -> None:
        """End a `hold`; what was held back goes on."""
        with self._wake:
            self._held_until = 0.0
            self._wake.notify_all()

    def close(self) -> None:
        """Close the websocket in good order. The descriptor is freed by `free`."""
        if not self._closed and self._wire.acquire(timeout=0 if self._held() else 0.2):
            try:
                self._say_goodbye()
            finally:
                self._wire.release()
        self.drop()

    def drop(self) -> None:
        """Cut the connection, as a network that fails does. The descriptor is freed by `free`."""
        self._closed = True
        self.release()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def free(self) -> None:
        """Free the descriptor, once no thread uses the stream any more."""
        self.drop()
        self._socket.close()

    def _say_goodbye(self) -> None:
        with self._state:
            if self._protocol.state is not State.OPEN:
                return
            self._protocol.send_close(1000)
            pieces = self._protocol.data_to_send()
        with contextlib.suppress(OSError):
            self._write(pieces)

    def _take(self, data: bytes) -> None:
        """Take bytes from the wire into the stream."""
        with self._state:
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                    self._received += event.data
            # Pongs and the answer to a close frame.
            pieces = self._protocol.data_to_send()
        if pieces:
            with self._wire:
                self._write(pieces)

    def _write(self, pieces: list[bytes]) -> None:
        data = memoryview(b"".join(pieces))
        while data:
            while self._held():
                self._wait_while_held(patient=True)
            try:
                sent = self._socket.send(data)
            except TimeoutError:
                if self._closed:
                    raise
                continue
            data = data[sent:]

    def _held(self) -> bool:
        return not self._closed and time.monotonic() < self._held_until

    def _wait_while_held(self, *, patient: bool = False) -> None:
        """Wait a little while the stream is held.

        Raises:
            TimeoutError: It is held still, and the caller is not patient.
        """
        if not self._held():
            return
        with self._wake:
            self._wake.wait(min(0.1, max(0.0, self._held_until - time.monotonic())))
        if not patient and self._held():
            raise TimeoutError
