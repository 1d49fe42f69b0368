"""Answers the start-up questions of a client that comes to a kernel which is in the middle of somebody else's run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge.answers import EXECUTED, harmless, is_background
from codespace_kernels.messages import Channel, MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from codespace_kernels.bridge.activity import Activity
    from codespace_kernels.bridge.late_answers import LateAnswers
    from codespace_kernels.bridge.local_messages import LocalMessages
    from codespace_kernels.messages import Message


class BusyAnswers:
    """Answers `kernel_info_request` and background executions while an earlier client's run holds the kernel's shell.

    The run may take hours, and front ends give a kernel up that does not answer these for a minute. It is a
    `RequestHandler`, active from `begin` until none of the earlier requests is open. Background executions go to the
    kernel, too.

    Args:
        messages: Makes messages.
        send: Hands a message to local clients.
        forward: Hands a request to the kernel.
        activity: Knows which requests are open.
        late: Told of requests that are answered here and go to the kernel.
    """

    def __init__(
        self,
        messages: LocalMessages,
        send: Callable[[Channel, Message], None],
        forward: Callable[[Channel, Message], None],
        activity: Activity,
        late: LateAnswers,
    ) -> None:
        self._messages = messages
        self._send = send
        self._forward = forward
        self._activity = activity
        self._late = late
        self._kernel_info: Mapping[str, Any] = {}
        self._earlier: frozenset[str] = frozenset()

    @property
    def active(self) -> bool:
        """Whether an earlier client's run is not finished."""
        return bool(self._earlier) and not self._earlier.isdisjoint(self._activity.unfinished)

    def begin(self, kernel_info: Mapping[str, Any], earlier: Iterable[str]) -> None:
        """Answer while one of these requests, given by id, is open."""
        self._kernel_info = kernel_info
        self._earlier = frozenset(earlier)

    def handle(self, channel: Channel, request: Message, msg_type: str) -> bool:
        """Answer a request; see `RequestHandler`."""
        if channel is Channel.STDIN or not self.active:
            return False
        if msg_type == "kernel_info_request":
            self._answer(channel, request, dict(self._kernel_info))
            return True
        return msg_type == "execute_request" and self._execute(channel, request)

    def _execute(self, channel: Channel, request: Message) -> bool:
        try:
            content = request.content_dict()
        except MalformedMessageError:
            return False
        if not is_background(content):
            return False
        self._answer(channel, request, EXECUTED)
        self._late.expect(str(request.header_dict().get("msg_id", "")))
        self._forward(channel, request._replace(content=json.dumps(harmless(content)).encode()))
        return True

    def _answer(self, channel: Channel, request: Message, content: dict[str, Any]) -> None:
        for where, message in self._messages.answered(channel, request, content):
            self._send(where, message)
        # The last word that a front end hears is what it shows.
        for header in self._activity.running[:1]:
            self._send(Channel.IOPUB, self._messages.status("busy", header))
