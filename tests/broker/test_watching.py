"""The stream of the broker's status: what is told when, to whom, and what becomes of who does not listen."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import psutil
import pytest

from codespace_kernels.broker.accounts import Accounts
from codespace_kernels.broker.broker import Broker
from codespace_kernels.broker.protocol import Access
from codespace_kernels.broker.watchers import Watchers
from codespace_kernels.broker.workspaces import SessionState
from codespace_kernels.errors import BrokerError
from codespace_kernels.target import Account

from .test_process import client_with_a_home, ended, wait_until


def status_of(state: str = "idle", dollars: float = 0.0) -> dict:
    """A status with one workspace and one kernel."""
    usage = {"session_dollars": dollars, "month_dollars": dollars, "month_hours": 0.0, "idle_stops_at": None}
    workspace = {"name": "hello", "round_trip": dollars, "round_trip_ms": dollars, "usage": usage}
    kernel = {"id": "1", "state": state, "messages": {"to_kernel": dollars}}
    return {"broker": {}, "workspaces": [workspace], "kernels": [kernel]}


class Board:
    """A status that a test changes, and who watches it."""

    def __init__(self, **options: float) -> None:
        self.status = status_of()
        self.watchers = Watchers(lambda: self.status, **options)

    def show(self, status: dict) -> None:
        self.status = status
        self.watchers.changed()


async def soon(document) -> dict:
    async with asyncio.timeout(60):
        return await anext(document)


class TestWatchers:
    async def test_tells_at_once_and_what_changed(self):
        board = Board(pause=0.0, heartbeat=3600)
        async with contextlib.aclosing(board.watchers.documents()) as documents:
            assert await soon(documents) == status_of()
            board.show(status_of("busy"))
            assert await soon(documents) == status_of("busy")

    async def test_what_grows_steadily_is_told_with_the_heartbeat(self):
        board = Board(pause=0.0, heartbeat=3600)
        async with contextlib.aclosing(board.watchers.documents()) as documents:
            await soon(documents)
            following = asyncio.ensure_future(soon(documents))
            board.show(status_of(dollars=1.0))
            await asyncio.sleep(0.05)
            assert not following.done()
            board.show(status_of("busy", dollars=2.0))
            assert await following == status_of("busy", dollars=2.0)
        board = Board(pause=0.0, heartbeat=0.05)
        async with contextlib.aclosing(board.watchers.documents()) as documents:
            await soon(documents)
            board.status = status_of(dollars=1.0)
            assert await soon(documents) == status_of(dollars=1.0)

    async def test_who_is_slow_gets_the_newest_only(self):
        board = Board(pause=0.0, heartbeat=3600)
        async with contextlib.aclosing(board.watchers.documents()) as documents:
            await soon(documents)
            for state in ("busy", "idle", "dead"):
                board.show(status_of(state))
                await asyncio.sleep(0)
            assert await soon(documents) == status_of("dead")

    async def test_many_changes_are_one_document(self):
        board = Board(pause=0.3, heartbeat=3600)
        async with contextlib.aclosing(board.watchers.documents()) as documents:
            await soon(documents)
            following = asyncio.ensure_future(soon(documents))
            for number in range(50):
                board.show(status_of(f"state {number}"))
                await asyncio.sleep(0)
            assert await following == status_of("state 49")

    async def test_counts_them_and_ends_them(self):
        board = Board(pause=0.0, heartbeat=3600)
        documents = board.watchers.documents()
        await soon(documents)
        assert len(board.watchers) == 1
        following = asyncio.ensure_future(anext(documents, None))
        await asyncio.sleep(0)
        board.watchers.close()
        async with asyncio.timeout(60):
            assert await following is None
        assert len(board.watchers) == 0


@pytest.fixture(params=["unix", "loopback"])
def client(tmp_path_factory, monkeypatch, request):
    yield from client_with_a_home(tmp_path_factory, monkeypatch, request.param)


async def test_a_missing_broker_is_told_and_waited_for_but_not_started(client):
    async with contextlib.aclosing(client.watch(look_interval=0.05)) as documents:
        assert await soon(documents) == {"broker": None, "workspaces": [], "kernels": []}
        following = asyncio.ensure_future(soon(documents))
        await asyncio.sleep(0.3)
        assert not following.done()
        assert not client.running()
        await asyncio.to_thread(client.ensure)
        assert (await following)["broker"]["pid"] == client.call("GET", "")["pid"]


async def test_the_end_of_the_broker_is_told_and_the_next_one_is_found(client):
    await asyncio.to_thread(client.ensure)
    async with contextlib.aclosing(client.watch(look_interval=0.05)) as documents:
        pid = (await soon(documents))["broker"]["pid"]
        await asyncio.to_thread(client.call, "POST", "quit", {})
        assert (await soon(documents))["broker"] is None
        await asyncio.to_thread(wait_until, lambda: ended(pid), "the broker to end")
        await asyncio.to_thread(client.ensure)
        assert (await soon(documents))["broker"]["pid"] != pid


async def test_a_watcher_does_not_keep_an_idle_broker(client):
    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-m", "codespace_kernels.broker", "--idle-timeout", "1"]
    )
    async with contextlib.aclosing(client.watch(look_interval=0.05)) as documents:
        seen = [document async for document in until_gone(documents)]
    assert await asyncio.to_thread(process.wait, 60) == 0
    assert [entry["broker"]["pid"] for entry in seen] == [process.pid]


async def test_what_is_connected_and_watched_keeps_the_broker_and_no_longer(monkeypatch, tmp_path):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path))
    broker = Broker(idle_timeout=0.1, accounts=Accounts(lambda access: NoProvider()))
    session = broker.session(Access(Account()), "hello")
    session.state = SessionState.CONNECTED
    clock = asyncio.create_task(broker.watch_idleness())
    async with contextlib.aclosing(broker.watchers.documents()) as documents:
        assert [entry["name"] for entry in (await soon(documents))["workspaces"]] == ["hello"]
        await asyncio.sleep(0.5)
        assert not broker.idle.is_set()
        session.state = SessionState.IDLE
        async with asyncio.timeout(60):
            await broker.idle.wait()
    clock.cancel()
    await broker.close()


class NoProvider:
    """A provider that nobody asks anything."""

    async def close(self) -> None: ...


async def until_gone(documents):
    """Give the documents of one broker, from its first to its last."""
    while (document := await soon(documents))["broker"] is None:
        pass
    while document["broker"] is not None:
        yield document
        document = await soon(documents)


async def test_who_watches_no_more_leaves_nothing(client):
    await asyncio.to_thread(client.ensure)
    broker = psutil.Process(client.call("GET", "")["pid"])
    before = broker.num_fds()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            await soon(await stack.enter_async_context(contextlib.aclosing(client.watch())))
        assert broker.num_fds() > before + 6
    # Not to the last one: other requests and files of the broker's come and go.
    await asyncio.to_thread(wait_until, lambda: broker.num_fds() <= before + 6, "the streams to be closed")


async def test_a_watcher_that_does_not_read_holds_nobody_up(client):
    await asyncio.to_thread(client.ensure)
    stuck = client.connect(60)
    stuck.request("GET", "/v1/watch")
    try:
        async with contextlib.aclosing(client.watch()) as documents:
            assert (await soon(documents))["broker"]
        pid = client.call("GET", "")["pid"]
        client.call("POST", "quit", {})
        await asyncio.to_thread(wait_until, lambda: ended(pid), "the broker to end")
    finally:
        stuck.close()


async def test_a_broker_of_another_version_says_so(client, monkeypatch):
    await asyncio.to_thread(client.ensure)
    with monkeypatch.context() as patch:
        patch.setattr("codespace_kernels.broker.client.API", "v0")
        with pytest.raises(BrokerError, match="no such request"):
            await soon(client.watch())
