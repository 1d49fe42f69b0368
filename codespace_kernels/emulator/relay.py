"""The relay: a websocket that carries the bytes of one tunnel SSH session, protocol v1 (`tunnel-relay-client`).

The event loop only does the HTTP upgrade. The connection then belongs to the threads of the SSH session, which read and
write it by blocking calls: no byte crosses the loop, and a stalled relay stalls nobody else.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
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
_SLOW_BYTES = 16384
"""Taken or given at once where a relay is slow."""

TO_HOST, TO_CLIENT = "to-host", "to-client"


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
        self._held_direction = "both"
        self._rate: float | None = None
        self._abandoned = False
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
            if self._protocol.state is not State.OPEN or self._abandoned:
                return b""
            self._wait_while_held(TO_HOST)
            data = self._socket.recv(_READ_BYTES if self._rate is None else _SLOW_BYTES)
            self._take_time(len(data))
            while self._held(TO_HOST):
                self._wait_while_held(TO_HOST, patient=True)
            if not data or self._abandoned:
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

    def hold(self, seconds: float | None = None, direction: str = "both") -> None:
        """Carry nothing more, for some seconds or until `release`; the connection stays open.

        Args:
            seconds: None: until `release`.
            direction: `to-host`, `to-client` or `both`.
        """
        self._held_direction = direction
        self._held_until = time.monotonic() + seconds if seconds else float("inf")

    def slow_down(self, rate: float | None) -> None:
        """Carry so many bytes a second in each direction; None: as many as there are."""
        self._rate = rate

    def abandon(self) -> None:
        """Let the host have lost the client, which is told nothing: its connection stays open until `reset`."""
        self._abandoned = True
        self.release()

    def reset(self) -> None:
        """Answer the client of an abandoned stream as a host does that knows nothing of the connection."""
        with contextlib.suppress(OSError):
            # Closed without waiting, which TCP does by a reset.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def release(self) -> None:
        """End a `hold`; what was held back goes on."""
        with self._wake:
            self._held_until = 0.0
            self._wake.notify_all()

    def close(self) -> None:
        """Close the websocket in good order. The descriptor is freed by `free`."""
        held = self._held(TO_CLIENT) or self._abandoned
        if not self._closed and self._wire.acquire(timeout=0 if held else 0.2):
            try:
                self._say_goodbye()
            finally:
                self._wire.release()
        self.drop()

    def drop(self) -> None:
        """Cut the connection, as a network that fails does. The descriptor is freed by `free`."""
        self._closed = True
        self.release()
        if self._abandoned:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def free(self) -> None:
        """Free the descriptor, once no thread uses the stream any more."""
        self.drop()
        if not self._abandoned:
            self._socket.close()

    def _say_goodbye(self) -> None:
        with self._state:
            if self._protocol.state is not State.OPEN or self._abandoned:
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
            while self._held(TO_CLIENT):
                self._wait_while_held(TO_CLIENT, patient=True)
            if self._abandoned:
                raise BrokenPipeError("The relay has lost this client.")
            try:
                sent = self._socket.send(data if self._rate is None else data[:_SLOW_BYTES])
                self._take_time(sent)
            except TimeoutError:
                if self._closed:
                    raise
                continue
            data = data[sent:]

    def _take_time(self, size: int) -> None:
        """Wait as long as a slow relay needs for so many bytes."""
        rate = self._rate
        if rate is not None:
            time.sleep(size / rate)

    def _held(self, direction: str) -> bool:
        concerned = self._held_direction in ("both", direction)
        return concerned and not self._closed and time.monotonic() < self._held_until

    def _wait_while_held(self, direction: str, *, patient: bool = False) -> None:
        """Wait a little while the stream is held in a direction.

        Raises:
            TimeoutError: It is held still, and the caller is not patient.
        """
        if not self._held(direction):
            return
        with self._wake:
            self._wake.wait(min(0.1, max(0.0, self._held_until - time.monotonic())))
        if not patient and self._held(direction):
            raise TimeoutError
