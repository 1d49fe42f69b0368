"""Makes the checks: those that are independent at the same time, each for a bounded time."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING

from codespace_kernels.doctor.findings import Check, Finding, Result, Verdict, fail
from codespace_kernels.errors import CodespaceKernelsError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from codespace_kernels.doctor.subject import Subject

log = logging.getLogger(__name__)

TOO_SLOW = "Try again. If it stays so, look at the network, and at the load of this computer."
DEFECT = "This is a defect of the check: run it with --debug and report it, with the file that --report writes."

_SENTENCE_END = re.compile(r"(?<=[a-z0-9)`'\"…][.!?])\s+(?=[A-Z`])")


async def examine(checks: Sequence[Check], subject: Subject) -> AsyncIterator[Result]:
    """Make checks and give their results, in the order of the checks and as soon as they are there.

    Args:
        checks: Those that another one needs or comes after may stand anywhere; one that is not there is not waited for.
        subject: What is examined. It stays open.
    """
    tasks: dict[str, asyncio.Task[Result]] = {}
    # All of them exist before the first one looks for another.
    for check in checks:
        tasks[check.name] = asyncio.create_task(_made(check, subject, tasks))
    try:
        for check in checks:
            yield await tasks[check.name]
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _made(check: Check, subject: Subject, tasks: dict[str, asyncio.Task[Result]]) -> Result:
    before = [tasks[name] for name in (*check.needs, *check.after) if name in tasks]
    if before:
        await asyncio.wait(before)
    for name in check.needs:
        if name in tasks and (reason := tasks[name].result().blocks):
            finding = Finding(Verdict.SKIPPED, f"skipped: because {reason}", blocks=reason)
            return Result(check, (finding,), 0.0)
    began = time.monotonic()
    findings = await _findings(check, subject)
    return Result(check, findings, time.monotonic() - began)


async def _findings(check: Check, subject: Subject) -> tuple[Finding, ...]:
    try:
        async with asyncio.timeout(check.seconds):
            found = await check.run(subject)
    except TimeoutError:
        return (fail(f"gave up after {check.seconds:g} s", TOO_SLOW),)
    except CodespaceKernelsError as error:
        return (failure(error),)
    except Exception as error:
        log.debug("The check %s failed", check.name, exc_info=True)
        return (fail(f"could not be looked at: {type(error).__name__}: {error}", DEFECT),)
    return (found,) if isinstance(found, Finding) else tuple(found)


def failure(error: CodespaceKernelsError, subject: str = "") -> Finding:
    """Turn an error into a finding: its first sentence is what was found, the rest is what to do."""
    first, *rest = _SENTENCE_END.split(" ".join(str(error).split()), maxsplit=1)
    fix = rest[0] if rest else TOO_SLOW if isinstance(error, WaitTimeoutError) else ""
    return fail(first.rstrip("."), fix, subject)
