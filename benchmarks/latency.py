"""Time of `pass`, from request to reply and idle: a codespace kernel beside a local one, interleaved in one run.

    python benchmarks/latency.py KERNEL [--rounds 7] [--count 50]

Prints the median of each, the ratio of the medians, and the spread over the rounds. Compare ratios only: client,
broker, relay, SSH servers and kernel share the cores of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.clients import execute, running_kernel

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient


async def one_round(client: AsyncKernelClient, count: int) -> list[float]:
    """Give milliseconds of each of `count` requests."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        await execute(client, "pass")
        times.append((time.perf_counter() - start) * 1000)
    return times


async def compare(kernels: list[str], rounds: int, count: int) -> dict[str, list[list[float]]]:
    """Measure all kernels in turns, in a new order each round."""
    times: dict[str, list[list[float]]] = {name: [] for name in kernels}
    async with running_kernel(kernels[0]) as (_, first), running_kernel(kernels[1]) as (_, second):
        clients = dict(zip(kernels, (first, second), strict=True))
        for client in clients.values():
            await one_round(client, 20)
        for _ in range(rounds):
            order = random.sample(kernels, len(kernels))
            for name in order:
                times[name].append(await one_round(clients[name], count))
    return times


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", help="name of a codespace kernel's spec")
    parser.add_argument("--local", default="python3", help="name of the local kernel's spec")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    times = asyncio.run(compare([options.local, options.kernel], options.rounds, options.count))
    medians = {}
    for name, rounds in times.items():
        flat = sorted(t for r in rounds for t in r)
        medians[name] = statistics.median(flat)
        spread = [statistics.median(r) for r in rounds]
        p95 = flat[int(len(flat) * 0.95)]
        print(f"{name:40} median {medians[name]:6.2f} ms  p95 {p95:6.2f}  rounds {min(spread):.2f}..{max(spread):.2f}")
    print(f"ratio of medians: {medians[options.kernel] / medians[options.local]:.2f}")


if __name__ == "__main__":
    main()
