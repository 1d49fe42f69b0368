"""Many kernels on one connection for an hour: they print, plot and idle, and what that costs must not grow.

python -m tests.soak [--minutes 60] [--kernels 30] [--output FILE]

Every message of every cell is checked, as by `python -m tests.chaos`. Each process is looked at every ten seconds.
After the first fifth of the time a line is fitted to its memory, which may not rise by more than 5 % of the mean and
2 MB until the end. Descriptors and threads may not grow at all. Samples go to the output as lines of JSON, the tables
to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import datetime
import json
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from codespace_kernels import __version__
from tests.chaos.cells import Cell, made
from tests.chaos.kernel import Kernel
from tests.chaos.place import Place, quietly, temporary_home, unlimited_context

from .watch import MEGABYTE, Sample, Watch, trend

WARM_UP = 0.2
"""Part of the time that is not judged: imports, caches, and memory that the allocator takes once."""

MOST_GROWTH = 0.05
"""Of the mean, from the end of the warm-up to the end."""

NOISE = 2.0
"""Megabytes that do not count beside that."""

LOOK_SECONDS = 10.0


def main() -> int:
    """Run and print tables, ready for the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kernels", type=int, default=30)
    parser.add_argument("--pause", type=float, default=12.0, help="seconds between two cells of a kernel (default: 12)")
    parser.add_argument("--output", type=Path, default=Path("soak.jsonl"), help="samples (default: soak.jsonl)")
    options = parser.parse_args()
    now = datetime.datetime.now(datetime.UTC)
    print(f"codespace-kernels {__version__}, Python {platform.python_version()}, {now:%Y-%m-%d %H:%M} UTC", flush=True)
    print(f"{options.kernels} kernels, {options.minutes:g} minutes, samples: {options.output}", flush=True)
    with temporary_home() as home, options.output.open("w") as output:
        place = quietly(lambda: Place(home, ""))
        try:
            return asyncio.run(Soak(place, options, output).run())
        finally:
            quietly(place.close)


class Soak:
    """Runs it."""

    def __init__(self, place: Place, options: argparse.Namespace, output: Any) -> None:
        self._place = place
        self._options = options
        self._output = output
        self._ends = 0.0

    async def run(self) -> int:
        """Give the exit code."""
        context = unlimited_context()
        async with contextlib.AsyncExitStack() as stack:
            kernels = []
            for number in range(self._options.kernels):
                info = await stack.enter_async_context(self._place.provisioned())
                kernels.append(Kernel(f"kernel {number}", info, context))
                await kernels[-1].prepare()
            watch = Watch(self._processes())
            connections = self._place.relay_connections()
            self._ends = time.monotonic() + 60 * self._options.minutes
            async with asyncio.TaskGroup() as group:
                for number, kernel in enumerate(kernels):
                    group.create_task(self._work(kernel, random.Random(number)))
                group.create_task(self._look(watch))
            connections = self._place.relay_connections() - connections
            for kernel in kernels:
                kernel.close()
        context.destroy(linger=0)
        return report(watch, sum(kernel.counts.total() for kernel in kernels), connections, self._options.minutes)

    def _processes(self) -> dict[str, psutil.Process]:
        (child,) = self._place.inside("--listener")
        server = child.parent()
        assert server is not None
        return {"broker": self._place.broker(), "remote server": server, "its child": child}

    async def _work(self, kernel: Kernel, dice: random.Random) -> None:
        while time.monotonic() < self._ends:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * self._options.pause)
            front = kernel.fronts[0]
            await kernel.ask(
                [kernel.execution(front, dice.choice((print_lines, plot))(dice)), kernel.completion(front)]
            )

    async def _look(self, watch: Watch) -> None:
        while time.monotonic() < self._ends:
            looks = await asyncio.to_thread(watch.look)
            document = {name: dataclasses.asdict(sample) for name, sample in looks.items()}
            self._output.write(json.dumps(document) + "\n")
            self._output.flush()
            await asyncio.sleep(LOOK_SECONDS)


def print_lines(dice: random.Random) -> Cell:
    """Make a cell that prints, at the pace of a training loop."""
    count, mark = dice.randrange(20, 100), dice.randrange(10**6)
    code = f"for i in range({count}):\n    print({mark}, i, flush=True)\n    time.sleep(0.02)"
    return Cell("lines", code, [("stdout", "".join(f"{mark} {i}\n" for i in range(count)))])


def plot(dice: random.Random) -> Cell:
    """Make a cell that shows a picture of the size of a plot."""
    seed, size = dice.randrange(10**9), dice.choice((20_000, 60_000, 200_000))
    picture = random.Random(seed).randbytes(size // 2).hex().encode()
    return Cell("plot", f"show({seed}, {size})", [made("display", [picture])])


def report(watch: Watch, cells_checked: int, connections: int, minutes: float) -> int:
    """Print the tables; give the exit code."""
    print("\n| process | memory, MB: begin, end, most | trend, MB an hour | CPU of one core | descriptors | threads |")
    print("|---|---|---|---|---|---|")
    bad = []
    for name, samples in watch.samples.items():
        judged = [sample for sample in samples if sample.at >= WARM_UP * samples[-1].at]
        line = trend(judged)
        print(f"| {name} | {_row(samples, judged)} |".replace("TREND", f"{line.per_hour:+.2f} ± {line.error:.2f}"))
        if line.growth > MOST_GROWTH * line.mean + NOISE:
            bad.append(f"{name}: its memory grew by {line.growth:.1f} MB, of {line.mean:.1f}")
        bad += [f"{name}: its {what} grew" for what in ("descriptors", "threads") if _grew(judged, what)]
    spooled = max(sample.spooled for samples in watch.samples.values() for sample in samples)
    print(f"\n{cells_checked} requests checked in {minutes:g} minutes; {connections} new connections; ", end="")
    print(f"at most {spooled / MEGABYTE:.1f} MB were on disk.")
    if connections:
        bad.append("the connection was not the same all the time")
    print("\n".join(["", *bad]) if bad else "Flat.")
    return 1 if bad else 0


def _row(samples: list[Sample], judged: list[Sample]) -> str:
    memory = [sample.rss / MEGABYTE for sample in samples]
    first, last = judged[0], judged[-1]
    share = (last.cpu - first.cpu) / max(1e-9, last.at - first.at)
    counts = " | ".join(_range(judged, what) for what in ("descriptors", "threads"))
    return f"{memory[0]:.1f}, {memory[-1]:.1f}, {max(memory):.1f} | TREND | {100 * share:.1f} % | {counts}"


def _range(judged: list[Sample], what: str) -> str:
    values = [getattr(sample, what) for sample in judged]
    return f"{min(values)} to {max(values)}"


def _grew(judged: list[Sample], what: str) -> bool:
    """Tell whether the least of the last third is more than the most of the first: one that comes and goes is none."""
    third = max(1, len(judged) // 3)
    values = [getattr(sample, what) for sample in judged]
    return min(values[-third:]) > max(values[:third])


if __name__ == "__main__":
    sys.exit(main())
