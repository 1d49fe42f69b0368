"""One channel of a kernel whose traffic is encrypted (jupyter_client's `transport_encryption`): on a socket of libzmq.

A codespace has no other CURVE than libzmq's. Its descriptor says that something *may* have come, until the socket is
asked (zmq_getsockopt(3), ZMQ_FD), and what is sent takes that sign away: so it is asked after each message.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, Dict, List, Optional

import zmq

from .probe import as_bytes
from .reactor import Reactor
from .zmtp_socket import READ_BYTES, READ_MESSAGES, RECONNECT


class CurveSocket:
    """A DEALER or SUB socket with CURVE; arguments and methods are those of `ZmtpSocket`."""

    def __init__(
        self,
        reactor: Reactor,
        info: Dict[str, Any],
        channel: str,
        identity: Optional[bytes],
        take: Callable[[List[bytes]], Any],
        connected: Callable[[], Any],
    ) -> None:
        self._reactor = reactor
        self._take = take
        self._connected = connected
        self._paused = False
        made = self._socket = _context().socket(zmq.SUB if identity is None else zmq.DEALER)
        made.linger = 0
        made.sndhwm = made.rcvhwm = 0
        made.reconnect_ivl = int(RECONNECT * 1000)
        made.curve_publickey = made.curve_serverkey = as_bytes(info["curve_publickey"])
        made.curve_secretkey = as_bytes(info["curve_secretkey"])
        if identity is None:
            made.subscribe(b"")
        else:
            made.identity = identity
        self._monitor: Optional[Any] = made.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitor_descriptor = self._monitor.get(zmq.FD)
        reactor.add_reader(self._monitor_descriptor, self._handshake_done)
        made.connect(_url(info, channel))
        self._descriptor = made.get(zmq.FD)
        reactor.add_reader(self._descriptor, self._readable)
        reactor.call_soon(self._handshake_done)
        reactor.call_soon(self._readable)

    def send(self, parts: List[bytes]) -> None:
        """Send a message, now or as soon as the kernel takes it."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)
        if not self._paused:
            self._reactor.call_soon(self._readable)

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._paused = True
        self._reactor.forget(self._readable)
        self._reactor.remove(self._descriptor)

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self._reactor.add_reader(self._descriptor, self._readable)
        self._reactor.call_soon(self._readable)

    def drain(self) -> None:
        """Hand on all that has arrived."""
        while self._read():
            pass

    def close(self) -> None:
        """Let go of the connection, and of what was to be sent or handed on."""
        self._close_monitor()
        self._reactor.forget(self._readable)
        self._reactor.remove(self._descriptor)
        self._socket.close(linger=0)

    def _handshake_done(self) -> None:
        if self._monitor is not None and self._monitor.get(zmq.EVENTS) & zmq.POLLIN:
            self._close_monitor()
            self._connected()

    def _close_monitor(self) -> None:
        if self._monitor is not None:
            self._reactor.forget(self._handshake_done)
            self._reactor.remove(self._monitor_descriptor)
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None

    def _readable(self) -> None:
        left = READ_BYTES
        for _ in range(READ_MESSAGES):
            size = self._read()
            if not size:
                return
            left -= size
            if left <= 0 or self._socket.closed or self._paused:
                break
        if not self._socket.closed and not self._paused:
            self._reactor.call_soon(self._readable)

    def _read(self) -> int:
        """Hand on one message; give its bytes, 0 where there is none."""
        if self._socket.closed:
            return 0
        try:
            parts = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.ZMQError:
            return 0
        self._take(parts)
        return max(1, sum(map(len, parts)))


@functools.lru_cache(maxsize=None)
def _context() -> Any:
    """Give a context for many kernels: its default of 1024 sockets is four for each kernel and client."""
    context = zmq.Context()
    context.max_sockets = 16384
    return context


def _url(info: Dict[str, Any], channel: str) -> str:
    port = info[channel + "_port"]
    if info["transport"] == "tcp":
        # From another address of the loopback network, for what `ZmtpSocket` says of that.
        source = "127.0.0.2:0;" if info["ip"] == "127.0.0.1" and sys.platform == "linux" else ""
        return "tcp://%s%s:%s" % (source, info["ip"], port)
    return "%s://%s-%s" % (info["transport"], info["ip"], port)
