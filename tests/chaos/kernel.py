"""A kernel, its front ends, and what they ask of it, checked to the last message."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from . import cells
from .cells import Cell
from .front_end import ONLY_WHERE_TOLD, FrontEnd, Request
from .views import View, ViolationError, expect

PATIENCE = 240.0
"""Seconds that what was asked may take, faults included."""

QUESTION_PATIENCE = 3.0
"""Seconds of silence after which a cell is interrupted whose question was lost, so that nobody can answer it."""

INTERRUPT_PATIENCE = 45.0
"""Seconds without an answer after which an interrupt is sent once more, as a person would press the button again: a
broker that was killed may have taken it. Long, as one that only waits for the connection would interrupt the next cell.
"""

_SUBSCRIBE_SECONDS = 90.0


class Kernel:
    """A kernel with its front ends.

    Args:
        name: For reports.
        info: The connection file's content.
        context: Of ZMQ.

    Attributes:
        counts: Requests that were checked, by kind.
        fronts: Its front ends.
        violation: The first thing that was wrong.
    """

    def __init__(self, name: str, info: Mapping[str, Any], context: zmq.Context[Any]) -> None:
        self.name = name
        self.counts: collections.Counter[str] = collections.Counter()
        self.fronts: list[FrontEnd] = []
        self.violation: ViolationError | None = None
        self._info = info
        self._context = context
        self._requests: dict[str, Request] = {}
        self._open: list[Request] = []
        self._excuse = ""

    async def prepare(self) -> None:
        """Run the first cell. It is not checked: it may have waited for its kernel, and so be busy twice.

        Raises:
            ViolationError: It did not end well.
        """
        await self.add_front()
        self.execution(self.fronts[0], Cell("set up", cells.SET_UP, []))()
        await self._wait()
        (request,) = self._open
        expect("replies", [reply["status"] for reply in request.views[request.asker].replies], ["ok"])
        self._close_requests()

    def close(self) -> None:
        """Close all front ends."""
        for front in self.fronts:
            front.close()

    def excuse(self, reason: str) -> None:
        """Allow that something of what is open, or is asked from now on, is missing, if that is told.

        Args:
            reason: Empty: of what is asked from now on nothing may be missing any more.
        """
        self._excuse = reason
        for request in self._open:
            if request.excused in {"", ONLY_WHERE_TOLD}:
                request.excused = reason or request.excused

    def open_requests(self) -> str:
        """Say what is not answered, for a report."""
        waiting = [_describe(request) for request in self._open if not request.done]
        waiting += ["an interrupt"] * any(front.interrupting for front in self.fronts)
        return "\n".join(f"  {self.name}: {what}" for what in waiting)

    async def add_front(self) -> None:
        """Open a window on the kernel.

        Raises:
            ViolationError: It is not greeted.
        """
        front = FrontEnd(self._context, self._info, self._requests, self._violated)
        self.fronts.append(front)
        try:
            await asyncio.wait_for(front.subscribed.wait(), _SUBSCRIBE_SECONDS)
        except TimeoutError:
            raise ViolationError(f"{self.name}: a new front end was not greeted in {_SUBSCRIBE_SECONDS:g} s") from None

    def _violated(self, violation: ViolationError) -> None:
        self.violation = self.violation or violation

    def execution(self, front: FrontEnd, cell: Cell) -> Callable[[], None]:
        """Give what sends a cell."""
        content = {"code": cell.code, "silent": False, "store_history": True, "user_expressions": {},
                   "allow_stdin": True, "stop_on_error": False}  # fmt: skip
        return lambda: self.send(front, "execute_request", content, cell)

    def completion(self, front: FrontEnd) -> Callable[[], None]:
        """Give what asks for a completion."""
        content = {"code": "rand", "cursor_pos": 4}
        return lambda: self.send(front, "complete_request", content, Cell("completion", "", []))

    def send(
        self, front: FrontEnd, kind: str, content: dict[str, Any], cell: Cell, buffers: list[bytes] | None = None
    ) -> None:
        """Send a request, and expect of it what the cell says."""
        message = front.message(kind, content)
        request = Request(
            msg_id=message["header"]["msg_id"],
            kind=cell.kind,
            code=cell.code if kind == "execute_request" else None,
            wanted=cell.shown,
            answers=list(cell.answers),
            status=cell.status if kind.endswith("_request") else None,
            asker=front,
            views={other: View() for other in self.fronts},
            excused=self._excuse,
        )
        self._requests[request.msg_id] = request
        self._open.append(request)
        front.send(message, buffers)

    async def ask(self, batch: list[Callable[[], None]]) -> None:
        """Send, wait for all that comes, and check it.

        Raises:
            ViolationError: Something was lost, doubled or reordered.
        """
        for send in batch:
            send()
        await self._wait()
        for request in self._open:
            self.counts[request.kind] += 1
            request.check()
        self._close_requests()
        if self.violation is not None:
            raise self.violation

    def _close_requests(self) -> None:
        for request in self._open:
            if not request.excused:
                # What comes of it from now on belongs to nothing.
                del self._requests[request.msg_id]
        self._open.clear()

    async def _wait(self) -> None:
        """Wait until all is answered; a cell whose question was lost is interrupted after a while without a message."""
        deadline = time.monotonic() + PATIENCE
        seen, quiet_since = -1, 0.0
        while (waiting := [request for request in self._open if not request.done]) or self.fronts[0].interrupting:
            now = time.monotonic()
            if self.violation is not None or now > deadline:
                raise self.violation or ViolationError(f"no end after {PATIENCE:g} s")
            messages = sum(view.messages for request in self._open for view in request.views.values())
            if messages != seen:
                seen, quiet_since = messages, now
            elif self.fronts[0].interrupting:
                if now - quiet_since > INTERRUPT_PATIENCE:
                    quiet_since = now
                    self.fronts[0].interrupt()
            elif now - quiet_since > QUESTION_PATIENCE:
                if all(request.may_be_gone for request in waiting):
                    return
                if any(request.may_be_lost and request.answers for request in waiting):
                    self._interrupt(waiting)
            await asyncio.sleep(0.02)

    def _interrupt(self, waiting: list[Request]) -> None:
        self.counts["interrupted, as a question was lost"] += 1
        for request in waiting:
            request.interrupted = True
        self.fronts[0].interrupt()


def _describe(request: Request) -> str:
    view = request.views[request.asker]
    seen = f"{len(view.items)} outputs, statuses {[state for state, _ in view.statuses]}, {len(view.replies)} replies"
    others = [len(other.items) for front, other in request.views.items() if front is not request.asker]
    excused = f", excused: {request.excused}" if request.excused else ""
    return f"{request.kind} {request.msg_id}: {seen}, others saw {others}, told {view.told}{excused}"
