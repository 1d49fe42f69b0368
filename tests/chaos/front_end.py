"""A front end: its own sockets and session, every message of every channel looked at."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import zmq
from jupyter_client.session import Session

from .cells import Item
from .views import View, ViolationError, expect

COMM_MESSAGE = "comm message"
"""The kind of request for which ipykernel publishes no statuses where it is about to be done with another one."""

ONLY_WHERE_TOLD = "the broker died or ended with more than 8 MiB on their way to a front end"
"""An excuse for cells that say so; what comes of others must be whole."""

_TURN = 100
"""Messages that are taken before others of the loop have their turn."""


class Channel:
    """One socket. Plain ZMQ: what is sent on a `zmq.asyncio` socket while somebody waits on it may wake nobody."""

    def __init__(
        self, context: zmq.Context[Any], kind: int, url: str, identity: bytes, take: Callable[[list[bytes]], None]
    ) -> None:
        self._socket = context.socket(kind)
        self._socket.hwm = 0
        self._socket.linger = 0
        if kind == zmq.SUB:
            self._socket.subscribe(b"")
        else:
            self._socket.identity = identity
        self._socket.connect(url)
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(self._socket.get(zmq.FD))
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.call_soon(self._drain)

    def send(self, session: Session, message: dict[str, Any], buffers: list[bytes]) -> None:
        """Send a message."""
        session.send(self._socket, message, buffers=buffers)
        self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Free it."""
        self._loop.remove_reader(self._descriptor)
        self._socket.close()

    def _drain(self) -> None:
        for _ in range(_TURN):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(frames)
        self._loop.call_soon(self._drain)


@dataclasses.dataclass
class Request:
    """Something that a front end asked of a kernel.

    Attributes:
        msg_id: Its id.
        kind: For the counts.
        code: Of an execution; None for others.
        wanted: What must be shown of it.
        answers: To its questions; they are taken from here.
        status: Of the reply; None where there is none.
        asker: Who asked.
        views: What each front end saw that was there when it was asked.
        excused: Why something of it may be missing, if that is told.
        interrupted: Whether the kernel was interrupted meanwhile, which it may show.
    """

    msg_id: str
    kind: str
    code: str | None
    wanted: list[Item]
    answers: list[str]
    status: str | None
    asker: FrontEnd
    views: dict[FrontEnd, View]
    excused: str = ""
    interrupted: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing of it is missing that ends it."""
        if self.kind == COMM_MESSAGE:
            return all(view.idle or (view.items and not view.statuses) for view in self.views.values())
        replied = self.status is None or bool(self.views[self.asker].replies)
        return replied and all(view.idle for view in self.views.values())

    @property
    def may_be_gone(self) -> bool:
        """Whether it was lost on its way and nobody waits for it: there is no reply, and the kernel never took it."""
        taken = any(view.statuses and not view.idle for view in self.views.values())
        return self.may_be_lost and self.status is None and not taken

    @property
    def may_be_lost(self) -> bool:
        """Whether it, or its answers, may have been lost without a word."""
        return self.excused not in {"", ONLY_WHERE_TOLD}

    def check(self) -> None:
        """Check all that came of it.

        Raises:
            ViolationError: Something is not as it must be.
        """
        for number, (front, view) in enumerate(self.views.items()):
            replies = int(self.status is not None and front is self.asker)
            wanted = [item for item in self.wanted if front is self.asker or item[0] != "question"]
            try:
                self._check_view(view, wanted, replies)
            except ViolationError as error:
                excused = f"; excused: {self.excused}, told {view.told}" if self.excused else ""
                raise ViolationError(f"{self.kind}, seen by front end {number}: {error}{excused}") from None

    def _check_view(self, view: View, wanted: list[Item], replies: int) -> None:
        if self.may_be_lost or (self.excused and view.told):
            # What a widget sends has no cell in which something could be told.
            view.check_gap(wanted, told=not self.kind.startswith("comm "), interrupted=self.interrupted)
            return
        if self.kind != COMM_MESSAGE or view.statuses:
            view.check_frame(self.code, replies=replies, status=self.status or "ok")
        view.check_shown(wanted)
        expect("what the product says in a cell that has everything", view.told, [])


class FrontEnd:
    """One client of a kernel.

    Args:
        context: Of ZMQ.
        info: The connection file's content.
        requests: Of the kernel, by id; all its front ends share them.
        violated: Called with what is wrong with a message that belongs nowhere.

    Attributes:
        subscribed: Set once the bridge has greeted it.
        interrupting: Whether an interrupt was not answered yet.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        info: Mapping[str, Any],
        requests: dict[str, Request],
        violated: Callable[[ViolationError], None],
    ) -> None:
        key = info["key"]
        self.session = Session(key=key if isinstance(key, bytes) else key.encode(), username="chaos")
        self.subscribed = asyncio.Event()
        self.interrupting = False
        self._requests = requests
        self._violated = violated
        self._shell = self._connect(context, info, "shell", zmq.DEALER, self._replied)
        self._control = self._connect(context, info, "control", zmq.DEALER, self._controlled)
        self._stdin = self._connect(context, info, "stdin", zmq.DEALER, self._asked)
        self._iopub = self._connect(context, info, "iopub", zmq.SUB, self._published)

    def close(self) -> None:
        """Leave."""
        for channel in (self._shell, self._control, self._stdin, self._iopub):
            channel.close()

    def message(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Make a message."""
        return dict(self.session.msg(kind, content))

    def send(self, message: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        """Send a request on shell."""
        self._shell.send(self.session, message, buffers or [])

    def interrupt(self) -> None:
        """Interrupt the kernel."""
        self.interrupting = True
        self._control.send(self.session, self.message("interrupt_request", {}), [])

    def _connect(
        self, context: zmq.Context[Any], info: Mapping[str, Any], name: str, kind: int, take: Callable[[Any], None]
    ) -> Channel:
        def receive(frames: list[bytes]) -> None:
            try:
                _, parts = self.session.feed_identities(frames)
                message = self.session.deserialize(parts)
            except ValueError as error:  # a signature that is wrong, or was seen already
                self._violated(ViolationError(f"a message on {name} was not to be read: {error}"))
                return
            try:
                take(message)
            except ViolationError as error:
                self._violated(error)

        url = f"tcp://{info['ip']}:{info[f'{name}_port']}"
        return Channel(context, kind, url, self.session.bsession, receive)

    def _view_of(self, message: dict[str, Any]) -> View | None:
        """Give where a message belongs; None where this front end may have come amid the request."""
        request = self._requests.get(message["parent_header"].get("msg_id", ""))
        if request is None:
            raise ViolationError(f"a message belongs to no request, or to one that was over: {_brief(message)}")
        return request.views.get(self)

    def _published(self, message: dict[str, Any]) -> None:
        kind = message["msg_type"]
        if kind == "iopub_welcome":
            self.subscribed.set()
        elif message["parent_header"].get("msg_type") not in ("kernel_info_request", "interrupt_request", None):
            view = self._view_of(message)
            if view is not None:
                view.published(message)
        elif kind != "status":
            raise ViolationError(f"a kernel says what nobody asked for: {_brief(message)}")

    def _replied(self, message: dict[str, Any]) -> None:
        view = self._view_of(message)
        if view is None:
            raise ViolationError(f"a reply came to a front end that was not there: {_brief(message)}")
        view.replies.append(message["content"])

    def _controlled(self, message: dict[str, Any]) -> None:
        self.interrupting = False

    def _asked(self, message: dict[str, Any]) -> None:
        self._view_of(message)
        request = self._requests[message["parent_header"]["msg_id"]]
        if request.asker is not self:
            raise ViolationError(f"a question came to another front end: {_brief(message)}")
        request.views[self].asked(message)
        if not request.answers:
            raise ViolationError(f"a question too many: {_brief(message)}")
        answer = self.session.msg("input_reply", {"value": request.answers.pop(0)})
        self._stdin.send(self.session, dict(answer), [])


def _brief(message: dict[str, Any]) -> str:
    parent = message["parent_header"]
    return f"{message['msg_type']} {str(message['content'])[:200]} of {parent.get('msg_type')} {parent.get('msg_id')}"
