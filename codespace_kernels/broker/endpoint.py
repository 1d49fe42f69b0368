"""Where the broker listens: a Unix socket that only its user may open, or a loopback port with a secret.

Which one a new broker takes is `settings.broker_endpoint`. Clients look at both, since the front ends of a user may
have been given different settings while there is one broker; its lock is the same for both.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from typing import TYPE_CHECKING, Protocol

from codespace_kernels import platforms
from codespace_kernels.broker.loopback import Listening, LoopbackEndpoint, NotOurBrokerError
from codespace_kernels.broker.peers import stranger
from codespace_kernels.settings import LOOPBACK, broker_endpoint, runtime_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Endpoint(Protocol):
    """A place where a broker may listen.

    Attributes:
        path: The file that leads there.
    """

    @property
    def path(self) -> Path:
        """The file."""

    def connect(self, timeout: float | None) -> http.client.HTTPConnection:
        """Open a connection to this user's broker. Blocks.

        Args:
            timeout: Seconds for connecting and for each read; None waits for ever for an answer (a handle does).

        Raises:
            OSError: No broker of this user listens there.
        """

    def listen(self) -> Listening:
        """Listen there. Only the holder of the broker's lock may.

        Raises:
            OSError: It cannot be done.
        """

    def clear(self) -> None:
        """Remove the file of a broker that has ended. Only the holder of the broker's lock may."""


class UnixEndpoint:
    """A Unix socket.

    Args:
        path: Of the socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self, timeout: float | None) -> UnixConnection:
        """Open a connection; see `Endpoint`."""
        connection = UnixConnection(self.path, timeout)
        connection.connect()
        return connection

    def listen(self) -> Listening:
        """Listen; see `Endpoint`."""
        sock = _unix_socket()
        try:
            sock.setblocking(False)
            old = os.umask(0o177)
            try:
                sock.bind(str(self.path))
            finally:
                os.umask(old)
            sock.listen(128)
        except BaseException:
            sock.close()
            raise
        return Listening(sock, None)

    def clear(self) -> None:
        """Remove the socket's file."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. The standard library's client starts in a few milliseconds, which every launcher pays.

    Args:
        path: Of the socket.
        timeout: Seconds for connecting and for each read; None waits for ever (a handle does).
    """

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect and check who listens: requests carry tokens.

        Raises:
            OSError: Nobody listens, or another user does (NotOurBrokerError).
        """
        sock = _unix_socket()
        try:
            sock.settimeout(self.timeout)
            sock.connect(str(self._path))
            _check_listener(sock)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _check_listener(sock: socket.socket) -> None:
    if (uid := stranger(sock)) is not None:
        raise NotOurBrokerError(f"user {uid} listens there, not you")


def _unix_socket() -> socket.socket:
    # By name: Windows has no such attribute, and there nobody comes here.
    return socket.socket(getattr(socket, "AF_UNIX"), socket.SOCK_STREAM)  # noqa: B009  (mypy knows no AF_UNIX there)


def socket_path() -> Path:
    """Give the path of this user's broker socket."""
    return runtime_dir() / "broker.sock"


def loopback_path() -> Path:
    """Give the path of the file with the port and secret of this user's broker."""
    return runtime_dir() / "broker.json"


def lock_path() -> Path:
    """Give the path of the file whose lock makes its holder this user's broker."""
    return runtime_dir() / "broker.lock"


def endpoints() -> Sequence[Endpoint]:
    """Give the places where this user's broker may be; the first is the one that a new broker takes.

    Raises:
        SettingsError: The setting has no such value, or no folder can be had.
    """
    loopback = LoopbackEndpoint(loopback_path())
    if not platforms.has_unix_sockets():
        return (loopback,)
    unix = UnixEndpoint(socket_path())
    return (loopback, unix) if broker_endpoint() == LOOPBACK else (unix, loopback)
