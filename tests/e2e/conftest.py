"""One emulated account and one broker for the end-to-end tests of a run; everything else in them is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record

WAIT = 60.0
"""Seconds that a single step may take on a busy machine."""

REPOSITORY = Path(__file__).parents[2]
SCREENSHOTS = Path(os.environ.get("TEST_ARTIFACTS", REPOSITORY / "artifacts")) / "screenshots"
"""Where a picture of each front end's last state is kept: CI keeps the folder that `TEST_ARTIFACTS` names."""


def run(*command: str, timeout: float = 120.0, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is shown when a test fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **kwargs)
    print(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


def wait_until(condition, what: str, seconds: float = WAIT):
    """Wait for a condition and give its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        # Many a condition looks at every process of this machine.
        time.sleep(0.05)
    return value


def ended(pid: int) -> bool:
    """Whether a process runs no more; whoever adopted it may not have collected it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listens(process: subprocess.Popen) -> bool:
    """Whether a process that was started here still takes connections."""
    try:
        return any(one.status == psutil.CONN_LISTEN for one in psutil.Process(process.pid).net_connections("inet"))
    except psutil.Error:
        return False


def end_server(process: subprocess.Popen) -> None:
    """End a Jupyter server, and with it its kernels.

    To stop listening is the last thing that it does. One that is told to end while it reads a file then waits for ever
    for the thread that did so, which anyio has lost.
    """
    process.terminate()
    wait_until(lambda: process.poll() is not None or not listens(process), "the server to end its kernels")
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(WAIT)


def kernels_inside(codespace: str) -> list[int]:
    """Process ids of the kernels in an emulated codespace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CODESPACE_NAME") == codespace and "ipykernel_launcher" in process.cmdline():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def cli(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return run(sys.executable, "-m", "codespace_kernels.cli", *arguments, **kwargs)


class EmulatedAccount:
    """An emulator in a process of its own, as a person starts it: nothing of it shares the test's interpreter."""

    def __init__(self, *options: str, repository: str = "octocat/hello-codespaces") -> None:
        start = ("emulator", "start", "--json", "--transition-seconds", "0.1", "--repository", repository)
        started = cli(*start, *options)
        assert started.returncode == 0
        self.environment: dict[str, str] = json.loads(started.stdout)["environment"]
        self._control = ControlClient(find_record(self.environment["GITHUB_API_URL"]))

    def status(self) -> dict:
        """What `emulator status` says; asked in this process, since tests ask it often."""
        return self._control.status()

    @property
    def codespace(self) -> str:
        """Name of the account's codespace."""
        return self.status()["codespaces"][0]["name"]

    def fault(self, *arguments: str) -> None:
        """Set or clear a fault."""
        assert cli("emulator", "fault", *arguments).returncode == 0


def broker_kernels() -> list[dict]:
    """The kernels that the broker has, held and kept."""
    return BrokerClient().call("GET", "kernels")["kernels"]


def end_broker() -> None:
    """End this run's broker, if there is one, and wait for it."""
    client = BrokerClient()
    if client.running():
        pid = client.call("GET", "")["pid"]
        client.call("POST", "quit", {})
        wait_until(lambda: ended(pid), "the broker to end")


@pytest.fixture(scope="package")
def account():
    """The emulator, with this process and its children signed in to it."""
    before = dict(os.environ)
    account = EmulatedAccount()
    os.environ.update(account.environment)
    yield account
    end_broker()
    assert cli("emulator", "stop").returncode == 0
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="package")
def kernel_name(account):
    """The kernelspec of the emulated codespace's python3, written by the product."""
    done = cli("connect", account.codespace, "--json")
    assert done.returncode == 0
    # A machine that has other kernels for all its users lends them to its codespaces, too.
    (spec,) = [spec for spec in json.loads(done.stdout)["kernelspecs"] if spec["kernel"] == "python3"]
    assert spec["name"] == "cs-octocat-hello-codespaces-python3"
    yield spec["name"]
    assert cli("disconnect", account.codespace, "--yes").returncode == 0
