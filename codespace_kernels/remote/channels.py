"""The sockets of one kernel for one client of the link."""

from __future__ import annotations

import functools
import uuid
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, Type

from .kernel_socket import KernelSocket
from .probe import DELIMITER, IDENTITY, Probe
from .reactor import Reactor, Timer
from .zmtp_socket import ZmtpSocket

SHELL, IOPUB, STDIN, CONTROL = 1, 2, 3, 4

FLOOD_MESSAGES = 32
FLOOD_SECONDS = 0.01
PAUSE = 0.002
"""A kernel that publishes so many messages in so short a time is read in intervals of `PAUSE` seconds.

What it sends meanwhile comes at once: the processes on the way wake up a tenth as often, and leave the processor to the
kernels. The system's buffers hold what is sent in so short a time.
"""

_CHANNELS = (("shell", SHELL), ("iopub", IOPUB), ("stdin", STDIN), ("control", CONTROL))
_PROBING, _READY, _HOLDING, _CLOSED = range(4)


class KernelChannels:
    """Carries raw multiparts between a kernel and a client.

    Requests are held until a `Probe` says that the subscription to iopub is in place.

    The client's routing identities stand between the DEALER's own, which the kernel's ROUTER adds, and the delimiter.
    Kernels send a request's identities back whole, so they return to the client's bridge, which routes by them. Shell
    and stdin share the DEALER's identity: an `input_request` is addressed with the identities of the execute request.

    Args:
        reactor: The loop.
        info: A connection file's content (with CurveZMQ keys where the kernel uses them).
        deliver: Called with channel and parts of each message from the kernel.
        observe: Called with the header, parent and content frames of each iopub message.
        ready: Called each time that a process is about to be given its first request.
        taken: Called with the iopub channel's port when another program has it, and the process is waited for.
    """

    def __init__(
        self,
        reactor: Reactor,
        info: Dict[str, Any],
        deliver: Callable[[int, List[bytes]], None],
        observe: Callable[[bytes, bytes, bytes], None],
        ready: Callable[[], None],
        taken: Callable[[int], None] = lambda port: None,
    ) -> None:
        self._reactor = reactor
        self._deliver = deliver
        self._observe = observe
        self._ready = ready
        self._taken = taken
        self._identity = b""
        self._sockets: Dict[int, KernelSocket] = {}
        self._held: Deque[Tuple[int, List[bytes]]] = deque()
        self._state = _CLOSED
        self._pause: Optional[Timer] = None
        self._probe_timer: Optional[Timer] = None
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
        self._plan()

    def close(self) -> None:
        """Close the sockets. Requests are dropped now: what was meant for a dead process must not reach the next."""
        self._state = _CLOSED
        for timer in (self._pause, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self._pause = self._probe_timer = None
        for socket in self._sockets.values():
            socket.close()
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
        for socket in self._sockets.values():
            socket.drain()

    def send(self, channel: int, parts: List[bytes]) -> None:
        """Give a client's message to the kernel."""
        if self._state in (_PROBING, _HOLDING):
            self._held.append((channel, parts))
        elif self._state == _READY and channel in (SHELL, STDIN, CONTROL) and parts:
            self._send(channel, parts)

    @property
    def is_paused(self) -> bool:
        """Whether what the kernel publishes is left to wait for a moment."""
        return self._pause is not None

    def _plan(self) -> None:
        """See to it that what the probe waits for does not last for ever."""
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        times = [at for at in (self._probe.ask_at, self._probe.ready_at) if at is not None]
        if self._state == _PROBING and times:
            self._probe_timer = self._reactor.call_at(min(times), self._go_on)

    def _go_on(self) -> None:
        self._probe_timer = None
        if self._state != _PROBING:
            return
        now = self._reactor.now
        if self._probe.ready_at is not None and now >= self._probe.ready_at:
            self._release()
        elif self._probe.ask_at is not None and now >= self._probe.ask_at:
            self._ask(self._answering)
        self._plan()

    # -- sockets ------------------------------------------------------------------------------------------------------

    def _connect(self, name: str, channel: int) -> KernelSocket:
        make = _kind_of_socket(self._info)
        if channel == IOPUB:
            callbacks = (self._take_iopub, self._subscribed, self._found_another)
            return make(self._reactor, self._info, name, None, *callbacks)
        return make(self._reactor, self._info, name, self._identity, functools.partial(self._take, channel))

    def _found_another(self) -> None:
        # Of all ports that a kernel may find taken, this is the one over which ipykernel 7 hangs where it should end.
        if self._state == _PROBING:
            self._taken(self._info["iopub_port"])

    def _subscribed(self) -> None:
        self._probe.connected()
        self._plan()

    def _ask(self, channel: int) -> None:
        self._send(channel, self._probe.question())

    def _send(self, channel: int, parts: List[bytes]) -> None:
        self._sockets[channel].send(parts)

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

    def _count(self) -> None:
        now = self._reactor.now
        if now - self._counted_since > FLOOD_SECONDS:
            self._counted_since, self._counted = now, 0
        self._counted += 1
        if self._counted >= FLOOD_MESSAGES and self._pause is None:
            self._sockets[IOPUB].pause()
            self._pause = self._reactor.call_at(now + PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._sockets[IOPUB].resume()

    def _take(self, channel: int, parts: List[bytes]) -> None:
        if parts[0] == IDENTITY:
            self._answering = channel
            self._take_answer(parts)
        else:
            self._deliver(channel, parts)

    def _take_iopub(self, parts: List[bytes]) -> None:
        if self._state == _PROBING:
            self._probe.published()
            self._release_if_ready()
        elif self._state == _READY:
            self._count()
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
        self._plan()


def _kind_of_socket(info: Dict[str, Any]) -> Type[KernelSocket]:
    if info.get("curve_publickey") and info.get("curve_secretkey"):
        # Loads libzmq, which few need.
        from .curve_socket import CurveSocket

        return CurveSocket
    return ZmtpSocket
