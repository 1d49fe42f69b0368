"""A port that local clients connect to, and its connections."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import socket
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from tornado.ioloop import IOLoop

from codespace_kernels.bridge.connection import Connection
from codespace_kernels.errors import SettingsError
from codespace_kernels.zmtp.curve import CurveServer
from codespace_kernels.zmtp.mechanisms import Null
from codespace_kernels.zmtp.peer import Peer, Ready

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.bridge.connection import Allowance
    from codespace_kernels.bridge.outgoing import Outgoing
    from codespace_kernels.bridge.takings import Takings
    from codespace_kernels.zmtp.curve import CurveKeys
    from codespace_kernels.zmtp.peer import Subscription

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""To one port; a front end with thirty windows has that many."""

SMALL_BYTES = 65536
"""Bytes of a message at most where none is large: subscriptions, heartbeats."""

_BACKLOG = 100
_ACCEPTED_AT_ONCE = 32
_PAUSE_SECONDS = 1.0
_COMPLAINTS = 20


def listen(ip: str, name: str, port: int) -> socket.socket:
    """Listen on a port.

    Args:
        ip: An address of this machine, in numbers, or `*`.
        name: Of the channel, for the error.
        port: Exactly this one; 0 lets the operating system choose.

    Raises:
        SettingsError: The port is taken or cannot be listened on.
    """
    try:
        return _listen(ip, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} of {ip}, meant for the kernel's {name} channel, is taken by another program. "
                "Start the kernel again to get other ports."
            ) from None
        raise SettingsError(f"Cannot listen on {ip}:{port} for the kernel's {name} channel: {_text(error)}.") from None


def _listen(ip: str, port: int) -> socket.socket:
    host = "0.0.0.0" if ip == "*" else ip  # noqa: S104  (what the connection file asks for)
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR lets two programs listen on one port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # A port whose last connections the system still remembers is free.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _text(error: OSError) -> str:
    return error.strerror or os.strerror(error.errno or 0)


class Endpoint(ABC):
    """Accepts connections and holds them.

    Args:
        name: Of the channel, for what is logged.
        listener: As `listen` gives it.
        allowance: What strangers may make us keep.
        curve: Keys of the kernel, where its clients use CurveZMQ.

    Attributes:
        takings: Where it is noted what is handed to connections; None for nowhere.
    """

    socket_type: ClassVar[bytes]
    message_bytes: ClassVar[int] = SMALL_BYTES
    """Bytes of a message at most, as long as nobody trusts its sender."""

    def __init__(self, name: str, listener: socket.socket, allowance: Allowance, curve: CurveKeys | None) -> None:
        self.name = name
        self._listener = listener
        self._allowance = allowance
        self._mechanism = Null if curve is None else functools.partial(CurveServer, curve)
        self._connections: set[Connection] = set()
        self._complaints = 0
        self._closed = False
        self._watch: IOLoop | None = None
        self._first: Sequence[Endpoint] = ()
        self.takings: Takings | None = None

    @property
    def port(self) -> int:
        """That is listened on."""
        return int(self._listener.getsockname()[1])

    def start(self, first: Sequence[Endpoint] = ()) -> None:
        """Accept connections from now on.

        Args:
            first: Endpoints that are read before any connection of this one.
        """
        self._first = first
        self._watch = IOLoop.current()
        self._watch.add_handler(self._listener, self._accept, IOLoop.READ)

    def inherit(self) -> bool:
        """Go on with the connections that another process had on this port; tell whether there are any."""
        inherited = self.takings.inherit(self.port) if self.takings is not None else []
        for sock, past in inherited:
            if self._mechanism is not Null:
                sock.close()
                continue
            peer = Peer.resumed(self.socket_type, self.message_bytes)
            connection = Connection(sock, peer, self, self._allowance, self.takings, lasting=True, past=past)
            self._connections.add(connection)
            self.inherited(connection, past.routing_id)
        return bool(inherited)

    def read(self) -> None:
        """Read what the clients sent, within the limits."""
        for connection in tuple(self._connections):
            connection.read()

    def leave(self) -> None:
        """Free the port, for another process to go on with the connections."""
        for connection in self._connections:
            connection.leave()
        self.close()

    def close(self) -> None:
        """Free the port and end all connections; what was not sent stays so. Closing twice is no error."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.remove_handler(self._listener)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def readable(self, connection: Connection) -> None:
        """See `ConnectionOwner`."""
        for endpoint in self._first:
            endpoint.read()
        connection.read()

    def said(self, connection: Connection, event: Ready | Subscription | list[bytes]) -> None:
        """See `ConnectionOwner`."""
        if isinstance(event, list):
            self.received(connection, event)
        elif isinstance(event, Ready):
            self.connected(connection, event.routing_id)

    def lost(self, connection: Connection, unsent: list[Outgoing], reason: str) -> None:
        """See `ConnectionOwner`."""
        self._connections.discard(connection)
        if reason:
            self.complain(f"ended the connection of a client: {reason}")
        self.disconnected(connection, unsent)

    def complain(self, text: str) -> None:
        """Log what a client did wrong; who does it without end is not logged without end."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS:
            _log.warning("%s port %d: %s", self.name, self.port, text)

    @abstractmethod
    def connected(self, connection: Connection, routing_id: bytes) -> None:
        """Hear that the handshake is over."""

    def inherited(self, connection: Connection, routing_id: bytes) -> None:
        """Hear of a connection that another process had."""
        self.connected(connection, routing_id)

    @abstractmethod
    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Take a message."""

    def disconnected(self, connection: Connection, unsent: list[Outgoing]) -> None:
        """Hear that a connection ended by itself."""
        for outgoing in unsent:
            outgoing.finished()

    def _accept(self, _listener: object, _events: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            self.complain(f"refused a client: there are {MAX_CONNECTIONS} already")
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(self.socket_type, self._mechanism, self.message_bytes)
        # What CurveZMQ agreed on stands in this process's memory alone.
        lasting = self._mechanism is Null
        self._connections.add(Connection(sock, peer, self, self._allowance, self.takings, lasting=lasting))

    def _pause(self, error: OSError) -> None:
        """No descriptor is left, say: asking again at once would only keep the loop busy."""
        self.complain(f"cannot accept a client: {_text(error)}")
        assert self._watch is not None
        self._watch.remove_handler(self._listener)
        asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if not self._closed and self._watch is not None:
            self._watch.add_handler(self._listener, self._accept, IOLoop.READ)
