"""One emulated account and one broker for the end-to-end tests of a run; everything else in them is real."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from codespace_kernels.broker.client import BrokerClient

WAIT = 60.0
"""Seconds that a single step may take on a busy machine."""


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
        time.sleep(0.02)
    return value


def ended(pid: int) -> bool:
    """Whether a process runs no more; whoever adopted it may not have collected it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="session")
def account(shared_emulator):
    """The emulator, with this process and its children signed in to it."""
    before = dict(os.environ)
    os.environ.update(shared_emulator.environment())
    yield shared_emulator
    client = BrokerClient()
    if client.running():
        pid = client.call("GET", "")["pid"]
        client.call("POST", "quit", {})
        wait_until(lambda: ended(pid), "the broker to end")
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def kernel_name(account) -> str:
    """The kernelspec of the emulated codespace's python3, written by the product."""
    (codespace,) = account.codespaces
    done = run(sys.executable, "-m", "codespace_kernels.cli", "connect", codespace.name)
    assert done.returncode == 0, done.stderr
    return "cs-octocat-hello-codespaces-python3"
