"""A busy kernel keeps its codespace awake; an idle one lets it sleep, or has it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.ledger import ledger_path
from codespace_kernels.broker.usage import SESSION_HOURS

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
def brisk_account(monkeypatch, tmp_path_factory):
    """One whose minutes last five seconds: its idle timeout is not met here, and limits are soon noticed."""
    with account_and_broker(monkeypatch, tmp_path_factory.mktemp("h"), "--minute-seconds", "5") as control:
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


ENDLESS = "import time\nwhile True: time.sleep(0.1)"


async def told(client, run: str, text: str) -> str:
    """Read what a cell prints until something is in it."""
    found = ""
    while text not in found:
        message = await client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == run:
            found += text_of([message])
    return found


def stops() -> str:
    """When the codespace stops, as the table of `status` says."""
    return cli("status").stdout.splitlines()[-1].split("\t")[3]


async def test_a_loop_that_nobody_looks_at_is_let_go(hasty_account):
    assert cli("connect", "octocat/nap", "--keep-awake", "never").returncode == 0
    policy = {"keep_awake": "busy", "keep_awake_hours": 0.004}
    async with running_kernel(NAME, config={"CodespaceProvisioner": policy}) as (manager, client):
        run = client.execute(ENDLESS)
        await soon(lambda: usage()["awake_until"], "the cap to be told")
        before = await told(client, run, "to go on.")
        assert "it is kept awake no longer in 1 minute (keep_awake_hours is 0.004)" in before
        assert hasty_account.state == "Available"
        assert "Nobody has used codespace" in await told(client, run, "to go on.")
        assert (await asyncio.to_thread(cli, "edit", hasty_account.codespace, "--idle-timeout", "5")).returncode == 0
        # Nobody but its idle timeout stops it: no notice comes in between.
        cause = await told(client, run, "kept awake no longer: nobody")
        assert "was stopped; its kernels ended with it. GitHub says: Your codespace was stopped because nobody" in cause
        await soon(lambda: not manager.provisioner._handle.alive, "the kernel's death to be told")
        assert hasty_account.state in DOWN


def age_session(seconds: float) -> None:
    """Have the broker's ledger say that the codespace has run for so long; none may run."""
    ledger = json.loads(ledger_path().read_text())
    ((*_, session),) = ledger["workspaces"].values()
    assert session["open"]
    session["begin"] = time.time() - seconds
    ledger_path().write_text(json.dumps(ledger))


async def test_the_end_of_the_longest_session_is_told_before_and_when_it_strikes(brisk_account):
    assert cli("connect", "octocat/nap").returncode == 0
    end_broker()
    age_session(SESSION_HOURS * 3600 - 600)
    async with running_kernel(NAME) as (manager, client):
        run = client.execute(ENDLESS)
        before = await told(client, run, "it begins a new session.")
        assert f"GitHub stops codespace {brisk_account.codespace} in 10 minutes: no session there lasts more" in before
        said = await asyncio.to_thread(stops)
        assert said.startswith("in ")
        assert said.endswith(" min, at its longest session")
        brisk_account.set("session-over", count=1)
        cause = await told(client, run, "GitHub stops every codespace after 12 hours.")
        assert "was stopped; its kernels ended with it. GitHub says: Your codespace was stopped because it had" in cause
        await soon(lambda: not manager.provisioner._handle.alive, "the kernel's death to be told")


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
