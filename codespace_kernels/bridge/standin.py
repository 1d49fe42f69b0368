"""The bridge answering for a kernel that is not there yet."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.bridge.answers import EXECUTED, answer, harmless, is_background
from codespace_kernels.bridge.waiting_line import WaitingState
from codespace_kernels.messages import Channel, MalformedMessageError, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from codespace_kernels.bridge.activity import Activity
    from codespace_kernels.bridge.late_answers import LateAnswers
    from codespace_kernels.bridge.local_messages import LocalMessages
    from codespace_kernels.bridge.requests import RequestQueue
    from codespace_kernels.bridge.waiting_line import WaitingLine
    from codespace_kernels.bridge.waiting_notes import WaitingNotes

_log = logging.getLogger(__name__)

MAX_KEPT = 1000
"""Answered executions that are kept for the kernel: what asks each second for hours must leave room for a cell."""

TICK = 1.0
"""Seconds between two looks at the clock while a cell waits."""


class _Run(NamedTuple):
    header: bytes
    stop_on_error: bool


class StandIn:
    """Answers what a front end asks of its own accord, and keeps a person's runs, showing what they wait for.

    It is a `RequestHandler`, active from `begin` to `end`. A *run* is an `execute_request` that a person waits for (see
    `answers.is_background` for the others). Its cell is busy from its arrival on.

    Args:
        messages: Makes messages.
        send: Hands a message to local clients.
        queue: Takes what must reach the kernel.
        activity: Told of runs and of their end.
        late: Told of requests that are answered here and kept, too.
        run_waits: Called for each run, when it is in the queue.
        line: Shows runs what they wait for.
    """

    def __init__(
        self,
        messages: LocalMessages,
        send: Callable[[Channel, Message], None],
        queue: RequestQueue,
        activity: Activity,
        late: LateAnswers,
        run_waits: Callable[[], None],
        line: WaitingLine | WaitingNotes,
    ) -> None:
        self.active = False
        self._messages = messages
        self._send = send
        self._queue = queue
        self._activity = activity
        self._late = late
        self._run_waits = run_waits
        self._line = line
        self._kernel_info: Mapping[str, Any] = {}
        self._runs: dict[str, _Run] = {}
        self._kept = 0
        self._state = WaitingState()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_runs(self) -> bool:
        """Whether a person's run waits for the kernel."""
        return bool(self._runs)

    def begin(self, kernel_info: Mapping[str, Any]) -> None:
        """Answer from now on; what waits already is looked at once more."""
        self.active = True
        self._kernel_info = kernel_info
        for channel, message in list(self._queue.take_all()):
            msg_type = str(message.header_dict().get("msg_type", ""))
            if not self.handle(channel, message, msg_type):
                self._queue.put(channel, message)

    def kernel_came(self) -> None:
        """Answer no more: the kernel does."""
        if self._runs:
            self._line.finish(self._waited)
        self.end()

    def end(self) -> None:
        """Answer no more: the bridge is closed, or waits for another kernel."""
        self.active = False
        self._runs.clear()
        self._kept = 0
        self._stop_line()

    def handle(self, channel: Channel, request: Message, msg_type: str) -> bool:
        """Answer a request or keep it; see `RequestHandler`."""
        if not self.active or channel is Channel.STDIN:
            return False
        try:
            content = request.content_dict()
        except MalformedMessageError:
            return False
        if msg_type == "execute_request":
            self._execute(channel, request, content)
            return True
        reply = answer(msg_type, content, self._kernel_info)
        if reply is None:
            return False
        # As far as `begin` found it in the queue, it was counted.
        self._activity.forgotten(_id(request))
        self._answer(channel, request, reply)
        return True

    def tell(self, state: WaitingState) -> None:
        """Say what runs wait for."""
        self._state = state
        self._show()

    def interrupt(self) -> bool:
        """End all runs as an interrupt ends them in a kernel; tells whether there were any."""
        return self._end_runs("KeyboardInterrupt", "The wait for the kernel was interrupted.", follow=True)

    def fail(self, ename: str, evalue: str) -> bool:
        """End all runs with an error; tells whether there were any."""
        return self._end_runs(ename, evalue, follow=False)

    def forget(self) -> None:
        """Answer no more, and drop everything that waits: a restarted kernel knows nothing of it."""
        self.end()
        for _, message in self._queue.take_all():
            self._activity.forgotten(_id(message))

    # Executions.

    def _execute(self, channel: Channel, request: Message, content: dict[str, Any]) -> None:
        if is_background(content):
            self._activity.forgotten(_id(request))
            self._answer(channel, request, EXECUTED)
            self._keep(channel, request, content)
            return
        msg_id = _id(request)
        self._activity.requested(msg_id, "execute_request", request.header)
        if not self._queue.put(channel, request):
            self._activity.forgotten(msg_id)
            return
        self._runs[msg_id] = _Run(request.header, bool(content.get("stop_on_error", True)))
        if len(self._runs) == 1:
            self._since = time.monotonic()
            self._status("busy", request.header)
        self._run_waits()

    def _keep(self, channel: Channel, request: Message, content: dict[str, Any]) -> None:
        self._kept += 1
        if self._kept > MAX_KEPT:
            if self._kept == MAX_KEPT + 1:
                _log.warning("more than %d background executions wait for the kernel; newer ones are lost", MAX_KEPT)
            return
        if self._queue.put(channel, request._replace(content=json.dumps(harmless(content)).encode())):
            self._late.expect(_id(request))

    def _end_runs(self, ename: str, evalue: str, *, follow: bool) -> bool:
        """End the first run with an error; later ones are aborted where the first says so, or `follow` does."""
        runs, self._runs = self._runs, {}
        self._stop_line()
        aborting = False
        for channel, request in self._queue.take(set(runs)):
            msg_id = _id(request)
            self._activity.forgotten(msg_id)
            if aborting:
                self._answer(channel, request, {"status": "aborted"})
            else:
                self._answer_error(channel, request, ename, evalue)
                aborting = follow or runs[msg_id].stop_on_error
        return bool(runs)

    def _answer_error(self, channel: Channel, request: Message, ename: str, evalue: str) -> None:
        error = {"ename": ename, "evalue": evalue, "traceback": [f"{ename}: {evalue}"]}
        self._status("busy", request.header)
        self._send(Channel.IOPUB, self._messages.published("error", request.header, error))
        content = {"status": "error", "execution_count": 0, "payload": [], "user_expressions": {}, **error}
        self._send(channel, self._messages.reply(request, "execute_request", content))
        self._status("idle", request.header)

    def _answer(self, channel: Channel, request: Message, content: dict[str, Any]) -> None:
        for where, message in self._messages.answered(channel, request, content):
            self._send(where, message)

    def _status(self, state: str, parent: bytes) -> None:
        self._send(Channel.IOPUB, self._messages.status(state, parent))

    # The line in the first waiting cell.

    @property
    def _waited(self) -> float:
        return time.monotonic() - self._since

    def _show(self) -> None:
        if not self._runs or not self._state.doing:
            return
        first = next(iter(self._runs.values()))
        self._line.show(first.header, self._state, self._waited)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._show()

    def _stop_line(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._state = WaitingState()
        self._line.clear()


def _id(request: Message) -> str:
    return str(request.header_dict().get("msg_id", ""))
