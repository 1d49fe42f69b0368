"""The relay's websocket as a wire for SSH.

The websocket protocol is that of the `websockets` library without its I/O: frames are read and unpacked in the thread
of the SSH session that wants them, and sent from the thread that has something to say. The library's own threaded
client puts another thread and a queue in between.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import logging
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from typing import TYPE_CHECKING

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from codespace_kernels.errors import TunnelError
from codespace_kernels.ssh.wire import SocketWire, Wire
from codespace_kernels.tunnel.errors import TunnelRefusedError, retry_after_seconds

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_protocol_logger = logging.getLogger(f"{__name__}.protocol")
# At DEBUG the library logs the request's headers, and so the tunnel's token.
_protocol_logger.setLevel(logging.INFO)

SUBPROTOCOL = Subprotocol("tunnel-relay-client")
"""Version 1 of the protocol, the one that gh speaks: the relay only passes bytes on."""

_DATA = (Opcode.BINARY, Opcode.CONT, Opcode.TEXT)


class RelayWire(Wire):
    """An open websocket. Message borders mean nothing; each SSH packet becomes one message."""

    def __init__(self, lower: SocketWire, protocol: ClientProtocol, received: bytes) -> None:
        super().__init__()
        self._lower = lower
        self._protocol = protocol
        self._unread = received
        self._lock = threading.Lock()
        self._outgoing = b""

    def _receive(self) -> bytes:
        while True:
            payload = self._take(self._lower.recv_any())
            if payload is not None:
                return payload

    def receive_nowait(self) -> bytes | None:
        """See `Wire.receive_nowait`."""
        while (data := self._lower.receive_nowait()) is not None:
            payload = self._take(data)
            if payload is not None:
                return payload
        return None

    def watch(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> Callable[[], None]:
        """See `Wire.watch`."""
        return self._lower.watch(loop, readable)

    def _take(self, data: bytes) -> bytes | None:
        """Give the payload in some bytes, `b""` at the end, None for more to be read."""
        with self._lock:
            payload = _take(self._protocol, data)
            # Answers to pings and to a closing handshake.
            self._flush()
            is_open = self._protocol.state is State.OPEN
        if payload:
            return payload
        return None if is_open else self._end()

    def _end(self) -> bytes:
        """Give the end of the stream; with the relay's reason where it gave one."""
        close = self._protocol.close_rcvd
        if self._closed or close is None:
            return b""
        reason = f", {close.reason}" if close.reason else ""
        raise ConnectionResetError(errno.ECONNRESET, f"the relay closed the tunnel (code {close.code}{reason})")

    def send_nowait(self, data: bytes) -> int:
        """See `Wire.send_nowait`."""
        with self._lock:
            if self._protocol.state is not State.OPEN:
                raise ConnectionResetError(errno.ECONNRESET, "the relay's websocket is closed")
            if not self._flush():
                return 0
            self._protocol.send_binary(data)
            self._flush()
        return len(data)

    def flush_nowait(self) -> bool:
        """See `Wire.flush_nowait`."""
        with self._lock:
            return self._flush()

    def _flush(self) -> bool:
        self._outgoing += b"".join(self._protocol.data_to_send())
        if self._outgoing:
            self._outgoing = self._outgoing[self._lower.send_nowait(self._outgoing) :]
        return not self._outgoing

    def wait_writable(self, seconds: float) -> None:
        """See `Wire.wait_writable`."""
        self._lower.wait_writable(seconds)

    def close(self) -> None:
        """See `Wire.close`."""
        if self._closed:
            return
        self._closed = True
        with self._lock:
            try:
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(1000)
                self._flush()
            except OSError:
                logger.debug("the relay was gone before the websocket could be closed")
        self._lower.close()


def connect_relay(uri: str, context: ssl.SSLContext, timeout: float) -> socket.socket:
    """Open TCP and TLS to the relay, which tells nobody who we are. Blocks.

    Args:
        uri: The endpoint's `clientRelayUri`.
        context: TLS settings.
        timeout: Seconds for each of the two.

    Raises:
        TunnelError: It cannot be reached.
    """
    try:
        return _connect(parse_uri(uri), context, timeout)
    except (OSError, ValueError, http.client.HTTPException, WebSocketException) as error:
        raise TunnelError(f"The dev tunnel's relay cannot be reached: {error}. Check your network and proxy.") from None


def open_relay(
    uri: str, token: str, context: ssl.SSLContext, timeout: float, sock: socket.socket | None = None
) -> RelayWire:
    """Open the websocket. Blocks.

    Args:
        uri: The endpoint's `clientRelayUri`.
        token: The tunnel's connect token.
        context: TLS settings.
        timeout: Seconds for the whole.
        sock: From `connect_relay` with the same address; owned from now on. One is made where there is none.

    Raises:
        TunnelRefusedError: The relay refused; `token_expired` and `may_retry` tell what may help.
        TunnelError: It cannot be reached.
    """
    deadline = time.monotonic() + timeout
    sock = sock or connect_relay(uri, context, timeout)
    try:
        return _upgrade(sock, parse_uri(uri), token, deadline)
    except (OSError, EOFError, ValueError, WebSocketException) as error:
        sock.close()
        raise _refusal(error) from None
    except BaseException:
        sock.close()
        raise


def _connect(address: WebSocketURI, context: ssl.SSLContext, timeout: float) -> socket.socket:
    """Open TCP and TLS, through the proxy that the environment names."""
    proxy = proxy_for(address.host, secure=address.secure)
    host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (address.host, address.port)
    connection: http.client.HTTPConnection
    if address.secure:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    if proxy:
        connection.set_tunnel(address.host, address.port, proxy_headers(proxy))
    connection.connect()
    assert connection.sock is not None
    return connection.sock


def proxy_for(host: str, *, secure: bool) -> urllib.parse.SplitResult | None:
    """Give the HTTP proxy for a host, by the environment or the system's settings; loopback has none, as in gh.

    Raises:
        TunnelError: It is of a kind that is not supported.
    """
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if is_loopback or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    address = proxies.get("https" if secure else "http") or proxies.get("all")
    if not address:
        return None
    parsed = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    if parsed.scheme != "http":
        raise TunnelError(
            f"The proxy {parsed.scheme}://{parsed.hostname} cannot be used for the dev tunnel: only an http:// one can."
        )
    return parsed


def proxy_headers(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    """Give the headers with which a proxy is asked, the login that stands in its address among them."""
    if proxy.username is None:
        return {}
    login = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def _upgrade(sock: socket.socket, address: WebSocketURI, token: str, deadline: float) -> RelayWire:
    # No extensions, so no compression: the payload is encrypted. No size limit: it is a stream.
    protocol = ClientProtocol(address, subprotocols=[SUBPROTOCOL], max_size=None, logger=_protocol_logger)
    request = protocol.connect()
    request.headers["Authorization"] = f"Tunnel {token}"
    protocol.send_request(request)
    sock.sendall(b"".join(protocol.data_to_send()))
    received = b""
    while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
        sock.settimeout(max(deadline - time.monotonic(), 0.01))
        received += _take(protocol, sock.recv(65536))
    if protocol.handshake_exc is not None:
        raise protocol.handshake_exc
    return RelayWire(SocketWire(sock), protocol, received)


def _take(protocol: ClientProtocol, data: bytes) -> bytes:
    """Put what came from the socket into the protocol; give the payload of the messages in it."""
    if data:
        protocol.receive_data(data)
    else:
        protocol.receive_eof()
    frames = [bytes(e.data) for e in protocol.events_received() if isinstance(e, Frame) and e.opcode in _DATA]
    return frames[0] if len(frames) == 1 else b"".join(frames)


def _refusal(error: Exception) -> TunnelError:
    if isinstance(error, InvalidStatus):
        headers = error.response.headers
        return TunnelRefusedError(
            "the connection to the relay",
            error.response.status_code,
            retry_after=retry_after_seconds(headers.get("Retry-After")),
        )
    return TunnelError(f"The dev tunnel's relay did not open the websocket: {str(error) or type(error).__name__}.")
