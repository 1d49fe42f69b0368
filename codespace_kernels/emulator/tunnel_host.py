"""The tunnel's SSH host: the program in a codespace's virtual machine that lets tunnel clients reach its ports.

It is an SSH server (protocol v1 of dev tunnels): user `tunnel`, method `none`, for the relay has checked the token. It
tells every port of the tunnel by a `tcpip-forward` request; the client opens a `forwarded-tcpip` channel for each
TCP connection.

Fidelity, after the measured TypeScript host: a client's CHANNEL_EOF does not reach the TCP peer, only closing the
channel ends the connection.
"""

from __future__ import annotations

import base64
import logging
import socket
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_OPEN_FAILURE,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
)

from codespace_kernels.emulator.channel_pump import PumpedTransport
from codespace_kernels.emulator.tunnel_ports import PortAnnouncer

if TYPE_CHECKING:
    from codespace_kernels.emulator.relay import RelayStream

logger = logging.getLogger(__name__)

USER = "tunnel"

Connect = Callable[[int], socket.socket]

_BANNER = "SSH-2.0-Microsoft.DevTunnels.Ssh_3.12"
_KEX = ("ecdh-sha2-nistp384", "ecdh-sha2-nistp256", "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256")
_CIPHERS = ("aes256-gcm@openssh.com", "aes256-ctr")
_MACS = ("hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512", "hmac-sha2-256")
_GUESSED = ("kex_algo_list", "server_key_algo_list")
_WINDOW, _PACKET = 2**20, 2**15


class TunnelHost:
    """The host of one tunnel; serves any number of clients.

    Args:
        key: Its host key.
        ports: Gives the tunnel's ports as they are now. Called on any thread.
        connect: Opens a connection to a port of the machine, or raises `OSError`. Called on any thread.
    """

    def __init__(self, key: paramiko.PKey, ports: Callable[[], list[int]], connect: Connect) -> None:
        self.key = key
        self.ports = ports
        self.connect = connect
        self.host_id = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._transports: set[HostTransport] = set()

    @property
    def public_key(self) -> str:
        """The host's public key as the tunnel's endpoint publishes it: base64 of the plain SSH key blob."""
        return base64.b64encode(self.key.asbytes()).decode()

    def serve(self, stream: RelayStream, on_end: Callable[[], None]) -> None:
        """Serve one client on threads of its own.

        Args:
            stream: What the relay carries; owned from here on.
            on_end: Called once when the client is gone, on a thread of the transport.
        """
        transport = HostTransport(self, stream, on_end)
        with self._lock:
            self._transports.add(transport)
        transport.begin()

    def close(self) -> None:
        """Disconnect all clients and wait (at most 5 s) until their threads have ended."""
        with self._lock:
            transports = list(self._transports)
        for transport in transports:
            transport.close()
        for transport in transports:
            transport.join(timeout=5)

    def forget(self, transport: HostTransport) -> None:
        """Take note that a client is gone."""
        with self._lock:
            self._transports.discard(transport)


class _Hooks(Protocol):
    """Methods of `paramiko.Transport` that are not public; the protocol needs them, paramiko 2 to 5 have them."""

    def _auth_trigger(self) -> None: ...
    def _negotiate_keys(self, message: paramiko.Message) -> None: ...
    def _really_parse_kex_init(self, message: paramiko.Message) -> dict[str, Any]: ...
    def _get_latest_kex_init(self) -> dict[str, Any]: ...
    def _expect_packet(self, *kinds: int) -> None: ...
    def _parse_channel_open(self, message: paramiko.Message) -> None: ...


class _Rules(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return AUTH_SUCCESSFUL if username == USER else AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        # The Go client opens a session that it never uses.
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class HostTransport(PumpedTransport):
    """The SSH session with one tunnel client."""

    def __init__(self, host: TunnelHost, stream: RelayStream, on_end: Callable[[], None]) -> None:
        # The real host knows no strict key exchange.
        super().__init__(stream, default_window_size=_WINDOW, default_max_packet_size=_PACKET, strict_kex=False)
        self._host = host
        self._stream = stream
        self._on_end = on_end
        self._announcer = PortAnnouncer(self, host.ports)
        self._connected: socket.socket | None = None
        # paramiko hands over client-opened forwarded-tcpip channels only where this is set.
        self._tcp_handler = self._opened
        self.local_version = _BANNER
        options = self.get_security_options()
        options.kex, options.ciphers, options.digests = _KEX, _CIPHERS, _MACS
        self.add_server_key(host.key)

    def begin(self) -> None:
        """Start the session's threads."""
        self.start_server(event=threading.Event(), server=_Rules())

    def ended(self) -> None:
        """Free the relay's connection and tell whoever counts clients."""
        self._stream.free()
        self._host.forget(self)
        self._on_end()

    def _negotiate_keys(self, message: paramiko.Message) -> None:
        hooks = cast("_Hooks", super())
        theirs = hooks._really_parse_kex_init(paramiko.Message(message.asbytes()))
        hooks._negotiate_keys(message)
        ours = hooks._get_latest_kex_init()
        if theirs["kex_follows"] and any(theirs[kind][0] != ours[kind][0] for kind in _GUESSED):
            self._drop_guess()

    def _drop_guess(self) -> None:
        """Ignore the first packet of the key exchange: the client guessed wrong (RFC 4253, section 7)."""
        engine = cast("Any", self.kex_engine)
        take = engine.parse_next

        def drop(kind: int, _message: paramiko.Message) -> None:
            engine.parse_next = take
            cast("_Hooks", self)._expect_packet(kind)

        engine.parse_next = drop

    def _auth_trigger(self) -> None:
        # Called by paramiko after it has sent the news of the successful authentication.
        cast("_Hooks", super())._auth_trigger()
        self.call(self._announcer.announce)

    def _parse_global_request(self, message: paramiko.Message) -> None:
        kind, wants_reply = message.get_text(), message.get_boolean()
        if kind == "RefreshPorts":
            self.call(self._announcer.refresh, wants_reply)
        elif wants_reply:
            self.call(self._announcer.answer, kind == "keepalive@openssh.com")

    def _parse_request_success(self, _message: paramiko.Message) -> None:
        self._replied(accepted=True)

    def _parse_request_failure(self, _message: paramiko.Message) -> None:
        self._replied(accepted=False)

    def _replied(self, *, accepted: bool) -> None:
        self._announcer.replied(accepted)
        self.call(self._announcer.answer_in_turn)

    def _parse_channel_open(self, message: paramiko.Message) -> None:
        kind, channel = message.get_text(), message.get_int()
        if kind == "forwarded-tcpip":
            message.get_int(), message.get_int(), message.get_text()
            reason = self._connect(message.get_int())
            if reason:
                self.call(self._refuse, channel, *reason)
                return
        message.rewind()
        cast("_Hooks", super())._parse_channel_open(message)

    def _connect(self, port: int) -> tuple[int, str] | None:
        if not self._announcer.registered(port):
            return OPEN_FAILED_CONNECT_FAILED, "Forwarding channel was not requested."
        try:
            self._connected = self._host.connect(port)
        except OSError as error:
            logger.debug("port %d: %s", port, error)
            return OPEN_FAILED_CONNECT_FAILED, f"Connection to port {port} failed."
        self._announcer.opened(port)
        return None

    def _refuse(self, channel: int, reason: int, text: str) -> None:
        message = paramiko.Message()
        message.add_byte(bytes([MSG_CHANNEL_OPEN_FAILURE]))
        message.add_int(channel)
        message.add_int(reason)
        message.add_string(text)
        message.add_string("en")
        self.send(message)

    def _opened(self, channel: paramiko.Channel, _origin: object, _target: object) -> None:
        sock, self._connected = self._connected, None
        assert sock is not None
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.splice(
            channel,
            sources={sock.fileno(): channel.send},
            sink=sock.fileno(),
            on_sources_end=channel.close,
            on_close=sock.close,
        )
