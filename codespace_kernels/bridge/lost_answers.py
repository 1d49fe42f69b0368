"""Requests whose answers a gap has swallowed are ended, so that no cell stays busy for ever."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.bridge.activity import is_request
from codespace_kernels.bridge.request_log import RequestLog
from codespace_kernels.errors import LinkError
from codespace_kernels.messages import Channel, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from codespace_kernels.bridge.activity import Activity
    from codespace_kernels.bridge.local_messages import LocalMessages
    from codespace_kernels.bridge.request_log import OpenRequest

_log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that a kernel is given to begin what it still has, once it has answered a question of ours."""

NOT_KNOWN = "It is not known how this ended: the answer was lost. Look at what it did before you run it again."


class _Asked(NamedTuple):
    """A request without its content, and on which channel it came."""

    channel: Channel
    request: Message
    msg_type: str


class LostAnswers:
    """Follows requests to their replies, and finds out after a gap which ones will never have any.

    A kernel answers to the address that a request came from. When the process that carries the messages is replaced,
    that address is gone, and what the kernel says to it goes nowhere. So the kernel is asked something by the new one.
    Once it has answered, and none of the older requests runs or begins, they are over. So is what it seemed to be busy
    with: it would be busy for ever, and its codespace be kept awake.

    Args:
        activity: Is told which requests are over.
        messages: Makes messages.
        send: Hands a message to local clients.
        ask: Asks the kernel something on shell; gives the request's id, None where there is no kernel.
        log: Where open requests are written down; None for nowhere.
        grace: Seconds, see `GRACE`.
    """

    def __init__(
        self,
        activity: Activity,
        messages: LocalMessages,
        send: Callable[[Channel, Message], None],
        ask: Callable[[], str | None],
        *,
        log: RequestLog | None = None,
        grace: float = GRACE,
    ) -> None:
        self._activity = activity
        self._messages = messages
        self._send = send
        self._ask = ask
        self._grace = grace
        self._log = log or RequestLog()
        self._asked: dict[str, _Asked] = {}
        self._restored: set[str] = set()
        self._untold: dict[str, bytes] = {}
        self._doubtful: dict[str, str] = {}
        self._question: str | None = None
        self._probe = ""
        self._timer: asyncio.TimerHandle | None = None

    def requested(self, channel: Channel, request: Message) -> None:
        """Hear of a client's request on its way to the kernel; what has no reply is not waited for."""
        header = request.header_dict()
        msg_type = str(header.get("msg_type", ""))
        if msg_type.endswith("_request"):
            stripped = request._replace(content=b"{}", buffers=())
            msg_id = str(header.get("msg_id", ""))
            self._asked[msg_id] = _Asked(channel, stripped, msg_type)
            self._log.asked(msg_id, channel, stripped)

    def restore(self, requests: Iterable[OpenRequest]) -> None:
        """Go on with what clients asked another process, which handed it to the kernel."""
        for channel, request, is_answered, is_idle in requests:
            header = request.header_dict()
            msg_id = str(header.get("msg_id", ""))
            self._activity.restore(msg_id, request.header, is_answered=is_answered, is_idle=is_idle)
            if is_idle:
                self._untold[msg_id] = request.header
            if not is_answered or not is_request(request.header):
                self._restored.add(msg_id)
            if not is_answered:
                self._asked[msg_id] = _Asked(channel, request, str(header.get("msg_type", "")))

    @property
    def to_tell(self) -> list[bytes]:
        """Headers of the requests in which a gap is told: that are open, or of which clients may lack something."""
        return list(dict.fromkeys((*self._untold.values(), *self._activity.open_requests)))

    def take_over(self, other: LostAnswers) -> None:
        """Go on in the place of another one, which ends, with what it knows of the same kernel."""
        self._asked.update(other._asked)
        self._doubtful.update(other._doubtful)
        self._question = other._question
        if other._timer is not None:
            self._plan_check()
        other.close()

    def probed(self, question: str) -> None:
        """Hear that the kernel is asked something: with its answer all is over that it was asked by a process before.

        What that process wrote down and died before it sent it is among that: the kernel will never answer it.

        Args:
            question: The request's id; it went by shell.
        """
        self._probe = question
        restored = [msg_id for msg_id in self._restored if self._is_open_on_shell(msg_id)]
        if restored and not self._doubtful:
            self._doubtful = dict.fromkeys(restored, "")
            self._question = question

    def _is_open_on_shell(self, msg_id: str) -> bool:
        asked = self._asked.get(msg_id)
        if asked is not None:
            return asked.channel is Channel.SHELL
        begun = self._activity.busy.get(msg_id)
        return begun is not None and not is_request(begun)

    def replied(self, message: Message) -> None:
        """Hear of a reply of the kernel, also of those to our own questions."""
        msg_id = str(message.parent_dict().get("msg_id", ""))
        self._asked.pop(msg_id, None)
        self._doubtful.pop(msg_id, None)
        self._log.answered(msg_id, is_busy=self._activity.is_busy_with(msg_id))
        if msg_id == self._probe:
            # What was not delivered before the death has come again by now, or it was told that it does not.
            self._untold.clear()
        if msg_id == self._question:
            self._question = None
            self._plan_check()

    def published(self, message: Message) -> None:
        """Hear of a message on iopub."""
        if (self._doubtful or self._untold) and message.header_dict().get("msg_type") == "status":
            msg_id = str(message.parent_dict().get("msg_id", ""))
            state = str(message.content_dict().get("execution_state", ""))
            if msg_id in self._doubtful:
                self._doubtful[msg_id] = state
            if state == "idle":
                self._untold.pop(msg_id, None)

    def output_is_missing(self) -> None:
        """Hear of a gap: what was asked before may have been answered in it."""
        self._stop_clock()
        # What ran before the gap may be over; what runs still will say so when it ends.
        self._doubtful = dict.fromkeys([*self._asked, *self._activity.busy], "")
        self._begin()

    def forget(self) -> None:
        """Expect no answers: the kernel's process is gone, or is not listened to any more."""
        self._stop_clock()
        self._asked.clear()
        self._doubtful.clear()
        self._restored.clear()
        self._untold.clear()
        self._log.clear()

    def close(self) -> None:
        """Stop the clock."""
        self._stop_clock()

    def _plan_check(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._grace, self._check)

    def _begin(self) -> None:
        self._question = self._ask() if self._doubtful else None

    def _stop_clock(self) -> None:
        self._question = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._activity.is_receiving():
            # The answer to our question has overtaken what was published before it.
            self._plan_check()
            return
        runs = "busy" in self._doubtful.values()
        for msg_id, state in list(self._doubtful.items()):
            # What has not begun while another one runs may stand behind it.
            if state == "idle" or not runs:
                self._end(msg_id, is_idle=state == "idle")
        self._begin()

    def _end(self, msg_id: str, *, is_idle: bool) -> None:
        del self._doubtful[msg_id]
        asked = self._asked.pop(msg_id, None)
        # A message of a widget has no reply, but the kernel is busy with it as with everything.
        header = self._activity.busy.get(msg_id) if asked is None else asked.request.header
        if asked is not None:
            self._log.answered(msg_id, is_busy=False)
            self._reply(asked)
            self._activity.forgotten(msg_id)
        if header is not None:
            idle = self._messages.status("idle", header)
            self._activity.published(idle)
            if not is_idle:
                self._send(Channel.IOPUB, idle)

    def _reply(self, asked: _Asked) -> None:
        _log.warning("the answer to a %s was lost; told who asked", asked.msg_type)
        error: dict[str, Any] = {"ename": LinkError.__name__, "evalue": NOT_KNOWN, "traceback": [NOT_KNOWN]}
        content = {"status": "error", **error}
        if asked.msg_type == "execute_request":
            content |= {"execution_count": 0, "payload": [], "user_expressions": {}}
            self._send(Channel.IOPUB, self._messages.published("error", asked.request.header, error))
        self._send(asked.channel, self._messages.reply(asked.request, asked.msg_type, content))
