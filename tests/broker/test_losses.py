"""What a workspace session does when its way is lost. Provider and host are the test's own."""

from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.broker import hosts, workspaces
from codespace_kernels.broker.awake import Presence
from codespace_kernels.broker.care import Care
from codespace_kernels.broker.ledger import Ledger
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.broker.workspaces import SessionState, WorkspaceSession
from codespace_kernels.errors import GitHubUnavailableError, WorkspaceConnectionError, WorkspaceStoppedError
from codespace_kernels.progress import ProgressEvent, silent
from codespace_kernels.providers.base import Workspace, WorkspaceState
from codespace_kernels.target import Account

from .test_care import Kernel

WAIT = 60.0


class World:
    """A codespace, the provider's API, and the way to the codespace's kernels.

    Attributes:
        api: What asking the API gives: nothing (it runs), an error, or an event that must happen first.
        way: What trying to reconnect gives: nothing (it works) or an error.
        tries: Whether each try was made without the API.
    """

    git_host = "github.com"
    promise = {"output": "kept", "why": ""}
    description = "the test's own way"
    round_trip = heard_at = None

    def __init__(self) -> None:
        self.api: Exception | asyncio.Event | None = None
        self.way: Exception | None = None
        self.tries: list[bool] = []
        self.probes: list[float] = []
        self.closed = False
        self.is_running = lambda: False
        self.broken: asyncio.Queue[str] = asyncio.Queue()
        self.workspace = Workspace("hello", "hello", WorkspaceState.RUNNING, "Available", repository="octocat/hello")

    # As the provider.

    def prepare(self, name):
        pass

    async def ensure_running(self, name, progress, *, start, timeout):
        if isinstance(self.api, Exception):
            raise self.api
        if self.api is not None:
            await self.api.wait()
        progress(ProgressEvent("busy", "Waiting for codespace hello (Rebuilding)"))
        return self.workspace

    async def resolve(self, name):
        return self.workspace

    # As the host.

    def watch_closely(self, needed):
        self.is_running = needed

    def probe(self, limit):
        self.probes.append(limit)

    async def era(self):
        return ""

    async def disconnected(self):
        return await self.broken.get()

    async def reconnect(self, provider, workspace, progress, *, api_down=False):
        self.tries.append(api_down)
        if self.way is not None:
            raise self.way

    async def close(self):
        self.closed = True


@pytest.fixture
def world(monkeypatch) -> World:
    world = World()

    async def open_host(*_):
        return world

    monkeypatch.setattr(hosts, "open_host", open_host)
    monkeypatch.setattr(workspaces, "API_SECONDS", 0.2)
    return world


@pytest.fixture
async def session(world, tmp_path):
    meter = UsageMeter(Ledger(tmp_path / "usage.json"), "hello")
    told: list[str] = []
    care = Care("hello", meter, lambda: [Kernel(presence=Presence.BUSY)])
    session = WorkspaceSession(Account(), "hello", meter, care=care, needed=lambda: True, lost=told.append)
    session.told = told
    await session.connected(world, silent)
    yield session
    await session.close()


async def until(condition) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_stopped_codespace_ends_the_wait_with_the_cause(world, session):
    world.api = WorkspaceStoppedError("It is stopped.")
    world.workspace = Workspace(
        "hello", "hello", WorkspaceState.STOPPED, "Shutdown", stop_notice="Nobody used it for 30 minutes."
    )
    world.broken.put_nowait("The relay was cut.")
    await until(lambda: session.told)
    (reason,) = session.told
    assert reason == (
        "Codespace hello was stopped; its kernels ended with it. GitHub says: Nobody used it for 30 minutes. "
        "Restart the kernel."
    )
    assert session.state is SessionState.IDLE
    assert world.closed


@pytest.mark.parametrize("silent_api", [False, True])
async def test_without_the_api_the_last_way_is_tried(world, session, silent_api):
    world.api = asyncio.Event() if silent_api else GitHubUnavailableError("GitHub is down.")
    world.broken.put_nowait("The relay was cut.")
    await until(lambda: world.tries and session.state is SessionState.CONNECTED)
    assert world.tries == [True]
    assert session.told == []


async def test_where_that_fails_too_the_api_is_named(world, session):
    world.api, world.way = GitHubUnavailableError("GitHub is down."), WorkspaceConnectionError("No way is known.")
    world.broken.put_nowait("The relay was cut.")
    await until(lambda: session.mending is not None and session.mending.reason == "GitHub is down.")
    assert session.to_json()["reconnecting"]["reason"] == "GitHub is down."
    assert "GitHub is down." in session.to_json()["doing"]
    world.api = world.way = None
    session.hurry()
    await until(lambda: session.state is SessionState.CONNECTED)
    assert session.to_json()["reconnecting"] is None


async def test_news_of_the_network_probe_a_live_way_and_hurry_a_lost_one(world, session):
    session.look_again()
    assert world.probes == [workspaces.PROBE_SECONDS]
    world.way = WorkspaceConnectionError("No network.")
    world.broken.put_nowait("The relay was cut.")
    await until(lambda: len(world.tries) == 3)
    world.way = None
    session.look_again()
    await until(lambda: session.state is SessionState.CONNECTED)
    assert len(world.probes) == 1


async def test_who_starts_a_kernel_meanwhile_waits_for_the_same_mending(world, session):
    world.way = WorkspaceConnectionError("No network.")
    world.broken.put_nowait("The relay was cut.")
    await until(lambda: session.state is SessionState.RECONNECTING)
    events: list[ProgressEvent] = []
    other = asyncio.create_task(
        session.connected(world, events.append, start=False, timeout=workspaces.PATIENT_START_TIMEOUT)
    )
    await until(lambda: any("No network" in event.message for event in events))
    world.way = None
    session.hurry()
    assert await asyncio.wait_for(other, WAIT) is world


def test_a_busy_kernel_has_the_way_watched_closely(world, session):
    assert world.is_running()
