"""The broker on a port of 127.0.0.1, where no Unix socket can be had: what keeps everybody else out, on both sides.

Every user and program of the machine can reach the port, and so can a web page in a browser. A file that only this
user can read names the port and holds a secret that is made anew for each broker.

- A client proves that it may: each request carries the secret. A request that names another host than this machine, or
  the page it comes from, is refused even so: it comes from a browser.
- The broker proves first that it is the broker. After a crash its file stays, and anybody may take the port and wait
  for secrets. So a client begins each connection with a random number and goes on only when it is answered, on the same
  connection, with an HMAC of that number and the port under the secret. The port is part of it so that nobody can pass
  the question on to a broker elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import http.client
import json
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from codespace_kernels import platforms
from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tornado.httputil import HTTPServerRequest

T = TypeVar("T")

ADDRESS = "127.0.0.1"
PROOF_PATH = "/proof/"
"""With a nonce: the one request that needs no secret. It stands outside the API's version, as the secret does."""

NONCE_DIGITS = 64
PROOF_SECONDS = 5.0
"""Within this time the broker must have been reached and have proved who it is."""

_PROOF_DIGITS = 64
_MAX_PROOF_ANSWER = 4096
_FILE_SECONDS = 1.0


class NotOurBrokerError(OSError):
    """Who listens there is not this user's broker.

    On a port, another program that does not know the secret; on a socket, a program of another user.
    """


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a broker on a loopback port and its clients know of each other.

    Attributes:
        port: Where the broker listens.
        secret: Known to whoever can read the broker's file.
    """

    port: int
    secret: str = dataclasses.field(repr=False)

    def proof(self, nonce: str) -> str:
        """Give what only a holder of the secret can answer to a nonce."""
        question = f"codespace-kernels broker {self.port} {nonce}"
        return hmac.new(self.secret.encode(), question.encode(), hashlib.sha256).hexdigest()

    def refusal(self, request: HTTPServerRequest, *, with_secret: bool = True) -> str:
        """Say why a request is refused; empty where it is not.

        Args:
            request: The request.
            with_secret: Whether it must carry the secret.
        """
        if "Origin" in request.headers:
            return "The broker does not serve web pages."
        if request.host_name not in {ADDRESS, "localhost"}:
            return f"The broker is asked for as {ADDRESS} only."
        if with_secret and not self._opens(request.headers.get("Authorization", "")):
            return "The broker's secret is missing or wrong; it stands in broker.json in its runtime folder."
        return ""

    def _opens(self, credentials: str) -> bool:
        return hmac.compare_digest(credentials.encode(errors="replace"), self.credentials.encode())

    @property
    def credentials(self) -> str:
        """The value of the header `Authorization`."""
        return f"Bearer {self.secret}"


class Listening(NamedTuple):
    """A socket that listens, and who keeps strangers out of it: None where the operating system does."""

    socket: socket.socket
    guard: Guard | None


class LoopbackEndpoint:
    """A port of 127.0.0.1 and the file that tells it.

    Args:
        path: Of the file: JSON with `port`, `secret` and `pid`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self, timeout: float | None) -> LoopbackConnection:
        """Open a connection; see `Endpoint`."""
        connection = LoopbackConnection(self._read(), timeout)
        connection.connect()
        return connection

    def listen(self) -> Listening:
        """Listen, then write the file; see `Endpoint`."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            platforms.keep_port_to_oneself(sock)
            sock.bind((ADDRESS, 0))
            sock.listen(128)
            guard = Guard(sock.getsockname()[1], secrets.token_hex(32))
            self._write(guard)
        except BaseException:
            sock.close()
            raise
        return Listening(sock, guard)

    def clear(self) -> None:
        """Remove the file. What cannot be removed leads to nobody."""
        with contextlib.suppress(OSError):
            _patiently(lambda: self.path.unlink(missing_ok=True))

    def _write(self, guard: Guard) -> None:
        content = json.dumps({"port": guard.port, "secret": guard.secret, "pid": os.getpid()}).encode()
        _patiently(lambda: replace_file(self.path, content))

    def _read(self) -> Guard:
        try:
            data: dict[str, Any] = json.loads(_patiently(self.path.read_bytes))
            port, secret = data["port"], data["secret"]
            if type(port) is int and 0 < port < 65536 and type(secret) is str and secret:
                return Guard(port, secret)
        except (ValueError, TypeError, KeyError):
            pass
        # Without the cause, which holds the file's text.
        raise NotOurBrokerError("its content is not a broker's")


class LoopbackConnection(http.client.HTTPConnection):
    """HTTP to the broker's port; its secret is sent to nobody who has not proved to know it.

    Args:
        guard: Port and secret.
        timeout: Seconds for each read; None waits for ever.
    """

    # A connection that was lost is not opened again unasked.
    auto_open = 0

    def __init__(self, guard: Guard, timeout: float | None = None) -> None:
        super().__init__(ADDRESS, guard.port, timeout=timeout)
        self._guard = guard

    def connect(self) -> None:
        """Connect and check who answers.

        Raises:
            OSError: Nobody listens, or another program does (NotOurBrokerError).
        """
        deadline = time.monotonic() + PROOF_SECONDS
        sock = socket.create_connection((ADDRESS, self._guard.port), PROOF_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._check(sock, deadline)
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def _check(self, sock: socket.socket, deadline: float) -> None:
        nonce = secrets.token_hex(NONCE_DIGITS // 2)
        sock.sendall(f"GET {PROOF_PATH}{nonce} HTTP/1.1\r\nHost: {ADDRESS}:{self._guard.port}\r\n\r\n".encode())
        answer = _read_proof(sock, deadline)
        if not hmac.compare_digest(answer, self._guard.proof(nonce).encode()):
            raise NotOurBrokerError("another program listens on its port")

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        """Begin a request, with the secret."""
        super().putrequest(method, url, skip_host, skip_accept_encoding)
        self.putheader("Authorization", self._guard.credentials)


def _read_proof(sock: socket.socket, deadline: float) -> bytes:
    """Read the body of the answer to a nonce: few bytes and little time, for anybody may be there. Else empty."""
    answer = b""
    while len(answer) < _MAX_PROOF_ANSWER and (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        if not (data := sock.recv(_MAX_PROOF_ANSWER - len(answer))):
            break
        answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        if len(body) >= _PROOF_DIGITS:
            return body if head.startswith(b"HTTP/1.1 200 ") else b""
    return b""


def _patiently(action: Callable[[], T]) -> T:
    """Do something with the file, again where Windows refuses it because another process looks at it just now."""
    deadline = time.monotonic() + _FILE_SECONDS
    while True:
        try:
            return action()
        except PermissionError:
            if not platforms.is_windows() or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
