"""Kernels through a broker on a loopback port: where it is asked for, and where the machine is taken for Windows."""

from __future__ import annotations

import json
import os
import sys

import pytest

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.endpoint import loopback_path, socket_path
from tests.pretended_windows import pretended_windows

from .clients import execute, running_kernel, text_of, until_idle
from .conftest import cli, end_broker, ended, run, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def codespace(account):
    """Its name, which the command line tells in the home where the emulator was started."""
    return account.codespace


@pytest.fixture
def home(codespace, kernel_name, tmp_path_factory, monkeypatch):
    """A home without a broker; the account's kernelspec is there."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home))
    return home


@pytest.fixture
def loopback(home, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", "loopback")
    yield
    end_broker()
    assert not loopback_path().exists()


async def test_kernel_is_as_any_other(codespace, kernel_name, loopback):
    async with running_kernel(kernel_name) as (manager, client):
        assert not socket_path().exists()
        messages = await execute(client, "import os; print(os.environ['CODESPACE_NAME'])")
        assert text_of(messages) == f"{codespace}\n"
        msg_id = client.execute("for i in range(2000): print(i, flush=True)")
        assert text_of(await until_idle(client, msg_id)).split() == [str(i) for i in range(2000)]
        await manager.restart_kernel()
        await client.wait_for_ready(timeout=60)
        assert text_of(await execute(client, "print('i' in globals())")) == "False\n"
    assert BrokerClient().call("GET", "status")["broker"]["pid"]


FRONT_END = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=60)
client.execute_interactive("for i in range(2000): print(i, flush=True)", timeout=60)
client.execute_interactive("import os; print(os.environ['CODESPACE_NAME'])", timeout=60)
client.stop_channels()
manager.shutdown_kernel()
"""


def test_kernel_where_the_machine_is_taken_for_windows(codespace, kernel_name, home, tmp_path):
    env = pretended_windows(tmp_path)
    done = run(sys.executable, "-c", FRONT_END, kernel_name, env=env)
    assert done.stdout.split() == [*map(str, range(2000)), codespace]
    pid = json.loads(cli("status", "--json", env=env).stdout)["broker"]["pid"]
    assert pid == json.loads((home / "run" / "broker.json").read_text())["pid"] != os.getpid()
    assert cli("quit", env=env).returncode == 0
    wait_until(lambda: ended(pid), "the broker to end")
    assert sorted(path.name for path in (home / "run").iterdir()) in ([], ["broker.lock"])
