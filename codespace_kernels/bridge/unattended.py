"""A kernel that goes on while no client is connected to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from codespace_kernels.bridge.activity import Activity
from codespace_kernels.bridge.earlier import OutputStore
from codespace_kernels.bridge.local_messages import LocalMessages
from codespace_kernels.bridge.lost_answers import LostAnswers
from codespace_kernels.bridge.probe import BusyProbe
from codespace_kernels.messages import Channel, MalformedMessageError
from codespace_kernels.remote_kernel import KernelState, no_receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.messages import Message
    from codespace_kernels.remote_kernel import RemoteKernel

_log = logging.getLogger(__name__)


def is_reply_to_run_of(question: Message, reply: Message) -> bool:
    """Tell whether a reply ends the run that asked a question: nobody waits for an answer then."""
    return reply.parent_dict().get("msg_id") == question.parent_dict().get("msg_id")


class UnattendedKernel:
    """Listens to a kernel in a bridge's place: what it writes is kept, what it does is known.

    Made by `KernelBridge.leave`; `KernelBridge.take_back` ends it. What changes the screen of a widget is not kept:
    front ends ask a kernel for its widgets' state when they connect.

    Args:
        kernel: The kernel.
        activity: What it was doing.
        output: What it wrote for clients that are gone, and nobody has seen yet.
        question: An `input_request` that nobody has answered.

    Attributes:
        kernel: The kernel.
        probe: Asks a kernel that was restored whether it works.
        lost_answers: Ends what the kernel seems to be busy with after a gap, though it is not.
        output: What it wrote.
        question: As above.
        changed: Called when it dies, and when it becomes busy or idle.
        alive: Whether it lives, as far as is known.
        within_reach: Whether the way to it is whole.
        reason: Why not; a sentence.
    """

    def __init__(self, kernel: RemoteKernel, activity: Activity, output: OutputStore, question: Message | None) -> None:
        self.kernel = kernel
        self.output = output
        self.question = question
        self._question_answered: Callable[[], None] = no_receipt
        self.alive = True
        self.reason = ""
        self.within_reach = True
        self.changed: Callable[[], None] = lambda: None
        self.activity = Activity(lambda _state: self.changed(), lambda _request: None, lambda: kernel.is_receiving)
        self.activity.take_over(activity)
        self._messages = LocalMessages()
        self.probe = BusyProbe(self.activity, self._messages)
        self.lost_answers = LostAnswers(self.activity, self._messages, self._show, self._ask)

    @classmethod
    def restored(cls, kernel: RemoteKernel) -> UnattendedKernel:
        """Make one for a kernel that another process has left; it counts as busy until it answers."""
        nothing = Activity(lambda _state: None, lambda _request: None)
        restored = cls(kernel, nothing, OutputStore(), None)
        restored.probe.begin()
        return restored

    @property
    def busy(self) -> bool:
        """Whether the kernel is executing something."""
        return self.alive and self.activity.state == "busy"

    def message_received(self, channel: Channel, message: Message, done: Callable[[], None] = no_receipt) -> None:
        """Keep what a person will want to see (see `RemoteKernelListener`)."""
        try:
            if not self._keep(channel, message, done):
                done()
        except MalformedMessageError as error:
            _log.warning("dropped a message of a kernel that nobody holds: %s", error)
            done()

    def _keep(self, channel: Channel, message: Message, done: Callable[[], None]) -> bool:
        """Tell whether the message is kept, and `done` called when it has been shown."""
        if channel is Channel.IOPUB:
            self.activity.published(message)
            self.lost_answers.published(message)
            return self.output.put(message, done)
        if channel is Channel.STDIN:
            self.question, self._question_answered = message, done
            return True
        self.activity.replied(message)
        self.lost_answers.replied(message)
        self.probe.replied(message)
        if self.question is not None and is_reply_to_run_of(self.question, message):
            self.question = None
            self._question_answered()
        return False

    def state_changed(self, state: KernelState, reason: str) -> None:
        """Hear how the kernel fares (see `RemoteKernelListener`)."""
        self.within_reach = state is not KernelState.RECONNECTING
        self.activity.connected(self.within_reach)
        if state is KernelState.DEAD:
            self.alive, self.reason = False, reason
            self.probe.end()
            self.lost_answers.forget()
            self.activity.reset("dead")
        elif state is KernelState.RESTARTING:
            self.probe.end()
            self.lost_answers.forget()
            self.activity.reset("starting")
        elif state is KernelState.ALIVE:
            self.probe.ask(self.kernel)

    def output_may_be_missing(self, reason: str) -> None:
        """Hear that messages were lost (see `RemoteKernelListener`); it is told where the rest is shown."""
        _log.warning("output of a kernel that nobody holds may be missing: %s", reason)
        for parent in self.activity.open_requests[:1]:
            content = {"name": "stderr", "text": f"[codespace-kernels] Output may be missing: {reason}\n"}
            self._show(Channel.IOPUB, self._messages.published("stream", parent, content))
        self.lost_answers.output_is_missing()

    def _show(self, channel: Channel, message: Message) -> None:
        """Keep what is said in the kernel's place; who waited for a reply is gone."""
        if channel is Channel.IOPUB:
            self.output.put(message)

    def _ask(self) -> str:
        request = self._messages.request("kernel_info_request")
        self.kernel.send(Channel.SHELL, request)
        return str(request.header_dict()["msg_id"])

    def close(self) -> None:
        """Listen no more; the kernel goes on."""
        self.activity.close()
        self.lost_answers.close()
        self.kernel.listen(None)
        self._question_answered()
