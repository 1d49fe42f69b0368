"""What the provider is asked, and when, by a clock of the test's own. The provider is the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json

import pytest

from codespace_kernels.broker.care import Care
from codespace_kernels.broker.ledger import Ledger
from codespace_kernels.broker.lookout import Lookout
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.broker.workspaces import WorkspaceSession
from codespace_kernels.errors import GitHubUnavailableError, WorkspaceNotFoundError
from codespace_kernels.providers.base import Workspace, WorkspaceState
from codespace_kernels.target import Account

from .test_ledger import KEY, Clock
from .test_usage import RUNNING, STOPPED


class Answers:
    """A provider that knows one workspace."""

    def __init__(self) -> None:
        self.answer: Workspace | Exception = RUNNING
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def resolve(self, name: str) -> Workspace:
        self.asked += 1
        answer = self.answer
        await self.go_on.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Scene:
    """One workspace that is not connected, and who looks after it."""

    def __init__(self, path) -> None:
        self.clock = Clock()
        self.ledger = Ledger(path, clock=self.clock)
        self.meter = UsageMeter(self.ledger, KEY)
        self.session = WorkspaceSession(
            Account(), "hello", self.meter, care=Care("hello", self.meter), lost=lambda reason: None
        )
        self.provider = Answers()
        self.session.provider = self.provider  # type: ignore[assignment]
        self.watched = True
        self.lookout = Lookout(self.ledger, lambda: [self.session], lambda: self.watched, self.stop_idle, tick=0.0)

    async def stop_idle(self, session) -> None:
        raise AssertionError("nothing is to be stopped")

    async def until(self, condition) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0)

    async def rounds(self) -> None:
        """Let some rounds pass."""
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def scene(tmp_path):
    scene = Scene(tmp_path / "usage.json")
    task = asyncio.create_task(scene.lookout.run())
    yield scene
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await scene.session.close()


async def test_asks_at_once_and_then_once_a_minute(scene):
    await scene.until(lambda: scene.meter.state is WorkspaceState.RUNNING)
    await scene.rounds()
    assert scene.provider.asked == 1
    scene.clock.now += 59
    await scene.rounds()
    assert scene.provider.asked == 1
    scene.clock.now += 1
    await scene.until(lambda: scene.provider.asked == 2)


async def test_asks_nothing_where_nobody_watches(scene):
    scene.watched = False
    await scene.rounds()
    asked = scene.provider.asked
    scene.clock.now += 3600
    await scene.rounds()
    assert scene.provider.asked == asked


async def test_a_provider_that_fails_changes_nothing_and_is_asked_again(scene):
    await scene.until(lambda: scene.meter.state is WorkspaceState.RUNNING)
    scene.provider.answer = GitHubUnavailableError("GitHub does not answer.")
    scene.clock.now += 60
    await scene.until(lambda: scene.provider.asked == 2)
    await scene.rounds()
    assert scene.meter.workspace == RUNNING
    assert scene.provider.asked == 2
    scene.provider.answer = STOPPED
    scene.clock.now += 60
    await scene.until(lambda: scene.meter.state is WorkspaceState.STOPPED)


async def test_a_provider_that_hangs_is_not_asked_twice(scene):
    await scene.until(lambda: scene.meter.state is WorkspaceState.RUNNING)
    scene.provider.go_on.clear()
    scene.clock.now += 60
    await scene.until(lambda: scene.provider.asked == 2)
    scene.clock.now += 600
    await scene.rounds()
    assert scene.provider.asked == 2


async def test_a_stop_is_followed_to_its_end(scene):
    await scene.until(lambda: scene.meter.state is WorkspaceState.RUNNING)
    scene.provider.answer = dataclasses.replace(STOPPED, state=WorkspaceState.STOPPING)
    scene.meter.stopped()
    await scene.until(lambda: scene.provider.asked >= 4)
    scene.provider.answer = STOPPED
    await scene.until(lambda: scene.meter.state is WorkspaceState.STOPPED)


async def test_an_answer_that_is_overtaken_is_dropped(scene):
    await scene.until(lambda: scene.meter.state is WorkspaceState.RUNNING)
    scene.provider.go_on.clear()
    scene.clock.now += 60
    await scene.until(lambda: scene.provider.asked == 2)
    scene.clock.now += 1
    scene.meter.learn(STOPPED)
    scene.provider.go_on.set()
    await scene.rounds()
    assert scene.meter.state is WorkspaceState.STOPPED


async def test_a_workspace_that_was_deleted(scene):
    await scene.until(lambda: scene.meter.state is WorkspaceState.RUNNING)
    scene.provider.answer = WorkspaceNotFoundError("There is none.")
    scene.clock.now += 60
    await scene.until(lambda: scene.meter.workspace is None)
    assert scene.meter.state is None


async def test_the_ledger_is_written_when_a_run_begins(scene, tmp_path):
    path = tmp_path / "usage.json"
    await scene.until(path.exists)
    (interval,) = json.loads(path.read_text())["workspaces"][KEY]
    assert interval["cores"] == 4
    await scene.until(lambda: not scene.ledger.unsaved)
