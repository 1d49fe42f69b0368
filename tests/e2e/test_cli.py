"""`connect`, `status`, `disconnect` and `stop` with a real codespace behind them."""

import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from .conftest import cli, wait_until

pytestmark = pytest.mark.e2e

COMMAND = (sys.executable, "-m", "codespace_kernels.cli")
SPEC = "cs-octocat-hello-codespaces-python3"


@pytest.fixture
def own_jupyter(monkeypatch, tmp_path):
    """A kernels folder of this test's own."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))


@pytest.fixture
def codespace(account, own_jupyter) -> str:
    return account.codespace


def state(account) -> str:
    (codespace,) = account.status()["codespaces"]
    return codespace["state"]


@pytest.fixture
def stopped(account, codespace) -> str:
    """The codespace, stopped."""
    assert cli("stop", codespace, "--yes").returncode == 0
    wait_until(lambda: state(account) == "Shutdown", "the codespace to stop")
    return codespace


def test_connect_writes_what_front_ends_read(codespace):
    done = cli("connect", codespace, "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert set(answer) == {"workspace", "connection", "kernelspecs", "offers"}
    assert answer["workspace"]["name"] == codespace
    assert (answer["workspace"]["state"], answer["workspace"]["provider_state"]) == ("running", "Available")
    assert "tunnel" in answer["connection"]
    (written,) = [entry for entry in answer["kernelspecs"] if entry["name"] == SPEC]
    assert written["kernel"] == "python3"
    spec = KernelSpecManager().get_kernel_spec(SPEC)
    assert spec.display_name == written["display_name"] == "Python 3 · octocat/hello-codespaces (codespace)"
    assert spec.resource_dir == written["folder"]


def test_connect_says_what_to_do_next(codespace):
    done = cli("connect", codespace)
    assert done.returncode == 0
    assert SPEC in {line.split("\t")[0] for line in done.stdout.splitlines()}
    for word in ("JupyterLab", "VS Code", f"kernel_name={SPEC}", "dev tunnel"):
        assert word in done.stderr


def test_unknown_kernel_writes_nothing(codespace):
    done = cli("connect", codespace, "--kernel", "python3", "--kernel", "cobol")
    assert done.returncode == 3
    assert re.search(r"no kernel cobol\. It has: .*\bpython3\b", done.stderr)
    assert SPEC not in KernelSpecManager().find_kernel_specs()


def test_python_that_is_not_there_gets_no_ipykernel(codespace):
    done = cli("connect", codespace, "--install-ipykernel", "/nowhere/python")
    assert done.returncode == 1
    assert "/nowhere/python" in done.stderr.splitlines()[-1]
    assert not KernelSpecManager().find_kernel_specs().get(SPEC)


def test_chosen_transport_stands_in_the_spec(codespace):
    assert cli("connect", codespace, "--transport", "tunnel").returncode == 0
    assert KernelSpecManager().get_kernel_spec(SPEC).env["CODESPACE_KERNELS_TRANSPORT"] == "tunnel"


def test_kernel_from_start_to_disconnect(codespace):
    assert cli("connect", codespace, "--kernel", "python3").returncode == 0
    manager = KernelManager(kernel_name=SPEC)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(60)
        client.execute("input()", allow_stdin=True)
        client.get_stdin_msg(timeout=60)
        status = json.loads(cli("status", "--json").stdout)
        (kernel,) = (entry for entry in status["kernels"] if entry["workspace"] == codespace)
        assert (kernel["kernel"], kernel["state"]) == ("python3", "busy")
        (workspace,) = (entry for entry in status["workspaces"] if entry["name"] == codespace)
        assert workspace["state"] == "connected"
        shown = cli("status").stdout
        assert f"python3\t{codespace}\tbusy" in shown
        refused = cli("disconnect", codespace, stdin=subprocess.DEVNULL)
        assert refused.returncode == 2
        assert "python3, busy" in refused.stderr
        assert "--yes" in refused.stderr
        done = cli("disconnect", codespace, "--yes")
        assert done.returncode == 0
        assert SPEC not in KernelSpecManager().find_kernel_specs()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    status = json.loads(cli("status", "--json").stdout)
    assert not [entry for entry in status["workspaces"] if entry["name"] == codespace]


def test_no_start(account, stopped):
    done = cli("connect", stopped, "--no-start")
    assert done.returncode == 1
    assert stopped in done.stderr.splitlines()[-1]
    assert state(account) == "Shutdown"


def test_interrupted_while_the_codespace_starts(account, stopped):
    account.fault("slow-start", "--option", "seconds=8", "--option", "count=1")
    process = subprocess.Popen(
        [*COMMAND, "connect", stopped], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        for line in process.stderr:
            if line.startswith("Starting"):
                break
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().splitlines()[-1] == "Error: Interrupted."
    assert process.returncode == 130
    wait_until(lambda: not _connecting(), "the broker to give up")
    wait_until(lambda: state(account) == "Available", "the codespace to be as other tests expect it")


def _connecting() -> bool:
    status = json.loads(cli("status", "--json").stdout)
    return any(entry["state"] == "connecting" for entry in status["workspaces"])


def test_environment_of_this_run_is_not_the_brokers(account, codespace):
    assert cli("connect", codespace).returncode == 0
    pid = json.loads(cli("status", "--json").stdout)["broker"]["pid"]
    environment = str(psutil.Process(pid).environ())
    assert os.environ["GH_ENTERPRISE_TOKEN"] not in environment
    assert "GITHUB_API_URL" not in environment
