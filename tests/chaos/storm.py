"""The run: kernels work, things go wrong one after the other, and in the end everything must be there."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import zmq

from .faults import KINDS
from .notebook import Notebook
from .place import Place, unlimited_context
from .views import ViolationError

MEND_SECONDS = 120.0
"""Seconds after a fault in which the connection must be there again."""

_SETTLED = 0.75
"""How often the connection is waited for before the next fault; else that strikes while things are being mended."""


@dataclasses.dataclass
class Options:
    """What is run.

    Attributes:
        seed: All decisions come of it.
        faults: How many.
        kinds: Of `faults.KINDS`.
        kernels: How many; the last one is started by the launcher, the others by a provisioner.
        patience: Seconds of silence after which the link gives a stream up, as the broker was told.
        longest_pause: Seconds between two faults at most.
        bound: Seconds that the whole may take.
        end_bound: Seconds that may pass after the last fault until everything is answered.
    """

    seed: str
    faults: int
    kinds: Sequence[str]
    kernels: int = 4
    patience: float = 2.0
    longest_pause: float = 1.5
    bound: float = 3600.0
    end_bound: float = 240.0


@dataclasses.dataclass
class Result:
    """What came of it.

    Attributes:
        struck: Faults, by kind.
        checked: Requests that were checked, by kind.
        mended: Seconds from the end of each fault that cut the connection until it was there again.
        seconds: The whole.
        violation: What was wrong; empty for nothing.
    """

    struck: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    checked: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    mended: dict[str, list[float]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    seconds: float = 0.0
    violation: str = ""

    def to_text(self) -> str:
        """Give tables for the documentation."""
        rows = [f"| {kind} | {count} | {_times(self.mended[kind])} |" for kind, count in sorted(self.struck.items())]
        checked = ", ".join(f"{count} {kind}" for kind, count in sorted(self.checked.items()))
        return "\n".join(
            [
                "| fault | times | seconds until the connection was back: median, longest |",
                "|---|---|---|",
                *rows,
                "",
                f"{self.struck.total()} faults in {self.seconds:.0f} s; "
                f"{self.checked.total()} requests checked: {checked}",
            ]
        )


class Storm:
    """Runs it.

    Args:
        place: Where.
        options: What.
        journal: Gets what is done, a JSON object a line.
        tell: Called with what came of it as soon as something is wrong: to end everything may take long, too.
        schedule: Faults to have again in place of those of the seed, as a journal has them.
    """

    def __init__(
        self,
        place: Place,
        options: Options,
        journal: TextIO,
        tell: Callable[[Result], None],
        schedule: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self._place = place
        self._options = options
        self._journal = journal
        self._tell = tell
        self._schedule = schedule
        self._dice = random.Random(f"{options.seed}/faults")
        self._began = time.monotonic()
        self._over = asyncio.Event()
        self._notebooks: list[Notebook] = []
        self._works: list[asyncio.Task[None]] = []
        self._doing = ""
        self.result = Result()

    async def run(self) -> Result:
        """Run to the end; a violation ends it early, and so does its bound."""
        context = unlimited_context()
        everything = asyncio.ensure_future(self._run(context))
        try:
            await asyncio.wait({everything}, timeout=self._options.bound)
            if not everything.done():
                self._found("everything", f"not over after {self._options.bound:g} s")
                everything.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await everything
        finally:
            self.result.seconds = self._now()
            context.destroy(linger=0)
        return self.result

    async def _run(self, context: zmq.Context[Any]) -> None:
        self._doing = "kernels were started"
        async with contextlib.AsyncExitStack() as stack:
            kernels = [stack.enter_async_context(self._place.provisioned()) for _ in range(self._options.kernels - 1)]
            infos = [*await asyncio.gather(*kernels), await stack.enter_async_context(self._place.launched())]
            self._notebooks = [
                Notebook(f"kernel {number}", info, context, self._options.seed) for number, info in enumerate(infos)
            ]
            await self._work()
            self._doing = "kernels were ended"

    async def _work(self) -> None:
        self._doing = "the first cells ran"
        await asyncio.gather(*(notebook.prepare() for notebook in self._notebooks))
        works = self._works = [asyncio.create_task(notebook.work(self._over)) for notebook in self._notebooks]
        faults = asyncio.create_task(self._strike_all())
        try:
            await asyncio.wait([*works, faults], return_when=asyncio.FIRST_EXCEPTION)
            for number, task in enumerate([*works, faults]):
                if task.done() and (error := task.exception()) is not None:
                    if not isinstance(error, ViolationError):
                        raise error
                    self._found(self._notebooks[number].name if number < len(works) else "faults", str(error))
                    return
        finally:
            for task in (faults, *works):
                task.cancel()
            await asyncio.gather(faults, *works, return_exceptions=True)
            for notebook in self._notebooks:
                notebook.close()
                self.result.checked.update(notebook.counts)

    def _found(self, where: str, what: str) -> None:
        still_open = "\n".join(notebook.open_requests() for notebook in self._notebooks)
        self.result.seconds = self._now()
        self.result.violation = (
            f"{where}: {what}\nwhile {self._doing}\nnot answered:\n{still_open}\n{self._place.report()}"
        )
        self._tell(self.result)

    # -- faults -------------------------------------------------------------------------------------------------------

    async def _strike_all(self) -> None:
        self._doing = "the first connection was waited for"
        await self._settle("the first connection", 0.0)
        for fault in self._schedule or self._decide():
            await asyncio.sleep(max(0.0, fault.get("at", 0.0) - self._now()))
            await self._strike(fault)
            await asyncio.sleep(fault["pause"])
        self._place.control.clear_faults(None, None)
        self._over.set()
        self._doing = "kernels were to answer after the last fault"
        _, waiting = await asyncio.wait(self._works, timeout=self._options.end_bound)
        if waiting:
            raise ViolationError(f"not everything was answered {self._options.end_bound:g} s after the last fault")

    def _decide(self) -> Iterator[dict[str, Any]]:
        """Give the faults of the seed: each kind once, then by their weights."""
        dice, kinds = self._dice, list(self._options.kinds)
        first = dice.sample(kinds, len(kinds))
        for number in range(self._options.faults):
            kind = first.pop() if first else dice.choices(kinds, [KINDS[kind].weight for kind in kinds])[0]
            yield {
                "number": number,
                "kind": kind,
                "plan": KINDS[kind].plan(dice, self._options.patience),
                "settle": dice.random() < _SETTLED,
                "pause": round(dice.uniform(0.0, self._options.longest_pause), 2),
            }

    async def _strike(self, fault: dict[str, Any]) -> None:
        kind = KINDS[fault["kind"]]
        self._write({**fault, "at": round(self._now(), 2)})
        self._doing = f"fault {fault['number']} ({fault['kind']}) was on"
        cuts = kind.cuts and self._place.connection_state() == "connected"
        before = self._place.relay_connections() if cuts else None
        if kind.excuses:
            self._excuse(kind.excuses)
        await kind.strike(self._place, fault["plan"])
        self.result.struck[fault["kind"]] += 1
        self._doing = f"the connection was to come back after fault {fault['number']} ({fault['kind']})"
        if fault["settle"] or kind.excuses:
            await self._settle(fault["kind"], self._now(), before)
        if kind.excuses:
            self._excuse("")

    def _excuse(self, reason: str) -> None:
        for notebook in self._notebooks:
            notebook.excuse(reason)

    async def _settle(self, kind: str, since: float, connections: int | None = None) -> None:
        """Wait until the connection is there, and where it was cut, a new one."""
        deadline = time.monotonic() + MEND_SECONDS
        while not await asyncio.to_thread(self._is_mended, connections):
            if time.monotonic() > deadline:
                raise ViolationError(f"{kind}: no connection {MEND_SECONDS:g} s after the fault was over")
            await asyncio.sleep(0.05)
        if connections is not None:
            self.result.mended[kind].append(self._now() - since)

    def _is_mended(self, connections: int | None) -> bool:
        if connections is not None and self._place.relay_connections() <= connections:
            return False
        return self._place.connection_state() == "connected"

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _write(self, document: dict[str, Any]) -> None:
        self._journal.write(json.dumps(document) + "\n")
        self._journal.flush()


def read_journal(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give a journal's first line, and its faults."""
    first, *faults = [json.loads(line) for line in path.read_text().splitlines()]
    return first, faults


def _times(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f}, {max(seconds):.1f}" if seconds else ""
