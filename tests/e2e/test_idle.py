"""A busy kernel keeps its codespace awake; an idle one lets it sleep, or has it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, running_kernel, soon, text_of, until_idle
from .conftest import EmulatedAccount, cli, end_broker, wait_until
from .sleepy import CodespaceControl

pytestmark = pytest.mark.e2e

NAME = "cs-octocat-nap-python3"
DOWN = {"ShuttingDown", "Shutdown"}


@contextlib.contextmanager
def account_and_broker(monkeypatch, home, *options: str):
    """An emulated account, and a broker of its own that tells of activity each second."""
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home))
    account = EmulatedAccount(*options, repository="octocat/nap")
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        [sys.executable, "-m", "codespace_kernels.broker", "--activity-interval", "1"], stderr=subprocess.DEVNULL
    )
    wait_until(BrokerClient().running, "the broker to answer")
    control = CodespaceControl(account.environment)
    yield control
    assert cli("disconnect", control.codespace, "--yes").returncode == 0
    end_broker()
    process.wait(30)
    assert cli("emulator", "stop", env={**os.environ, **account.environment}).returncode == 0


@pytest.fixture
def hasty_account(monkeypatch, tmp_path_factory):
    """One whose minutes last a second; its idle timeout is thirty of them, enough to have a kernel there."""
    with account_and_broker(monkeypatch, tmp_path_factory.mktemp("h"), "--minute-seconds", "1") as control:
        yield control


@pytest.fixture
def account(monkeypatch, tmp_path_factory):
    """One whose idle timeout is too long to be met here."""
    with account_and_broker(monkeypatch, tmp_path_factory.mktemp("h")) as control:
        yield control


def usage() -> dict:
    (entry,) = BrokerClient().call("GET", "status")["workspaces"]
    return entry["usage"]


async def test_busy_keeps_awake_and_idle_lets_sleep(hasty_account):
    assert cli("connect", "octocat/nap").returncode == 0
    async with running_kernel(NAME) as (manager, client):
        run = client.execute("import time; time.sleep(20); print('done')")
        edited = await asyncio.to_thread(cli, "edit", hasty_account.codespace, "--idle-timeout", "10")
        assert edited.returncode == 0
        assert text_of(await until_idle(client, run)) == "done\n"
        assert hasty_account.state == "Available"
        await soon(lambda: hasty_account.state in DOWN, "the codespace to stop")
        await soon(lambda: not manager.provisioner._handle.alive, "the kernel's death to be told")


async def test_a_loop_that_nobody_looks_at_is_told_that_it_is_let_go(account):
    assert cli("connect", "octocat/nap", "--keep-awake", "never").returncode == 0
    policy = {"keep_awake": "busy", "keep_awake_hours": 0.004}
    async with running_kernel(NAME, config={"CodespaceProvisioner": policy}) as (_, client):
        run = client.execute("import time\nwhile True: time.sleep(0.1)")

        async def told(text: str) -> str:
            found = ""
            while text not in found:
                message = await client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") == run:
                    found += text_of([message])
            return found

        await soon(lambda: usage()["awake_until"], "the cap to be told")
        assert "it is kept awake no longer in 1 minute (keep_awake_hours is 0.004)" in await told("to go on.")
        assert "Nobody has used codespace" in await told("to go on.")
        # As GitHub does next, only that it takes longer.
        await asyncio.to_thread(account.stop)
        assert "was stopped; its kernels ended with it." in await told("kept awake no longer: nobody")


async def test_is_stopped_when_idle_and_says_so_in_the_next_cell(account):
    assert cli("connect", "octocat/nap", "--stop-when-idle", "0.25").returncode == 0
    async with running_kernel(NAME) as (manager, client):
        await execute(client, "x = 1")
        countdown = await soon(lambda: usage()["stop_when_idle_at"], "the countdown")

        # Who works in a terminal beside us is seen by GitHub's word.
        def put_off_by_another() -> bool:
            assert cli("ssh", account.codespace, "--", "true").returncode == 0
            return usage()["stop_when_idle_at"] > countdown

        while not await asyncio.to_thread(put_off_by_another):
            assert account.state == "Available"
        await soon(lambda: account.state in DOWN, "the codespace to be stopped")
        assert manager.provisioner._handle.alive
        await soon(lambda: account.state == "Shutdown", "its end")

        again = text_of(await until_idle(client, client.execute("print('x' in globals())")))
        assert "was stopped after 1 minute without work, as its kernelspec says" in again
        assert "This is a new kernel" in again
        assert again.endswith("\nFalse\n")
        assert text_of(await execute(client, "print(1)")) == "1\n"
        assert account.state == "Available"
