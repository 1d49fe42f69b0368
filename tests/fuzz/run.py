"""Runs targets with seeds that are printed, so that each case can be had again."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple


class Result(NamedTuple):
    """How many cases were made, and how many of them the code under test took as good."""

    cases: int
    taken: int


class FindingError(AssertionError):
    """The code under test misbehaved; the text says how to have that again."""


def run_target(name: str, target: Any, seed: int, cases: int = 1 << 62, seconds: float = 1e9) -> Result:
    """Make cases until so many were made, or the time is over.

    Raises:
        FindingError: One misbehaved.
    """
    if inspect.iscoroutinefunction(target):
        return asyncio.run(_run_async(name, target, seed, cases, seconds))
    made = taken = 0
    for index in _indexes(cases, seconds):
        try:
            taken += bool(target(_die(seed, index)))
        except Exception as error:
            raise _finding(name, seed, index, error) from error
        made += 1
    return Result(made, taken)


async def _run_async(name: str, target: Any, seed: int, cases: int, seconds: float) -> Result:
    made = taken = 0
    for index in _indexes(cases, seconds):
        try:
            async with asyncio.timeout(60):
                taken += bool(await target(_die(seed, index)))
        except Exception as error:
            raise _finding(name, seed, index, error) from error
        made += 1
    return Result(made, taken)


def run_one(target: Any, seed: int, index: int) -> None:
    """Make one case again."""
    case = target(_die(seed, index))
    if inspect.isawaitable(case):
        asyncio.run(_await(case))


async def _await(case: Any) -> None:
    await case


def _die(seed: int, index: int) -> random.Random:
    return random.Random(f"{seed}/{index}")


def _indexes(cases: int, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    index = 0
    while index < cases and time.monotonic() < end:
        yield index
        index += 1


def _finding(name: str, seed: int, index: int, error: Exception) -> FindingError:
    again = f"python -m tests.fuzz {name} --seed {seed} --case {index}"
    return FindingError(
        f"{name}, case {index} of seed {seed}: {type(error).__name__}: {str(error)[:300]}\n  again: {again}"
    )
