"""Ways measured in turns, in a new order in each round, so that a busy moment hits all alike."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.programs import BenchmarkError
from benchmarks.ways import FrontEnd, Way

Samples = dict[str, list[Any]]
"""By way, what each round gave; a text where it failed."""


def log(text: str) -> None:
    """Tell what is being done."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def opened(ways: Iterable[Way]) -> Iterator[dict[str, FrontEnd]]:
    """Give a kernel of each way; one that cannot be had is told and left out."""
    with contextlib.ExitStack() as stack:
        fronts = {}
        for way in ways:
            try:
                fronts[way.name] = stack.enter_context(way.started())
            except BenchmarkError as error:
                log(f"{way.name} does not start: {error}")
        yield fronts


ENOUGH = 2
"""Turns of a way that does not come to an end, or is slower by far: more would say no more, and take long."""


def in_turns(
    fronts: dict[str, FrontEnd],
    rounds: int,
    measure: Callable[[FrontEnd], Any],
    what: str,
    fewer: tuple[str, ...] = (),
) -> Samples:
    """Measure all in turns; a way that failed has no more turns, as its front end may still be busy.

    Args:
        fronts: By way.
        rounds: In which each has a turn.
        measure: What is done.
        what: Its name, for the log.
        fewer: Ways that have `ENOUGH` turns at most.
    """
    samples: Samples = {name: [] for name in fronts}
    failed: set[str] = set()
    for number in range(rounds):
        for name in random.sample(list(fronts), len(fronts)):
            turns = len(samples[name]) if name in fewer else sum(map(_is_unfinished, samples[name]))
            if name in failed or turns >= ENOUGH:
                continue
            log(f"{what}, round {number + 1} of {rounds}: {name}")
            try:
                samples[name].append(measure(fronts[name]))
            except BenchmarkError as error:
                failed.add(name)
                log(f"{name}: {error}")
                samples[name].append(str(error).splitlines()[0])
    return samples


def _is_unfinished(sample: Any) -> bool:
    return isinstance(sample, dict) and not sample.get("idle", True)
