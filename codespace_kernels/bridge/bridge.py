"""Local ZMQ sockets on one side, a remote kernel on the other."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge.activity import IDLE_GRACE, Activity
from codespace_kernels.bridge.backlog import Backlog
from codespace_kernels.bridge.busy_answers import BusyAnswers
from codespace_kernels.bridge.earlier import EarlierOutput
from codespace_kernels.bridge.gate import LocalGate
from codespace_kernels.bridge.homecoming import Homecoming
from codespace_kernels.bridge.late_answers import LateAnswers
from codespace_kernels.bridge.local_messages import LocalMessages
from codespace_kernels.bridge.lost_answers import LostAnswers
from codespace_kernels.bridge.lost_way import LostWay, LostWayLine, LostWayNotes
from codespace_kernels.bridge.notebook_name import NotebookName
from codespace_kernels.bridge.person_watch import PersonWatch
from codespace_kernels.bridge.probe import BusyProbe
from codespace_kernels.bridge.request_log import RequestLog
from codespace_kernels.bridge.requests import LifecycleRequests, RequestHandler, RequestQueue, no_kernel
from codespace_kernels.bridge.sockets import LocalSockets, Ports
from codespace_kernels.bridge.standin import StandIn
from codespace_kernels.bridge.stats import BridgeStats
from codespace_kernels.bridge.unattended import UnattendedKernel, is_reply_to_run_of
from codespace_kernels.bridge.waiting_line import WaitingLine
from codespace_kernels.bridge.waiting_notes import WaitingNotes
from codespace_kernels.errors import KernelStartError, SettingsError
from codespace_kernels.messages import Channel, MalformedMessageError, Message, Signer
from codespace_kernels.remote_kernel import KernelState, no_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from codespace_kernels.bridge.owner import BridgeOwner
    from codespace_kernels.bridge.request_log import OpenRequest
    from codespace_kernels.bridge.takings import Takings
    from codespace_kernels.bridge.waiting_line import WaitingState
    from codespace_kernels.remote_kernel import RemoteKernel, Token
    from codespace_kernels.zmtp.curve import CurveKeys

_log = logging.getLogger(__name__)


class KernelBridge:
    """Makes a remote kernel look like a local one.

    Made by `bind`. All methods are called on the event loop that made it.

    What it is given by clients is checked with the local key; what clients get is signed with it. Messages keep their
    order on each channel, and their routing identities. Heartbeats are always answered. `interrupt_request` and
    `shutdown_request` are answered here. While no kernel is attached, requests wait in order (see `RequestQueue`); from
    `stand_in` on, those that need no kernel are answered here (see `StandIn`).
    """

    def __init__(
        self,
        sockets: LocalSockets,
        signer: Signer,
        owner: BridgeOwner | None,
        idle_grace: float,
        *,
        in_terminal: bool,
        replaces_output: bool,
        requests: RequestLog | None = None,
    ) -> None:
        self._sockets = sockets
        self._signer = signer
        self._owner = owner
        self._gate = LocalGate(signer)
        self._queue = RequestQueue()
        self._messages = LocalMessages()
        self._requests = requests = requests or RequestLog()
        self._finished: list[str] = []
        self._activity = Activity(
            self._execution_state_changed,
            self._idle_lost,
            lambda: self._kernel is not None and self._kernel.is_receiving,
            idle_grace=idle_grace,
            begun=requests.begun,
            finished=self._request_finished,
        )
        self._lifecycle = LifecycleRequests(self._messages, self._send, self.interrupt, self._shutdown_requested)
        self._late = LateAnswers()
        self._lost_answers = LostAnswers(
            self._activity,
            self._messages,
            self._send,
            lambda: self._ask_kernel_info(self._kernel) if self._kernel is not None else None,
            log=requests,
        )
        self._busy_answers = BusyAnswers(self._messages, self._send, self._pass_on, self._activity, self._late)
        self._earlier = EarlierOutput(self._messages, self._send, lambda: self._busy_answers.active)
        self._handlers: list[RequestHandler] = [
            self._lifecycle,
            NotebookName(self._notebook_named),
            PersonWatch(self._person_acted),
        ]
        line = (WaitingNotes if in_terminal else WaitingLine)(self._messages, self._send)
        self._stand_in = StandIn(
            self._messages, self._send, self._queue, self._activity, self._late, self._run_waits, line
        )
        lasting: LostWayLine | LostWayNotes | None = None
        if in_terminal or replaces_output:
            lasting = (LostWayNotes if in_terminal else LostWayLine)(self._messages, self._send)
        self._lost_way = LostWay(self._activity, owner, lasting)
        self._question: Message | None = None
        self._kernel: RemoteKernel | None = None
        self._coming: RemoteKernel | None = None
        self._closed = False
        self._to_kernel = dict.fromkeys((Channel.SHELL, Channel.CONTROL, Channel.STDIN), 0)
        self._to_clients = dict.fromkeys(Channel, 0)
        self._gaps = 0
        self._last_activity = time.time()
        self._homecoming = Homecoming()
        self._probe = BusyProbe(self._activity, self._messages)
        self._backlog = Backlog(lambda parent, text: self._tell([parent], text), lambda: sockets.waiting)
        sockets.start(self._frames_received, self._subscription_received)

    @classmethod
    async def bind(
        cls,
        *,
        key: bytes,
        signature_scheme: str = "hmac-sha256",
        ports: Ports | None = None,
        ip: str = "127.0.0.1",
        owner: BridgeOwner | None = None,
        idle_grace: float = IDLE_GRACE,
        in_terminal: bool = False,
        replaces_output: bool = True,
        curve: CurveKeys | None = None,
        requests: RequestLog | None = None,
        takings: Takings | None = None,
    ) -> KernelBridge:
        """Open the local sockets; from then on clients may connect and send.

        Args:
            key: The connection file's key; empty switches signatures off.
            signature_scheme: `hmac-` and a digest.
            ports: Exactly these, as VS Code's connection file names them; None takes free ones (see `connection_info`).
            ip: Address to listen on.
            owner: Told what clients ask for and what the kernel does.
            idle_grace: Seconds of silence after which an answered request whose `idle` was lost counts as done.
            in_terminal: Whether clients print what they are told, so that nothing can be replaced.
            replaces_output: Whether they replace a display in place; those that only collect outputs would keep what
                such a display showed last.
            curve: The connection file's keys, where clients use CurveZMQ.
            requests: Where open requests are written down, for the process after this one.
            takings: Where it is noted what is handed to clients.

        Raises:
            SettingsError: A port is taken, the scheme is unknown, or the key cannot stand in a connection file.
        """
        try:
            key.decode()
            signer = Signer(key, signature_scheme)
        except UnicodeDecodeError:
            raise SettingsError("A kernel's key must be UTF-8 text: it stands in a JSON file.") from None
        except ValueError as error:
            raise SettingsError(f"The connection file cannot be used: {error}.") from None
        sockets = LocalSockets(ip, ports, curve, takings)
        return cls(
            sockets,
            signer,
            owner,
            idle_grace,
            in_terminal=in_terminal,
            replaces_output=replaces_output,
            requests=requests,
        )

    def __repr__(self) -> str:
        return f"<KernelBridge {self._sockets.ip}:{self._sockets.ports.shell} {self._activity.state}>"

    @property
    def connection_info(self) -> dict[str, Any]:
        """The content of a connection file, ready for JSON: `key` is text; a provisioner must hand it on as bytes."""
        curve = self._sockets.curve
        keys = dict(zip(("curve_publickey", "curve_secretkey"), curve.to_text(), strict=True)) if curve else {}
        return {
            **keys,
            **self._sockets.ports.to_connection_info(),
            "ip": self._sockets.ip,
            "transport": "tcp",
            "key": self._signer.key.decode(),
            "signature_scheme": self._signer.scheme,
        }

    @property
    def stats(self) -> BridgeStats:
        """What passed so far, and what the kernel is doing."""
        return BridgeStats(
            to_kernel={channel.name.lower(): count for channel, count in self._to_kernel.items()},
            to_clients={channel.name.lower(): count for channel, count in self._to_clients.items()},
            wrong_signature=self._gate.wrong_signature,
            malformed=self._gate.malformed,
            duplicates=self._gate.duplicates,
            overflowed=self._queue.overflowed,
            gaps=self._gaps,
            last_activity=self._last_activity,
            execution_state=self._activity.state,
            pending_requests=len(self._activity.pending),
            queued_requests=len(self._queue),
        )

    @property
    def at_work(self) -> bool:
        """Whether the kernel does something that a person asked for."""
        return self._activity.at_work

    @property
    def busy(self) -> bool:
        """Whether the kernel executes something, as far as is known."""
        return self._activity.state == "busy"

    @property
    def waiting(self) -> RequestQueue:
        """The requests that wait for a kernel."""
        return self._queue

    @property
    def has_waiting_runs(self) -> bool:
        """Whether a person's run waits for a kernel, as far as the stand-in knows."""
        return self._stand_in.has_runs

    @property
    def is_coming(self) -> bool:
        """Whether a kernel is attached that has not answered yet, so that the stand-in still answers for it."""
        return self._coming is not None

    def attach(self, kernel: RemoteKernel) -> None:
        """Connect the clients with a kernel; what they asked before is handed over first, in order.

        Where the stand-in answered clients, the kernel is asked for its `kernel_info` before that, as they would have
        done: what it says while it comes up would else be taken for output of the first cell (measured with ipykernel,
        whose debugger warns on stderr).
        """
        self.detach()
        self._activity.revived()
        if self._stand_in.active:
            self._coming = kernel
            kernel.listen(self)
            self._ask_kernel_info(kernel)
        else:
            self._kernel = kernel
            kernel.listen(self)
            self._hand_over(kernel)

    def _ask_kernel_info(self, kernel: RemoteKernel) -> str:
        """Ask in our own name; give the request's id."""
        request = self._messages.request("kernel_info_request")
        msg_id = str(request.header_dict()["msg_id"])
        self._late.expect(msg_id)
        self._forward(kernel, Channel.SHELL, request)
        return msg_id

    def _hand_over(self, kernel: RemoteKernel) -> None:
        self._coming, self._kernel = None, kernel
        self._stand_in.kernel_came()
        for channel, message in self._queue.take_all():
            self._forward(kernel, channel, message)

    def detach(self) -> None:
        """Let go of the kernel, without ending it; requests wait again. Detaching twice is no error."""
        kernel = self._kernel or self._coming
        if kernel is not None:
            kernel.listen(None)
            self._kernel = self._coming = None
            self._lost_way.forget()
            self._forget_requests()

    def _forget_requests(self) -> None:
        """Expect no answers of a kernel's process that is gone, and ask none of its questions any more."""
        self._late.clear()
        self._lost_answers.forget()
        self._question = None
        self._sockets.forget(Channel.STDIN)
        self._earlier.reset()

    def leave(self) -> UnattendedKernel | None:
        """Let go of the kernel and have it listened to without clients; None where there is none."""
        if self._coming is not None:
            self._hand_over(self._coming)
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return None
        self._lost_way.forget()
        unattended = UnattendedKernel(kernel, self._activity, self._earlier.store, self._question)
        unattended.lost_answers.take_over(self._lost_answers)
        kernel.listen(unattended)
        return unattended

    def take_back(self, unattended: UnattendedKernel, kernel_info: Mapping[str, Any]) -> None:
        """Connect the clients with a kernel that went on without any; its output is shown at the first run.

        Args:
            unattended: The kernel; it lives.
            kernel_info: The content of the `kernel_info_reply`, for as long as the kernel is busy with an earlier run.
        """
        self.detach()
        self._lost_answers.take_over(unattended.lost_answers)
        unattended.close()
        self._activity.take_over(unattended.activity)
        self._busy_answers.begin(kernel_info, unattended.activity.unfinished)
        self.show_earlier(unattended)
        self._question = unattended.question
        self._kernel = unattended.kernel
        self._kernel.listen(self)
        self._hand_over(self._kernel)

    def resume(self, kernel: RemoteKernel, requests: Iterable[OpenRequest] = ()) -> None:
        """Go on with a kernel that another process had connected with the same clients, who are about to come back.

        Args:
            kernel: The kernel.
            requests: What it was handed and had not answered yet.
        """
        self.detach()
        self._homecoming.begin()
        self._lost_answers.restore(requests)
        if self._sockets.has_inherited:
            self._homecoming.subscribed()
        self._probe.begin()
        self._kernel = kernel
        kernel.listen(self)
        self._hand_over(kernel)

    def show_earlier(self, unattended: UnattendedKernel) -> None:
        """Show at the first run what a kernel wrote while there was no client, and if it died, why."""
        self._earlier.begin(unattended.output, unattended.question, unattended.reason)

    def tell_next_run(self, text: str) -> None:
        """Say something of ours in the first cell that is run in the next kernel."""
        self._earlier.announce(text)

    def stand_in(self, kernel_info: Mapping[str, Any]) -> None:
        """Answer in the kernel's place what needs no kernel, until one is attached.

        Args:
            kernel_info: The content of the `kernel_info_reply`.
        """
        if self._kernel is None and not self._closed:
            self._stand_in.begin(kernel_info)

    def tell_waiting(self, state: WaitingState) -> None:
        """Show in the cell that waits for the kernel what it waits for; the time that passes is shown, too."""
        self._stand_in.tell(state)

    def fail_waiting(self, error: Exception) -> bool:
        """End the runs that wait for the kernel with an error; tells whether there were any."""
        return self._stand_in.fail(type(error).__name__, str(error))

    def forget_waiting(self) -> None:
        """Stand in no more, and drop what waits for a kernel: it is given up, or one comes that is a restarted one."""
        self._stand_in.forget()

    async def hand_over(self) -> None:
        """Let go of the kernel and its clients, for another process to go on with them; what waits for them stays."""
        kernel = self._kernel or self._coming
        if kernel is not None:
            kernel.listen(None)
            self._kernel = self._coming = None
        if not self._closed:
            self._lost_way.forget()
            self._stand_in.end()
            self._sockets.leave()
        await self.close()

    async def close(self) -> None:
        """Free the ports and everything else; the kernel is let go of, not ended. Closing twice is no error."""
        if not self._closed:
            self.detach()
            self._stand_in.end()
            self._closed = True
            self._homecoming.close()
            self._activity.close()
            await self._lifecycle.close()
        self._sockets.close()

    # From local clients.

    def _subscription_received(self, topic: bytes) -> None:
        self._homecoming.subscribed()
        self._send(Channel.IOPUB, self._messages.welcome(topic))

    def _frames_received(self, channel: Channel, frames: list[bytes]) -> bool:
        taken = self._gate.take(channel, frames)
        if taken is not None:
            self._request_received(channel, *taken)
        return taken is not None

    def repeat(self, requests: Iterable[tuple[Channel, Message]]) -> None:
        """Take requests that waited at another process, as if their clients sent them now."""
        for channel, message in requests:
            self._request_received(channel, message, message.header_dict())

    def _request_received(self, channel: Channel, message: Message, header: Mapping[str, Any]) -> None:
        self._last_activity = time.time()
        msg_type, msg_id = str(header.get("msg_type", "")), str(header.get("msg_id", ""))
        if any(handler.handle(channel, message, msg_type) for handler in self._handlers):
            return
        if self._kernel is None and self._stand_in.handle(channel, message, msg_type):
            return
        if self._kernel is not None and self._busy_answers.handle(channel, message, msg_type):
            return
        self._activity.requested(msg_id, msg_type, message.header)
        self._lost_way.requested(msg_type)
        if self._kernel is not None:
            self._forward(self._kernel, channel, message)
        elif not self._queue.put(channel, message):
            self._activity.forgotten(msg_id)

    def _forward(self, kernel: RemoteKernel, channel: Channel, message: Message) -> None:
        if self._earlier.active:
            self._earlier.requested(channel, message)
        if channel is Channel.STDIN:
            self._question = None
        elif not self._late.waits_for(message):
            self._lost_answers.requested(channel, message)
        self._to_kernel[channel] += 1
        kernel.send(channel, message)

    def _pass_on(self, channel: Channel, message: Message) -> None:
        if self._kernel is not None:
            self._forward(self._kernel, channel, message)

    async def interrupt(self) -> None:
        """Interrupt the kernel; while there is none, the runs that wait for it.

        Raises:
            KernelError: There is no kernel and no stand-in, or the kernel is gone.
            WaitTimeoutError: No answer in time.
        """
        if self._kernel is not None:
            self._sockets.forget(Channel.STDIN)
            await self._kernel.interrupt()
        elif not self._stand_in.active:
            raise no_kernel()
        elif self._stand_in.interrupt() and self._owner is not None:
            self._owner.waiting_interrupted()

    def _run_waits(self) -> None:
        if self._owner is not None:
            self._owner.run_waits()

    def _shutdown_requested(self, restart: bool, session: str) -> None:
        if self._owner is not None:
            self._owner.shutdown_requested(restart=restart, session=session)

    def _person_acted(self) -> None:
        if self._owner is not None:
            self._owner.person_acted()

    def _notebook_named(self, path: str) -> None:
        if self._owner is not None:
            self._owner.notebook_named(path)

    # From the kernel (`RemoteKernelListener`).

    def message_received(self, channel: Channel, message: Message, done: Callable[[], None] = no_receipt) -> None:
        """Carry a message of the kernel to the client that asked, or to all (iopub)."""
        self._last_activity = time.time()
        try:
            if channel is Channel.IOPUB:
                wanted = self._activity.published(message)
                self._lost_answers.published(message)
            else:
                wanted = True
                if channel is Channel.STDIN:
                    self._question = message
                else:
                    self._replied(message)
            if self._late and self._late.holds_back(message):
                wanted = False
            elif self._earlier.active and self._earlier.takes(channel, message, done):
                return
        except MalformedMessageError as error:
            self._gate.malformed += 1
            _log.warning("dropped a message of the kernel on %s: %s", channel.name.lower(), error)
            done()
            return
        if wanted and (channel is not Channel.IOPUB or self._backlog.takes(message)):
            self._send(channel, message, done)
        else:
            done()

    def _replied(self, message: Message) -> None:
        self._activity.replied(message)
        self._lost_answers.replied(message)
        self._probe.replied(message)
        self._learn(message)
        if self._question is not None and is_reply_to_run_of(self._question, message):
            self._question = None

    def _learn(self, message: Message) -> None:
        if b"kernel_info_reply" not in message.header:
            return
        content = message.content_dict()
        if self._owner is not None and content.get("status") == "ok":
            self._owner.kernel_info_received(content)
        if self._coming is not None:
            self._hand_over(self._coming)

    def state_changed(self, state: KernelState, reason: str) -> None:
        """Hear what the carrier knows of the kernel; see `RemoteKernelListener`."""
        self._follow_way(state)
        if state is KernelState.RESTARTING:
            self._probe.end()
            self._activity.reset("starting")
            if self._coming is None:
                self._forget_requests()
        elif state is KernelState.DEAD:
            self.tell_running(reason)
            self._coming = None
            self._stand_in.fail(KernelStartError.__name__, reason)
            self._forget_requests()
            self._probe.end()
            self._activity.reset("dead")
        elif state is KernelState.ALIVE:
            self._activity.revived()
            if self._coming is not None:
                # The process that was asked may be gone.
                self._ask_kernel_info(self._coming)
            elif self._kernel is not None and (asked := self._probe.ask(self._kernel)):
                self._late.expect(asked)
                self._lost_answers.probed(asked)
        if self._owner is not None:
            self._owner.kernel_state_changed(state, reason)

    def _follow_way(self, state: KernelState) -> None:
        self._activity.connected(state is not KernelState.RECONNECTING)
        if state is KernelState.RECONNECTING:
            self._lost_way.lost()
        elif state is KernelState.DEAD:
            self._lost_way.forget()
        else:
            self._lost_way.found()

    def output_may_be_missing(self, reason: str) -> None:
        """Tell it in the cells that are running or waiting; see `RemoteKernelListener`."""
        self._gaps += 1
        _log.warning("output may be missing: %s", reason)
        self._tell(self._lost_answers.to_tell, f"Output may be missing: {reason}")
        self._lost_answers.output_is_missing()

    def tell_running(self, reason: str) -> None:
        """Say in the cell that runs why its kernel is about to be gone: front ends say only that it is."""
        self._tell(self._activity.running_executions, reason)

    def _tell(self, requests: Iterable[bytes], text: str) -> None:
        """Say something of ours in cells."""
        content = {"name": "stderr", "text": f"[codespace-kernels] {text}\n"}
        for parent in requests if text else ():
            self._send(Channel.IOPUB, self._messages.published("stream", parent, content))

    # To local clients.

    def _request_finished(self, msg_id: str) -> None:
        if self._requests.idle(msg_id):
            self._finished.append(msg_id)

    def _send(self, channel: Channel, message: Message, done: Callable[[], None] = no_receipt) -> None:
        if self._finished and channel is Channel.IOPUB:
            # This says so to clients, or comes right behind what was not for them.
            done = _Delivery(done, functools.partial(self._requests.delivered, self._finished[-1]))
            self._finished.clear()
        if not self._homecoming.holds(functools.partial(self._send_now, channel, message, done)):
            self._send_now(channel, message, done)

    def _send_now(self, channel: Channel, message: Message, done: Callable[[], None]) -> None:
        frames = self._gate.give(channel, message)
        if self._closed:
            return
        if frames is not None:
            self._to_clients[channel] += 1
            if channel is not Channel.IOPUB and self._homecoming.is_recent:
                self._sockets.expect(frames[0])
            self._sockets.send(channel, frames, done)
        else:
            # Nobody will ever get it.
            done()

    def _execution_state_changed(self, state: str) -> None:
        if self._owner is not None:
            self._owner.execution_state_changed(state)

    def _idle_lost(self, request: bytes) -> None:
        self._gaps += 1
        _log.warning("a kernel answered a request, but its closing idle never came; told the clients that it is idle")
        self._tell([request], "Output may be missing: the kernel answered, but did not say that this is all.")
        idle = self._messages.status("idle", request)
        self._earlier.finished(str(idle.parent_dict().get("msg_id", "")))
        self._send(Channel.IOPUB, idle)


class _Delivery:
    """A receipt that is heard of here, too."""

    __slots__ = ("_done", "_then", "token")

    def __init__(self, done: Callable[[], None], then: Callable[[], None]) -> None:
        self.token: Token | None = getattr(done, "token", None)
        self._done = done
        self._then = then

    def __call__(self) -> None:
        self._done()
        self._then()
