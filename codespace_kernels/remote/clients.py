"""One client of the link (a broker) at the workspace's end: its session, its stream, its kernels' sockets."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from .. import __version__
from ..link import commands
from ..link.frames import ProtocolError
from ..link.session import ClosedByPeer, Failed, MessageReceived, Session
from .channels import KernelChannels
from .outputs import Outputs
from .reactor import Reactor
from .spool import Spool, SpoolQueue
from .streams import LinkStream

log = logging.getLogger(__name__)

STATUS_DELAY = 0.1
"""Seconds that kernels' statuses are gathered for the server: it need not wake up twice for each short execution."""


class _Kernel:
    """A kernel as this client knows it: by a number of its choice."""

    def __init__(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.channels: Optional[KernelChannels] = None
        self.outputs: Optional[Outputs] = None
        self.held: List[Any] = []


class Client:
    """Carries messages between the link and the kernels; commands go to the server.

    Args:
        reactor: The loop.
        session_id: From the client's hello.
        tell_server: Called with a JSON object for the server extension.
        spool: Where messages wait while the client is away or slow.

    Attributes:
        stream: What carries the session now; None while the client is away.
        detached_at: When the stream broke, monotonic seconds.
        gone: The client said that it will not come back.
        active: Ids of kernels that published something since somebody last looked and cleared it.
    """

    def __init__(
        self,
        reactor: Reactor,
        session_id: str,
        tell_server: Callable[[Dict[str, Any]], None],
        spool: Spool,
    ) -> None:
        self.session = Session(session_id, software=__version__, make_queue=lambda: SpoolQueue(spool))
        self.stream: Optional[LinkStream] = None
        self.detached_at = time.monotonic()
        self.gone = False
        self.active: Set[str] = set()
        self._reactor = reactor
        self._tell_server = tell_server
        self._spool = spool
        self._kernels: Dict[int, _Kernel] = {}
        self._statuses: Dict[Tuple[str, str], str] = {}
        self._tell_at: Optional[float] = None
        self._parent: Optional[bytes] = None
        self._parent_type = ""

    # -- the link -----------------------------------------------------------------------------------------------------

    def attach(self, stream: LinkStream) -> None:
        """Go on over a new stream; the old one, and the splice behind it, end."""
        self.detach()
        self.stream = stream
        self.session.attach()

    def detach(self) -> None:
        """Let go of the stream; the session waits for the next one."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
            self.detached_at = time.monotonic()
        self.session.detach()

    def receive(self, data: bytes) -> None:
        """Take bytes from the stream."""
        for event in self.session.receive_data(data, self._reactor.now):
            if isinstance(event, MessageReceived):
                self._take(event)
            elif isinstance(event, ClosedByPeer):
                self.gone = True
            elif isinstance(event, Failed):
                log.warning("link to %s: %s", self.session.session_id[:8], event.reason)
                self.flush()
                self.detach()

    def flush(self) -> None:
        """Write what the session has to send, as far as the stream takes it."""
        while self.stream is not None and self.stream.writable:
            data = self.session.data_to_send(time.monotonic())
            if not data:
                return
            self.stream.write(data)

    def next_deadline(self) -> Optional[float]:
        """When `tick` has something to do; None for never."""
        return min((at for at in (self._tell_at, self.session.next_deadline()) if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._tell_at is not None and now >= self._tell_at:
            self._tell_statuses()
        for kernel in self._kernels.values():
            if kernel.outputs is not None:
                kernel.outputs.tick()

    def close(self) -> None:
        """Let go of everything."""
        self.detach()
        for number in list(self._kernels):
            self._release(number)
        self.session.close()

    # -- from the client ----------------------------------------------------------------------------------------------

    def _take(self, message: MessageReceived) -> None:
        if message.kernel == commands.KERNEL:
            self._take_command(message.parts)
            return
        kernel = self._kernels.get(message.kernel)
        if kernel is None:
            # A client that came back to a new child sends what it had queued while its `attach` is still on its way.
            kernel = self._kernels[message.kernel] = _Kernel("")
        if kernel.channels is None:
            kernel.held.append((message.channel, message.parts))
        else:
            kernel.channels.send(message.channel, message.parts)

    def _take_command(self, parts: List[bytes]) -> None:
        try:
            request, _ = commands.decode(parts)
        except ProtocolError as error:
            log.warning("command dropped: %s", error)
            return
        if request.get("do") == "detach":
            # Before the server watches for itself: it only hears of what happens from then on.
            self._tell_statuses()
            self._release(request.get("number"))
        self._tell_server({"client": self.session.session_id, "request": request})

    # -- from the server ----------------------------------------------------------------------------------------------

    def answer(self, record: Dict[str, Any], raw: Sequence[bytes]) -> None:
        """Pass the server's answer to a command on; one that opens a kernel opens its sockets first."""
        opened = record.get("open")
        if opened is not None:
            self._open(opened["number"], opened["kernel_id"], opened["info"])
        elif "refused" in record:
            self._release(record["refused"])
        self.session.send(commands.KERNEL, commands.CHANNEL, commands.encode(record["answer"], raw))

    def event(self, record: Dict[str, Any]) -> None:
        """Act on what happened to a kernel and pass it on; nothing for a kernel that is not ours."""
        event = record["event"]
        self._statuses = {key: state for key, state in self._statuses.items() if key[0] != event["kernel_id"]}
        ours = [kernel for kernel in self._kernels.values() if kernel.kernel_id == event["kernel_id"]]
        # The server may not know yet that a process which it starts again had been given something.
        had_requests = any(kernel.channels is not None and kernel.channels.is_ready for kernel in ours)
        for kernel in ours:
            if kernel.channels is not None:
                _apply(kernel.channels, event["event"], record.get("info"))
        if ours:
            lost = {"lost": True} if had_requests and event["event"] == "restarted" else {}
            self.session.send(commands.KERNEL, commands.CHANNEL, commands.encode({**event, **lost}))

    def _open(self, number: int, kernel_id: str, info: Dict[str, Any]) -> None:
        kernel = self._kernels.setdefault(number, _Kernel(kernel_id))
        kernel.kernel_id = kernel_id
        if kernel.channels is not None:
            return

        outputs = kernel.outputs = Outputs(info, self._spool, lambda *message: self.session.send(number, *message))

        def observe(header: bytes, parent: bytes, content: bytes) -> None:
            self._observe(kernel_id, header, parent, content)

        def ready() -> None:
            self._tell_server({"ready": kernel_id})

        def taken(port: int) -> None:
            self._tell_server({"taken": kernel_id, "port": port})

        kernel.channels = KernelChannels(self._reactor, info, outputs.put, observe, ready, taken)
        for channel, parts in kernel.held:
            kernel.channels.send(channel, parts)
        kernel.held.clear()

    def _release(self, number: Any) -> None:
        if not isinstance(number, int):
            return
        kernel = self._kernels.pop(number, None)
        if kernel is not None and kernel.channels is not None:
            kernel.channels.close()
        self.session.discard(number)

    def _observe(self, kernel_id: str, header: bytes, parent: bytes, content: bytes) -> None:
        if b'"status"' not in header:
            self.active.add(kernel_id)
            return
        try:
            state = json.loads(content.decode())["execution_state"]
            if parent != self._parent:
                # A request's two statuses have the same.
                self._parent_type = str(json.loads(parent.decode()).get("msg_type", ""))
                self._parent = parent
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        request = self._parent_type
        # By type of request, since the server counts only some of them as work; the latest last.
        self._statuses.pop((kernel_id, request), None)
        self._statuses[(kernel_id, request)] = state
        if self._tell_at is None:
            self._tell_at = self._reactor.now + STATUS_DELAY

    def _tell_statuses(self) -> None:
        statuses, self._statuses, self._tell_at = self._statuses, {}, None
        for (kernel_id, request), state in statuses.items():
            self._tell_server({"kernel_id": kernel_id, "state": state, "request": request})


def _apply(channels: KernelChannels, event: str, info: Optional[Dict[str, Any]]) -> None:
    if event == "restarting":
        channels.hold()
    elif event in ("died", "ended"):
        channels.drain()
        channels.forget()
    elif event == "restarted" and info is not None:
        channels.drain()
        channels.open(info)
