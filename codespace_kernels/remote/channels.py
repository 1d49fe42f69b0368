"""The ZMQ sockets of one kernel for one client of the link."""

from __future__ import annotations

import sys
import uuid
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

import zmq

from .probe import DELIMITER, IDENTITY, Probe, as_bytes
from .reactor import Reactor, has_message

SHELL, IOPUB, STDIN, CONTROL = 1, 2, 3, 4

READ_MESSAGES = 64
READ_BYTES = 512 * 1024
"""One socket is read so far in a turn. By bytes too: 64 messages may be 64 MB, and others would wait for seconds."""

FLOOD_MESSAGES = 32
FLOOD_SECONDS = 0.01
PAUSE = 0.002
"""A kernel that publishes so many messages in so short a time is read in intervals of `PAUSE` seconds.

What it sends meanwhile comes at once: the processes on the way wake up a tenth as often, and leave the processor to the
kernels. Nothing is lost by that, since libzmq reads on and its queue has no limit.
"""

RECONNECT_MS = 20
"""A kernel that boots is tried again after so long; ZMQ's own 100 ms would be seen in every start."""

_CHANNELS = (("shell", SHELL), ("iopub", IOPUB), ("stdin", STDIN), ("control", CONTROL))
_PROBING, _READY, _HOLDING, _CLOSED = range(4)


class KernelChannels:
    """Carries raw multiparts between a kernel and a client.

    Requests are held until a `Probe` says that the subscription to iopub is in place.

    The client's routing identities stand between the DEALER's own, which ZMQ adds, and the delimiter. Kernels send a
    request's identities back whole, so they return to the client's bridge, which routes by them. Shell and stdin
    share the DEALER's identity: an `input_request` is addressed with the identities of the execute request.

    Args:
        reactor: The loop.
        context: For the sockets.
        info: A connection file's content (with CurveZMQ keys where the kernel uses them).
        deliver: Called with channel and parts of each message from the kernel.
        observe: Called with the header, parent and content frames of each iopub message.
        ready: Called each time that a process is about to be given its first request.
    """

    def __init__(
        self,
        reactor: Reactor,
        context: Any,
        info: Dict[str, Any],
        deliver: Callable[[int, List[bytes]], None],
        observe: Callable[[bytes, bytes, bytes], None],
        ready: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._context = context
        self._deliver = deliver
        self._observe = observe
        self._ready = ready
        self._identity = b""
        self._sockets: Dict[int, Any] = {}
        self._monitor: Optional[Any] = None
        self._held: Deque[Tuple[int, List[bytes]]] = deque()
        self._state = _CLOSED
        self._paused_until: Optional[float] = None
        self._counted_since = 0.0
        self._counted = 0
        self.open(info)

    def open(self, info: Dict[str, Any]) -> None:
        """Connect (anew) to the kernel that `info` describes; requests are held until iopub is subscribed."""
        self.close()
        self._info = info
        # One for all channels: stdin is answered to it. A new one each time: while the old connections are being closed
        # a kernel that does not set ROUTER_HANDOVER ignores another one of the same identity, for good.
        self._identity = uuid.uuid4().hex.encode()
        self._state = _PROBING
        self._probe = Probe(info)
        self._lifting = False
        self._answering = CONTROL
        for name, channel in _CHANNELS:
            self._sockets[channel] = self._connect(name, channel)
        self._ask(SHELL)
        self._ask(CONTROL)

    def close(self) -> None:
        """Close the sockets. Requests are dropped now: what was meant for a dead process must not reach the next."""
        self._state = _CLOSED
        self._paused_until = None
        for channel, socket in self._sockets.items():
            if channel == IOPUB:
                self._close_monitor()
            self._reactor.remove(socket)
            socket.close(linger=0)
        self._sockets.clear()

    def forget(self) -> None:
        """Close, and drop what was held."""
        self.close()
        self._held.clear()

    @property
    def is_ready(self) -> bool:
        """Whether the kernel has been given requests, and is not about to be replaced by us."""
        return self._state == _READY

    def hold(self) -> None:
        """Keep requests back from now on: the kernel is about to be replaced."""
        self._state = _HOLDING

    def drain(self) -> None:
        """Deliver all that has arrived."""
        for channel, socket in self._sockets.items():
            while self._read(channel, socket):
                pass

    def send(self, channel: int, parts: List[bytes]) -> None:
        """Give a client's message to the kernel."""
        if self._state in (_PROBING, _HOLDING):
            self._held.append((channel, parts))
        elif self._state == _READY and channel in (SHELL, STDIN, CONTROL) and parts:
            self._send(channel, parts)

    def next_deadline(self) -> Optional[float]:
        """When `tick` has something to do; None for never."""
        if self._state != _PROBING:
            return self._paused_until
        times = [at for at in (self._probe.ask_at, self._probe.ready_at) if at is not None]
        return min(times) if times else None

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._reactor.add_reader(self._sockets[IOPUB], lambda: self._readable(IOPUB))
        if self._state != _PROBING:
            return
        if self._probe.ready_at is not None and now >= self._probe.ready_at:
            self._release()
        elif self._probe.ask_at is not None and now >= self._probe.ask_at:
            self._ask(self._answering)

    # -- sockets ------------------------------------------------------------------------------------------------------

    def _connect(self, name: str, channel: int) -> Any:
        socket = self._context.socket(zmq.SUB if channel == IOPUB else zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.reconnect_ivl = RECONNECT_MS
        self._set_curve(socket)
        if channel == IOPUB:
            # The kernel's publisher drops what a slow reader leaves behind 1000 messages: a large buffer in between.
            socket.rcvbuf = 4 * 1024 * 1024
            socket.subscribe(b"")
            self._watch_handshake(socket)
        else:
            socket.identity = self._identity
        socket.connect(_url(self._info, name))
        self._reactor.add_reader(socket, lambda: self._readable(channel))
        return socket

    def _set_curve(self, socket: Any) -> None:
        public, secret = self._info.get("curve_publickey"), self._info.get("curve_secretkey")
        if public and secret:
            socket.curve_publickey = socket.curve_serverkey = as_bytes(public)
            socket.curve_secretkey = as_bytes(secret)

    def _watch_handshake(self, socket: Any) -> None:
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._reactor.add_reader(self._monitor, self._handshake_done)

    def _handshake_done(self) -> None:
        self._close_monitor()
        self._probe.connected()

    def _close_monitor(self) -> None:
        if self._monitor is not None:
            self._reactor.remove(self._monitor)
            self._sockets[IOPUB].disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None

    def _ask(self, channel: int) -> None:
        self._send(channel, self._probe.question())

    def _send(self, channel: int, parts: List[bytes]) -> None:
        socket = self._sockets[channel]
        socket.send_multipart(parts, zmq.NOBLOCK)
        self._reactor.look_at(socket)

    def _release(self) -> None:
        """Begin to give the kernel requests: our own first, whose answer is waited for a while.

        A process that ends over ours has lost nothing of the clients' and may be started again.
        """
        first = None if self._lifting else self._probe.last_request()
        if first is None:
            self._release_all()
            return
        self._lifting = True
        self._probe.wait_again()
        self._send(SHELL, first)

    def _release_all(self) -> None:
        self._state = _READY
        self._ready()
        held, self._held = self._held, deque()
        for channel, parts in held:
            self.send(channel, parts)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _readable(self, channel: int) -> bool:
        """Read what is there, within limits; tell whether that was all."""
        left = READ_BYTES
        socket = self._sockets[channel]
        count = 0
        is_empty = False
        while count < READ_MESSAGES and left > 0 and not is_empty:
            size = self._read(channel, socket)
            left -= size
            count += size > 0
            # To be told by an exception costs as much as a message, and most come alone.
            is_empty = not size or socket.closed or (count == 1 and not has_message(socket))
        if channel == IOPUB and self._state == _READY:
            self._count(count)
        return is_empty

    def _count(self, messages: int) -> None:
        now = self._reactor.now
        if now - self._counted_since > FLOOD_SECONDS:
            self._counted_since, self._counted = now, 0
        self._counted += messages
        if self._counted >= FLOOD_MESSAGES:
            self._reactor.remove(self._sockets[IOPUB])
            self._paused_until = now + PAUSE

    def _read(self, channel: int, socket: Any) -> int:
        """Take one message; give its bytes, 0 when there is none."""
        try:
            parts = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.ZMQError:
            return 0
        if channel == IOPUB:
            self._take_iopub(parts)
        elif parts[0] == IDENTITY:
            self._answering = channel
            self._take_answer(parts)
        else:
            self._deliver(channel, parts)
        return max(1, sum(map(len, parts)))

    def _take_iopub(self, parts: List[bytes]) -> None:
        if self._state == _PROBING:
            self._probe.published()
            self._release_if_ready()
        try:
            start = parts.index(DELIMITER) + 2
            header, parent, content = parts[start], parts[start + 1], parts[start + 3]
        except (ValueError, IndexError):
            return
        if not self._probe.is_answer_to_us(header, parent):
            self._deliver(IOPUB, parts)
            self._observe(header, parent, content)

    def _take_answer(self, parts: List[bytes]) -> None:
        if self._lifting and self._state == _PROBING and self._probe.is_last_answer(parts):
            self._release_all()
        else:
            self._probe.answered(parts)
            self._release_if_ready()

    def _release_if_ready(self) -> None:
        if self._state == _PROBING and self._probe.ready and not self._lifting:
            self._release()


def _url(info: Dict[str, Any], name: str) -> str:
    port = info[name + "_port"]
    if info["transport"] == "tcp":
        return "tcp://%s%s:%s" % (_source(info["ip"]), info["ip"], port)
    return "%s://%s-%s" % (info["transport"], info["ip"], port)


def _source(ip: str) -> str:
    """Give the address to connect from, as ZMQ writes it in front of the address to connect to.

    A kernel is called until it listens, its ports are of those that the system gives to outgoing connections, and a
    socket that happens to be given the very port it calls is connected to itself: then the kernel finds its port taken
    and dies (seen at 1 in 300 starts). From another address of the loopback network that cannot happen.
    """
    return "127.0.0.2:0;" if ip == "127.0.0.1" and sys.platform == "linux" else ""
