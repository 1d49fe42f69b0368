"""How long it is tried to have a lost way again, and what ends a pause. What is tried is the test's own."""

from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.broker.mending import Mending, Patience
from codespace_kernels.errors import (
    BadTokenError,
    GitHubUnavailableError,
    LinkError,
    PendingOperationError,
    WorkspaceConnectionError,
    WorkspaceFailedError,
    WorkspaceNotFoundError,
    WorkspaceStoppedError,
)

WAIT = 60.0
LONG = 1000.0
SHORT = Patience(delays=(0.0, 0.005), unused=0.2, server_failures=3)


class Way:
    """Fails as it is told to, then works; `None` stands for a try that never ends."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.needed = True
        self.begun = asyncio.Event()

    async def attempt(self) -> None:
        self.begun.set()
        if not self.failures:
            return
        failure = self.failures.pop(0)
        if failure is None:
            await asyncio.Event().wait()
        assert failure is not None
        raise failure

    def mending(self, patience: Patience = SHORT) -> Mending:
        return Mending(self.attempt, lambda: self.needed, lambda: None, "The relay was cut.", patience)


async def result_of(mending: Mending) -> bool:
    return await asyncio.wait_for(mending.run(), WAIT)


PASSING = [
    WorkspaceConnectionError("no way"),
    GitHubUnavailableError("GitHub is down"),
    BadTokenError("The token was revoked."),
    PendingOperationError("It is being updated."),
    RuntimeError("a fault of ours"),
]


async def test_what_may_pass_is_tried_again():
    mending = Way(*PASSING).mending()
    assert await result_of(mending)
    assert mending.tries == len(PASSING) + 1


async def test_it_tells_which_try_it_is_and_why_it_is_not_mended():
    told = []
    way = Way(GitHubUnavailableError("GitHub is down."))
    mending = Mending(way.attempt, lambda: True, lambda: told.append(mending.describe()), "The relay was cut.", SHORT)
    assert await result_of(mending)
    assert told == ["try 1: The relay was cut.", "try 1: GitHub is down.", "try 2: GitHub is down."]


@pytest.mark.parametrize("error", [WorkspaceStoppedError, WorkspaceNotFoundError, WorkspaceFailedError])
async def test_what_no_try_mends_ends_it(error):
    mending = Way(WorkspaceConnectionError("no way"), error("The codespace is gone.")).mending()
    with pytest.raises(error):
        await result_of(mending)
    assert mending.tries == 2


async def test_a_codespace_of_which_github_knows_nothing_may_come_back():
    error = WorkspaceFailedError("Its state is Unavailable.")
    error.may_pass = True
    assert await result_of(Way(error).mending())


async def test_a_server_that_cannot_be_had_is_tried_some_times():
    broken = LinkError("The disk is full.")
    assert await result_of(Way(broken, broken, WorkspaceConnectionError("no way"), broken, broken).mending())
    with pytest.raises(LinkError):
        await result_of(Way(broken, broken, broken).mending())


async def test_it_ends_only_where_nobody_needs_it():
    way = Way(*[WorkspaceConnectionError("no way")] * 10_000)
    running = asyncio.create_task(result_of(way.mending()))
    await asyncio.sleep(0.6)
    assert not running.done()
    way.needed = False
    assert not await running


async def test_somebody_who_waits_ends_a_pause():
    way = Way(WorkspaceConnectionError("no way"))
    mending = way.mending(Patience(delays=(0.0, LONG)))
    running = asyncio.create_task(result_of(mending))
    await asyncio.wait_for(way.begun.wait(), WAIT)
    await asyncio.sleep(0.05)
    assert not running.done()
    mending.hurry()
    assert await running


async def test_news_of_the_network_give_up_a_try_that_hangs():
    way = Way(None)
    mending = way.mending(Patience(delays=(0.0, LONG), fresh=0.0))
    running = asyncio.create_task(result_of(mending))
    await asyncio.wait_for(way.begun.wait(), WAIT)
    mending.hurry()
    await asyncio.sleep(0.05)
    assert not running.done()
    mending.start_over()
    assert await running
    assert mending.tries == 2


async def test_a_try_that_has_just_begun_goes_on():
    way = Way(None)
    mending = way.mending(Patience(delays=(0.0, LONG), fresh=LONG))
    running = asyncio.create_task(result_of(mending))
    await asyncio.wait_for(way.begun.wait(), WAIT)
    mending.start_over()
    await asyncio.sleep(0.05)
    assert mending.tries == 1
    running.cancel()
    await asyncio.wait({running})
