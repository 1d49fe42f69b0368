"""What a codespace costs and when it stops, followed from its start to its end by somebody who only watches."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import subprocess
import sys

import pytest

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.ledger import ledger_path
from codespace_kernels.broker.protocol import Access
from codespace_kernels.errors import KernelError
from codespace_kernels.github import account_from_environment
from codespace_kernels.providers.prices import PRICES_DATE

from .clients import execute, running_kernel, soon, text_of, until_idle
from .conftest import EmulatedAccount, cli, end_broker, wait_until
from .sleepy import CodespaceControl, not_connected

pytestmark = pytest.mark.e2e

NAME = "cs-octocat-meter-python3"


@pytest.fixture
def asleep(tmp_path_factory, monkeypatch):
    """An account with a stopped codespace whose kernelspec is written, and a broker of its own."""
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path_factory.mktemp("h")))
    environment = EmulatedAccount(repository="octocat/meter").environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    account = CodespaceControl(environment)
    broker = subprocess.Popen(
        [sys.executable, "-m", "codespace_kernels.broker", "--activity-interval", "1"], stderr=subprocess.DEVNULL
    )
    wait_until(BrokerClient().running, "the broker to answer")
    assert cli("connect", "octocat/meter").returncode == 0
    account.stop()
    wait_until(not_connected, "the broker to notice")
    yield account
    assert cli("disconnect", account.codespace, "--yes").returncode == 0
    end_broker()
    broker.wait(60)
    assert cli("emulator", "stop").returncode == 0


class Seen:
    """Everything that a watcher was told of the one workspace."""

    def __init__(self) -> None:
        self.entries: list[dict] = []
        self.kernels: list[dict] = []

    async def watch(self) -> None:
        async with contextlib.aclosing(BrokerClient().watch()) as documents:
            async for document in documents:
                self.entries += document["workspaces"]
                self.kernels = document["kernels"]

    async def until(self, condition, what: str) -> dict:
        """Wait for an entry, from the last one on; give it."""
        begin = max(0, len(self.entries) - 1)
        return await soon(lambda: next((entry for entry in self.entries[begin:] if condition(entry)), None), what)


@pytest.fixture
async def seen():
    seen = Seen()
    task = asyncio.create_task(seen.watch())
    yield seen
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def seconds_until(moment: str) -> float:
    return (datetime.datetime.fromisoformat(moment) - datetime.datetime.now(datetime.UTC)).total_seconds()


async def stop(codespace: str, *, end_kernels: bool) -> dict:
    access = Access.of(account_from_environment(os.environ), os.environ)
    body = {"access": access.to_json(), "workspace": codespace, "end_kernels": end_kernels}
    return await asyncio.to_thread(BrokerClient().call, "POST", "workspaces/stop", body, timeout=90)


def check_what_people_see(codespace: str) -> None:
    """Look at `status` and `view` while a kernel works."""
    rows = [line.split("\t") for line in cli("status").stdout.splitlines()]
    # The last table is that of the costs.
    name, price, running, stops, session, month = rows[-1]
    assert (name, price, stops, session) == (codespace, "$0.18 an hour", "kept awake", "under $0.01")
    assert not running.startswith("at least")
    assert month.startswith("under $0.01 for ")
    facts = dict(line.split("\t") for line in cli("view", codespace).stdout.splitlines())
    assert (facts["Stops"], facts["This session"]) == ("kept awake", "under $0.01")
    assert PRICES_DATE in facts["Estimate"]


async def test_from_start_to_stop(asleep, seen):
    asleep.set("slow-start", seconds=3)
    async with running_kernel(NAME) as (_, client):
        run = client.execute("print(input())", allow_stdin=True)
        starting = await seen.until(lambda e: e["codespace_state"] == "starting", "the start to be told")
        assert starting["state"] == "connecting"
        assert starting["progress"]["stage"] in {"queue", "start"}
        assert starting["usage"]["running_since"] is None

        busy = await seen.until(lambda e: e["codespace_state"] == "running" and e["round_trip_ms"], "a round trip")
        await soon(lambda: [kernel["state"] for kernel in seen.kernels] == ["busy"], "the kernel to be busy")
        busy = await seen.until(lambda e: e["usage"]["idle_stops_at"] is None, "no countdown")
        usage = busy["usage"]
        assert usage["running_since_exact"]
        assert -60 < seconds_until(usage["running_since"]) <= 0
        assert seconds_until(usage["capped_at"]) > 11.9 * 3600
        assert (usage["cores"], usage["dollars_per_hour"], usage["idle_timeout_minutes"]) == (2, 0.18, 30)
        assert usage["machine"] == "2 cores, 8 GB RAM, 32 GB storage"

        await asyncio.to_thread(check_what_people_see, asleep.codespace)
        client.input("done")
        assert text_of(await until_idle(client, run)) == "done\n"
        idle = await seen.until(lambda e: e["usage"]["idle_stops_at"], "the countdown")
        assert 20 * 60 < seconds_until(idle["usage"]["idle_stops_at"]) <= 30 * 60
        assert idle["usage"]["session_dollars"] > usage["session_dollars"]
        assert idle["usage"]["month_dollars"] > idle["usage"]["session_dollars"]  # `connect` had it run before.

        # A cell so short that hardly a look finds the kernel at it is work, too.
        await asyncio.sleep(1.5)
        await execute(client, "1")
        countdown = idle["usage"]["idle_stops_at"]
        await seen.until(lambda e: (e["usage"]["idle_stops_at"] or "") > countdown, "the countdown to begin anew")

        with pytest.raises(KernelError, match=r"ends 1 kernel: python3 \(idle\)"):
            await stop(asleep.codespace, end_kernels=False)
        done = await stop(asleep.codespace, end_kernels=True)
        assert (done["stopped"], [kernel["state"] for kernel in done["kernels"]]) == (True, ["idle"])
        stopped = await seen.until(lambda e: e["codespace_state"] == "stopped", "the stop to be told")
        assert asleep.state == "Shutdown"
        assert stopped["usage"]["running_since"] is stopped["usage"]["idle_stops_at"] is None
        assert stopped["usage"]["month_hours"] > 0
        assert not (await stop(asleep.codespace, end_kernels=False))["stopped"]
    await asyncio.to_thread(end_broker)
    viewed = json.loads(cli("view", asleep.codespace, "--json").stdout)["usage"]
    assert viewed["month_hours"] == pytest.approx(stopped["usage"]["month_hours"])
    (intervals,) = json.loads(ledger_path().read_text())["workspaces"].values()
    assert [(interval["open"], interval["exact"]) for interval in intervals] == [(False, True), (False, True)]
