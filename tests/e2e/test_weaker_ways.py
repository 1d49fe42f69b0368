"""Codespaces that lack something: an image without an SSH server, the paramiko SSH server, and `gh` as the way in."""

from __future__ import annotations

import json
import os

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, running_kernel, text_of
from .conftest import EmulatedAccount, cli

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


async def test_without_ssh_server_its_own_jupyter_server_gives_kernels(own_account):
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
