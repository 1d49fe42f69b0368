"""A kernel at work: what it is asked comes from the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from . import cells
from .cells import Cell, made
from .front_end import COMM_MESSAGE, FrontEnd
from .kernel import Kernel


class Notebook(Kernel):
    """A kernel with windows in which somebody works without rest.

    Args:
        name: For reports.
        info: The connection file's content.
        context: Of ZMQ.
        seed: What it is asked depends on this and the name only.
    """

    def __init__(self, name: str, info: Mapping[str, Any], context: zmq.Context[Any], seed: str) -> None:
        super().__init__(name, info, context)
        self._dice = random.Random(f"{seed}/{name}")
        self._comms: dict[FrontEnd, str] = {}
        self._numbers = 0

    async def work(self, until: asyncio.Event) -> None:
        """Ask and check until told to stop, then until all is answered.

        Raises:
            ViolationError: Something was lost, doubled or reordered.
        """
        while not until.is_set():
            await self._change_fronts()
            await self.ask(self._batch())
            await asyncio.sleep(self._dice.choice((0.0, 0.0, 0.05, 0.3)))
        last = Cell("last", "print('still here')", [("stdout", "still here\n")])
        await self.ask([self.execution(self.fronts[0], last)])

    def excuse(self, reason: str) -> None:
        """Allow that something is missing; what a comm knows may be missing, too."""
        super().excuse(reason)
        self._comms.clear()

    async def _change_fronts(self) -> None:
        """Now and then another window is opened on the kernel, or closed."""
        chance = self._dice.random()
        if len(self.fronts) < 3 and chance < 0.08:
            await self.add_front()
        elif len(self.fronts) > 1 and chance > 0.85:
            front = self.fronts.pop(self._dice.randrange(1, len(self.fronts)))
            self._comms.pop(front, None)
            front.close()

    def _batch(self) -> list[Callable[[], None]]:
        """What is sent without waiting for answers, as *Run All* does, with what an editor asks by itself."""
        dice = self._dice
        front = dice.choice(self.fronts)
        if dice.random() < 0.2:
            return self._conversation(front)
        batch = [self.execution(front, dice.choice(cells.KINDS)(dice)) for _ in range(dice.choice((1, 1, 1, 2, 4)))]
        for _ in range(dice.choice((0, 0, 1, 3))):
            batch.insert(dice.randrange(len(batch) + 1), self.completion(dice.choice(self.fronts)))
        return batch

    def _conversation(self, front: FrontEnd) -> list[Callable[[], None]]:
        """Give messages of a comm that the front end opened, which the kernel sends back with its buffers reversed.

        By themselves: ipykernel looks for their comm before it has handled what came first, and handles them amid a
        cell that awaits something.
        """
        dice, said = self._dice, []
        if front not in self._comms:
            self._comms[front] = f"{self.name}-{dice.randrange(10**9)}"
            opening = {"comm_id": self._comms[front], "target_name": "chaos", "data": {}}
            return [lambda: self.send(front, "comm_open", opening, Cell("comm open", "", []))]
        for _ in range(dice.randrange(1, 6)):
            self._numbers += 1
            buffers = [dice.randbytes(dice.choice((1, 1000, 200_000, 2_000_000))) for _ in range(dice.randrange(1, 3))]
            said.append(self._comm_message(front, self._numbers, buffers))
        return said

    def _comm_message(self, front: FrontEnd, number: int, buffers: list[bytes]) -> Callable[[], None]:
        content = {"comm_id": self._comms[front], "data": {"number": number}}
        wanted = made("comm_msg", [buffer[::-1] for buffer in buffers], number)
        return lambda: self.send(front, "comm_msg", content, Cell(COMM_MESSAGE, "", [wanted]), buffers)
