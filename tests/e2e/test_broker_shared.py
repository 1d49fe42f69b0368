"""One broker for every account and front end, and what happens when the way to a codespace breaks."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, running_kernel, soon, text_of, until_idle
from .conftest import cli

pytestmark = pytest.mark.e2e


@pytest.fixture
def second_account(account, monkeypatch, tmp_path):
    """Another emulator beside the first, its specs in the same kernels folder."""
    started = cli("emulator", "start", "--json", "--repository", "hubot/maps", "--transition-seconds", "0.1")
    environment = json.loads(started.stdout)["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield environment
    assert cli("emulator", "stop", env={**os.environ, **environment}).returncode == 0


async def test_two_accounts_side_by_side_on_one_broker(account, kernel_name, second_account):
    assert cli("connect", "hubot/maps").returncode == 0
    async with running_kernel(kernel_name) as (_, one), running_kernel("cs-hubot-maps-python3") as (_, two):
        code = "import os; print(os.environ['GITHUB_REPOSITORY'])"
        assert text_of(await execute(one, code)) == "octocat/hello-codespaces\n"
        assert text_of(await execute(two, code)) == "hubot/maps\n"
        status = BrokerClient().call("GET", "status")
    addresses = {account.environment["GITHUB_API_URL"], second_account["GITHUB_API_URL"]}
    assert {kernel["api_url"] for kernel in status["kernels"]} == addresses
    assert {s["api_url"] for s in status["workspaces"] if s["state"] == "connected"} >= addresses
    assert cli("disconnect", "hubot/maps", "--yes").returncode == 0


def test_blocking_manager_in_a_script(kernel_name):
    manager = KernelManager(kernel_name=kernel_name)
    manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive("print(6 * 7)", timeout=60)
        assert reply["content"]["status"] == "ok"
        client.stop_channels()
        assert manager.is_alive()
    finally:
        manager.shutdown_kernel()
    assert not manager.is_alive()


async def test_pending_kernels(kernel_name):
    manager = AsyncMultiKernelManager()
    manager.use_pending_kernels = True
    kernel_id = await manager.start_kernel(kernel_name=kernel_name)
    kernel = manager.get_kernel(kernel_id)
    await asyncio.wait_for(kernel.ready, 60)
    assert await kernel.is_alive()
    await manager.shutdown_kernel(kernel_id)
    await soon(lambda: BrokerClient().call("GET", "kernels")["kernels"] == [], "the kernel to end")


async def test_nothing_is_lost_when_the_relay_drops(account, kernel_name):
    code = "import time\nfor i in range(60):\n    print(i, flush=True)\n    time.sleep(0.05)"
    async with running_kernel(kernel_name) as (_, client):
        msg_id = client.execute(code)
        while (await client.get_iopub_msg(timeout=30))["content"].get("text") != "10\n":
            pass
        before = account.status()["relay_connections"]
        await asyncio.to_thread(account.fault, "relay-drop")
        await asyncio.to_thread(account.fault, "relay-drop", "--clear")
        lines = text_of(await until_idle(client, msg_id)).split()
        assert lines == [str(i) for i in range(11, 60)]
        assert text_of(await execute(client, "print('and on')")) == "and on\n"
        assert account.status()["relay_connections"] > before


async def test_a_kernel_of_a_codespace_that_was_stopped_is_dead_and_wakes_nothing(account, kernel_name):
    async with running_kernel(kernel_name) as (manager, _):
        assert cli("stop", account.codespace, "--yes").returncode == 0
        await soon(
            lambda: BrokerClient().call("GET", "kernels")["kernels"][0]["state"] == "dead", "the death to be told"
        )
        assert not await manager.is_alive()
        assert account.status()["codespaces"][0]["state"] in {"Shutdown", "ShuttingDown"}
    async with running_kernel(kernel_name) as (_, client):
        assert text_of(await execute(client, "print('awake again')")) == "awake again\n"
