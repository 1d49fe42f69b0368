"""One kernel at work: what it is asked comes from the seed, what it answers is checked to the last message."""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from . import cells
from .cells import Cell, made
from .front_end import COMM_MESSAGE, FrontEnd, Request
from .views import View, ViolationError, expect

PATIENCE = 240.0
"""Seconds that what was asked may take, faults included."""

EXCUSED_PATIENCE = 5.0
"""Seconds for what a fault has excused; then the kernel is interrupted, as a person would."""

_SUBSCRIBE_SECONDS = 90.0


class Notebook:
    """A kernel with its front ends.

    Args:
        name: For reports.
        info: The connection file's content.
        context: Of ZMQ.
        seed: What it is asked depends on this and the name only.

    Attributes:
        counts: Requests that were checked, by kind.
        violation: The first thing that was wrong.
    """

    def __init__(self, name: str, info: Mapping[str, Any], context: zmq.Context[Any], seed: str) -> None:
        self.name = name
        self.counts: collections.Counter[str] = collections.Counter()
        self.violation: ViolationError | None = None
        self._info = info
        self._context = context
        self._dice = random.Random(f"{seed}/{name}")
        self._requests: dict[str, Request] = {}
        self._fronts: list[FrontEnd] = []
        self._open: list[Request] = []
        self._comms: dict[FrontEnd, str] = {}
        self._numbers = 0
        self._excuse = ""

    async def prepare(self) -> None:
        """Run the first cell. It is not checked: it may have waited for its kernel, and so be busy twice.

        Raises:
            ViolationError: It did not end well.
        """
        await self._add_front()
        self._execution(self._fronts[0], Cell("set up", cells.SET_UP, []))()
        await self._wait()
        (request,) = self._open
        expect("replies", [reply["status"] for reply in request.views[request.asker].replies], ["ok"])
        self._close_requests()

    async def work(self, until: asyncio.Event) -> None:
        """Ask and check until told to stop, then until all is answered.

        Raises:
            ViolationError: Something was lost, doubled or reordered.
        """
        while not until.is_set():
            await self._change_fronts()
            await self._ask(self._batch())
            await asyncio.sleep(self._dice.choice((0.0, 0.0, 0.05, 0.3)))
        last = Cell("last", "print('still here')", [("stdout", "still here\n")])
        await self._ask([self._execution(self._fronts[0], last)])

    def close(self) -> None:
        """Close all front ends."""
        for front in self._fronts:
            front.close()

    def excuse(self, reason: str) -> None:
        """Allow that something of what is open, or is asked from now on, is missing, if that is told.

        Args:
            reason: Empty: of what is asked from now on nothing may be missing any more.
        """
        self._excuse = reason
        for request in self._open:
            request.excused = request.excused or reason

    def open_requests(self) -> str:
        """Say what is not answered, for a report."""
        return "\n".join(f"  {self.name}: {_describe(request)}" for request in self._open if not request.done)

    # -- front ends ---------------------------------------------------------------------------------------------------

    async def _change_fronts(self) -> None:
        """Now and then another window is opened on the kernel, or closed."""
        chance = self._dice.random()
        if len(self._fronts) < 3 and chance < 0.08:
            await self._add_front()
        elif len(self._fronts) > 1 and chance > 0.85:
            front = self._fronts.pop(self._dice.randrange(1, len(self._fronts)))
            self._comms.pop(front, None)
            front.close()

    async def _add_front(self) -> None:
        front = FrontEnd(self._context, self._info, self._requests, self._violated)
        self._fronts.append(front)
        try:
            await asyncio.wait_for(front.subscribed.wait(), _SUBSCRIBE_SECONDS)
        except TimeoutError:
            raise ViolationError(f"{self.name}: a new front end was not greeted in {_SUBSCRIBE_SECONDS:g} s") from None

    def _violated(self, violation: ViolationError) -> None:
        self.violation = self.violation or violation

    # -- requests -----------------------------------------------------------------------------------------------------

    def _batch(self) -> list[Callable[[], None]]:
        """What is sent without waiting for answers, as *Run All* does, with what an editor asks by itself."""
        dice = self._dice
        front = dice.choice(self._fronts)
        if dice.random() < 0.2:
            return self._conversation(front)
        batch = [self._execution(front, dice.choice(cells.KINDS)(dice)) for _ in range(dice.choice((1, 1, 1, 2, 4)))]
        for _ in range(dice.choice((0, 0, 1, 3))):
            batch.insert(dice.randrange(len(batch) + 1), self._completion(dice.choice(self._fronts)))
        return batch

    def _execution(self, front: FrontEnd, cell: Cell) -> Callable[[], None]:
        content = {"code": cell.code, "silent": False, "store_history": True, "user_expressions": {},
                   "allow_stdin": True, "stop_on_error": False}  # fmt: skip
        return lambda: self._send(front, "execute_request", content, cell)

    def _completion(self, front: FrontEnd) -> Callable[[], None]:
        content = {"code": "rand", "cursor_pos": 4}
        return lambda: self._send(front, "complete_request", content, Cell("completion", "", []))

    def _conversation(self, front: FrontEnd) -> list[Callable[[], None]]:
        """Give messages of a comm that the front end opened, which the kernel sends back with its buffers reversed.

        By themselves: ipykernel looks for their comm before it has handled what came first, and handles them amid a
        cell that awaits something.
        """
        dice, said = self._dice, []
        if front not in self._comms:
            self._comms[front] = f"{self.name}-{dice.randrange(10**9)}"
            opening = {"comm_id": self._comms[front], "target_name": "chaos", "data": {}}
            return [lambda: self._send(front, "comm_open", opening, Cell("comm open", "", []))]
        for _ in range(dice.randrange(1, 6)):
            self._numbers += 1
            buffers = [dice.randbytes(dice.choice((1, 1000, 200_000, 2_000_000))) for _ in range(dice.randrange(1, 3))]
            said.append(self._comm_message(front, self._numbers, buffers))
        return said

    def _comm_message(self, front: FrontEnd, number: int, buffers: list[bytes]) -> Callable[[], None]:
        content = {"comm_id": self._comms[front], "data": {"number": number}}
        wanted = made("comm_msg", [buffer[::-1] for buffer in buffers], number)
        return lambda: self._send(front, "comm_msg", content, Cell(COMM_MESSAGE, "", [wanted]), buffers)

    def _send(
        self, front: FrontEnd, kind: str, content: dict[str, Any], cell: Cell, buffers: list[bytes] | None = None
    ) -> None:
        message = front.message(kind, content)
        request = Request(
            msg_id=message["header"]["msg_id"],
            kind=cell.kind,
            code=cell.code if kind == "execute_request" else None,
            wanted=cell.shown,
            answers=list(cell.answers),
            status=cell.status if kind.endswith("_request") else None,
            asker=front,
            views={other: View() for other in self._fronts},
            excused=self._excuse,
        )
        self._requests[request.msg_id] = request
        self._open.append(request)
        front.send(message, buffers)

    async def _ask(self, batch: list[Callable[[], None]]) -> None:
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
        """Wait until all is answered; what is excused is given up after a while."""
        deadline = time.monotonic() + PATIENCE
        excused_at: float | None = None
        while waiting := [request for request in self._open if not request.done]:
            now = time.monotonic()
            if self.violation is not None or now > deadline:
                raise self.violation or ViolationError(f"no end after {PATIENCE:g} s")
            if all(request.excused for request in waiting):
                excused_at = excused_at or now
                if now - excused_at > EXCUSED_PATIENCE:
                    await self._give_up(waiting)
                    return
            else:
                excused_at = None
            await asyncio.sleep(0.02)

    async def _give_up(self, waiting: list[Request]) -> None:
        self.counts["given up, told"] += len(waiting)
        self._fronts[0].interrupt()
        await asyncio.sleep(1.0)


def _describe(request: Request) -> str:
    view = request.views[request.asker]
    seen = f"{len(view.items)} outputs, statuses {[state for state, _ in view.statuses]}, {len(view.replies)} replies"
    others = [len(other.items) for front, other in request.views.items() if front is not request.asker]
    excused = f", excused: {request.excused}" if request.excused else ""
    return f"{request.kind} {request.msg_id}: {seen}, others saw {others}, told {view.told}{excused}"
