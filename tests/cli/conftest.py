"""The command line as a real process, in folders of the test's own, signed in to an emulated account."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from codespace_kernels import settings
from codespace_kernels.cli import main

TIMEOUT = 90.0
"""Seconds that one run may take on a busy machine."""

COMMAND = (sys.executable, "-m", "codespace_kernels.cli")


def run_cli(*arguments: str, env: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, without a terminal; its output is shown when a test fails."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
    done = subprocess.run(
        [*COMMAND, *arguments], text=True, timeout=TIMEOUT, check=False, env={**os.environ, **(env or {})}, **options
    )
    print(f"$ codespace-kernels {' '.join(arguments)}\n{done.stdout}{done.stderr}[{done.returncode}]")
    return done


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Give the one line that tells of a failure."""
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr
    return line


@pytest.fixture(autouse=True)
def home(monkeypatch):
    """Folders of this test's own; the broker that it started there is ended."""
    # A short path: sockets live below it.
    folder = Path(tempfile.mkdtemp(prefix="ckc-"))
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(folder / "home"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "jupyter"))
    for name in ("GITHUB_API_URL", "GH_ENTERPRISE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    assert main(["quit"]) == 0
    shutil.rmtree(settings.runtime_dir(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def sign_in(account, monkeypatch):
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    return account


@pytest.fixture
def signed_in(shared_emulator, monkeypatch):
    """The account that the tests of the run share: they leave it as they found it."""
    return sign_in(shared_emulator, monkeypatch)


@pytest.fixture
def own_account(home, emulator, monkeypatch):
    """An account of this test's own."""
    return sign_in(emulator, monkeypatch)


@pytest.fixture
def codespace(signed_in) -> str:
    """Name of the shared account's codespace."""
    (name,) = signed_in.account.codespaces
    return name
