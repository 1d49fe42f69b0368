from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from codespace_kernels.emulator import ThreadedEmulator

WaitFor = Callable[[str], dict]


def client_of(emulator: ThreadedEmulator, token: str | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=emulator.api_url,
        headers={"Authorization": f"token {token or emulator.token}"},
        trust_env=False,
        timeout=60,
    )


class Gh:
    """The real `gh codespace …` with the environment of an emulator."""

    def __init__(self, environment: dict[str, str]) -> None:
        found = shutil.which("gh", path=Path(sys.executable).parent) or shutil.which("gh")
        if not found:
            pytest.skip("the real gh is not installed (it is in the extra `test`)")
        self.program = found
        path = f"{Path(found).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "GH_BROWSER": "true", **environment}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [self.program, "codespace", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def text(self, *arguments: str) -> str:
        """Run a command that must succeed; gives what it printed."""
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that runs until it is interrupted."""
        return subprocess.Popen(
            [self.program, "codespace", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def api(emulator: ThreadedEmulator) -> Iterator[httpx.Client]:
    """The emulated API, as the token's user sees it."""
    with client_of(emulator) as client:
        yield client


@pytest.fixture
def name(emulator: ThreadedEmulator) -> str:
    """Name of the one codespace that an emulator begins with."""
    return next(iter(emulator.account.codespaces))


@pytest.fixture
def wait_for(api: httpx.Client, name: str) -> WaitFor:
    """Wait until the codespace is in a state; gives the internal form."""

    def wait(state: str) -> dict:
        deadline = time.monotonic() + 60
        while True:
            codespace = api.get(f"/user/codespaces/{name}", params={"internal": "true"}).json()
            if codespace["state"] == state:
                return codespace
            assert time.monotonic() < deadline, f"still {codespace['state']}, not {state}"
            time.sleep(0.02)

    return wait
