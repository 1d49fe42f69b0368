"""Codespaces that lack something: an image without an SSH server, the paramiko SSH server, and `gh` as the way in."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, reply_to, running_kernel, soon, text_of, until_idle
from .conftest import EmulatedAccount, cli
from .test_broker_dies import broker_kernels_or_none, kill_broker
from .test_kept import wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

WHERE = "import os; print(os.environ['CODESPACE_NAME'])"


@pytest.fixture
def own_account(account, monkeypatch, request):
    """An account of the test's own, beside the one that the others share."""
    own = EmulatedAccount(*getattr(request, "param", ()), repository="octocat/odd")
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    yield own
    cli("disconnect", own.codespace, "--yes")
    assert cli("emulator", "stop", env={**os.environ, **own.environment}).returncode == 0


async def works(account: EmulatedAccount) -> None:
    """Run a cell on the account's kernel."""
    async with running_kernel("cs-octocat-odd-python3") as (_, client):
        assert text_of(await execute(client, WHERE)) == f"{account.codespace}\n"


def connection(account: EmulatedAccount) -> str:
    """How the broker reaches the account's codespace."""
    sessions = BrokerClient().call("GET", "status")["workspaces"]
    return next(session["connection"] for session in sessions if session["name"] == account.codespace)


async def test_without_ssh_server_its_own_jupyter_server_gives_kernels(own_account, tmp_path):
    own_account.fault("no-sshd")
    assert cli("connect", own_account.codespace).returncode == 0
    await works(own_account)
    assert "own Jupyter server" in connection(own_account)
    assert "may be lost" in connection(own_account)
    said = cli("status")
    assert f"{own_account.codespace} is reached by its own Jupyter server" in said.stderr
    assert "ghcr.io/devcontainers/features/sshd" in said.stderr
    told = json.loads(cli("status", "--json").stdout)["workspaces"]
    (promise,) = [session["promise"] for session in told if session["name"] == own_account.codespace]
    assert promise["output"] == "may be lost"
    assert "SSH" in promise["why"]
    await check_that_a_cell_whose_broker_dies_ends(tmp_path / "go")


async def check_that_a_cell_whose_broker_dies_ends(go: Path) -> None:
    """See that it does, though its answer is lost, and its kernel goes on; it is let end by a file."""
    async with running_kernel("cs-octocat-odd-python3") as (_, client):
        msg_id = client.execute(f"print('begun', flush=True)\n{wait_for(go)}x = 17")
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "begun\n":
            pass
        await asyncio.to_thread(kill_broker)
        await soon(lambda: [k["state"] for k in broker_kernels_or_none()] == ["busy"], "the kernel to be taken back")
        go.touch()
        assert "The broker was started anew" in text_of(await until_idle(client, msg_id))
        assert (await reply_to(client, msg_id))["content"]["ename"] == "LinkError"
        assert text_of(await execute(client, "print(x)")) == "17\n"


def test_without_ssh_server_and_jupyter_the_feature_is_named(own_account):
    own_account.fault("no-sshd")
    own_account.fault("no-jupyter")
    done = cli("connect", own_account.codespace)
    assert done.returncode == 1
    assert "ghcr.io/devcontainers/features/sshd" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("own_account", [("--sshd", "paramiko")], indirect=True)
async def test_with_nothing_but_python(own_account):
    assert cli("connect", own_account.codespace).returncode == 0
    await works(own_account)


async def test_by_gh(own_account):
    done = cli("connect", own_account.codespace, "--transport", "gh", "--json")
    assert done.returncode == 0
    assert "gh codespace ssh" in json.loads(done.stdout)["connection"]
    await works(own_account)
