"""A busy kernel keeps its codespace awake; an idle one lets it sleep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, running_kernel, soon, text_of
from .conftest import EmulatedAccount, cli, end_broker, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def hasty_account(monkeypatch, tmp_path_factory):
    """An account whose minutes last 0.4 seconds, and a broker of its own that tells of activity each second."""
    home = tmp_path_factory.mktemp("h")
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home))
    account = EmulatedAccount("--minute-seconds", "0.4", repository="octocat/nap")
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        [sys.executable, "-m", "codespace_kernels.broker", "--activity-interval", "1"], stderr=subprocess.DEVNULL
    )
    wait_until(BrokerClient().running, "the broker to answer")
    yield account
    end_broker()
    process.wait(30)
    assert cli("emulator", "stop", env={**os.environ, **account.environment}).returncode == 0


async def test_busy_keeps_awake_and_idle_lets_sleep(hasty_account):
    assert cli("connect", "octocat/nap").returncode == 0
    async with running_kernel("cs-octocat-nap-python3") as (manager, client):
        # Thirty of those minutes, the idle timeout, are twelve seconds; the cell runs for longer.
        assert text_of(await execute(client, "import time; time.sleep(16); print('done')")) == "done\n"
        assert hasty_account.status()["codespaces"][0]["state"] == "Available"
        await soon(
            lambda: hasty_account.status()["codespaces"][0]["state"] in {"ShuttingDown", "Shutdown"},
            "the codespace to stop",
        )
        await soon(lambda: not manager.provisioner._handle.alive, "the kernel's death to be told")
