"""One channel of a kernel whose traffic is encrypted (jupyter_client's `transport_encryption`): on a socket of libzmq.

A codespace has no other CURVE than libzmq's. Its descriptor says that something *may* have come, until the socket is
asked (zmq_getsockopt(3), ZMQ_FD), and what is sent takes that sign away: so it is asked after each message.
"""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Optional

import zmq

from .kernel_socket import READ_BYTES, READ_MESSAGES, RECONNECT, KernelSocket, source_address
from .probe import as_bytes


class CurveSocket(KernelSocket):
    """A socket of libzmq, for a kernel that uses CURVE."""

    def _set_up(self) -> None:
        info, reactor = self._info, self._reactor
        made = self._socket = _context().socket(zmq.SUB if self._identity is None else zmq.DEALER)
        made.linger = 0
        made.sndhwm = made.rcvhwm = 0
        made.reconnect_ivl = int(RECONNECT * 1000)
        made.curve_publickey = made.curve_serverkey = as_bytes(info["curve_publickey"])
        made.curve_secretkey = as_bytes(info["curve_secretkey"])
        if self._identity is None:
            made.subscribe(b"")
        else:
            made.identity = self._identity
        self._monitor: Optional[Any] = made.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitor_descriptor = self._monitor.get(zmq.FD)
        reactor.add_reader(self._monitor_descriptor, self._handshake_done)
        made.connect(_url(info, self._channel))
        self._descriptor = made.get(zmq.FD)
        reactor.add_reader(self._descriptor, self._readable)
        reactor.call_soon(self._handshake_done)
        reactor.call_soon(self._readable)

    def send(self, parts: List[bytes]) -> None:
        """See `KernelSocket`."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)
        if not self._paused:
            self._reactor.call_soon(self._readable)

    def pause(self) -> None:
        """See `KernelSocket`."""
        self._paused = True
        self._reactor.forget(self._readable)
        self._reactor.remove(self._descriptor)

    def resume(self) -> None:
        """See `KernelSocket`."""
        self._paused = False
        self._reactor.add_reader(self._descriptor, self._readable)
        self._reactor.call_soon(self._readable)

    def drain(self) -> None:
        """See `KernelSocket`."""
        while self._read():
            pass

    def close(self) -> None:
        """See `KernelSocket`."""
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
        source = source_address(info["ip"])
        return "tcp://%s%s:%s" % ("" if source is None else source + ":0;", info["ip"], port)
    return "%s://%s-%s" % (info["transport"], info["ip"], port)
