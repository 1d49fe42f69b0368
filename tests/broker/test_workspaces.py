"""Who shares an attempt to connect, and who may have the workspace started. The provider is the test's own."""

from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.broker.care import Care
from codespace_kernels.broker.ledger import Ledger
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.broker.workspaces import PATIENT_START_TIMEOUT, START_TIMEOUT, WorkspaceSession
from codespace_kernels.errors import PaymentRequiredError, WorkspaceStoppedError
from codespace_kernels.progress import ProgressEvent, silent
from codespace_kernels.target import Account


class StoppedWorkspace:
    """A provider whose workspace is stopped, and cannot be started in the end."""

    def __init__(self) -> None:
        self.asked: list[tuple[bool, float]] = []
        self.go_on = asyncio.Event()

    def prepare(self, name):
        pass

    async def ensure_running(self, name, progress, *, start, timeout):
        self.asked.append((start, timeout))
        progress(ProgressEvent("start", "Starting"))
        await self.go_on.wait()
        if not start:
            raise WorkspaceStoppedError(f"{name} is stopped.")
        raise PaymentRequiredError("The limit is reached.")


@pytest.fixture
async def session(tmp_path):
    meter = UsageMeter(Ledger(tmp_path / "usage.json"), "hello")
    session = WorkspaceSession(Account(), "hello", meter, care=Care("hello", meter), lost=lambda reason: None)
    yield session
    await session.close()


async def until_asked(provider: StoppedWorkspace, times: int) -> None:
    async with asyncio.timeout(60):
        while len(provider.asked) < times:
            await asyncio.sleep(0)


async def test_who_may_start_it_is_not_content_with_an_attempt_that_may_not(session):
    provider = StoppedWorkspace()
    careful = asyncio.create_task(session.connected(provider, silent, start=False))
    await until_asked(provider, 1)
    bold = asyncio.create_task(session.connected(provider, silent, timeout=PATIENT_START_TIMEOUT))
    await asyncio.sleep(0)
    assert len(provider.asked) == 1
    provider.go_on.set()
    with pytest.raises(WorkspaceStoppedError):
        await careful
    with pytest.raises(PaymentRequiredError):
        await bold
    assert provider.asked == [(False, START_TIMEOUT), (True, PATIENT_START_TIMEOUT)]


async def test_an_attempt_that_starts_it_serves_all(session):
    provider = StoppedWorkspace()
    bold = asyncio.create_task(session.connected(provider, silent))
    await until_asked(provider, 1)
    careful = asyncio.create_task(session.connected(provider, silent, start=False))
    provider.go_on.set()
    for waiting in (bold, careful):
        with pytest.raises(PaymentRequiredError):
            await waiting
    assert len(provider.asked) == 1


async def test_who_comes_just_after_the_last_one_left_is_not_cancelled_with_the_attempt(session):
    provider = StoppedWorkspace()
    first = asyncio.create_task(session.connected(provider, silent))
    await until_asked(provider, 1)
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(session.connected(provider, silent))
    await until_asked(provider, 2)
    provider.go_on.set()
    with pytest.raises(PaymentRequiredError):
        await second
