from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from codespace_kernels.emulator import ThreadedEmulator

WaitFor = Callable[[str], dict]


def client_of(emulator: ThreadedEmulator, token: str | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=emulator.api_url,
        headers={"Authorization": f"token {token or emulator.token}"},
        trust_env=False,
        timeout=10,
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
        deadline = time.monotonic() + 30
        while True:
            codespace = api.get(f"/user/codespaces/{name}", params={"internal": "true"}).json()
            if codespace["state"] == state:
                return codespace
            assert time.monotonic() < deadline, f"still {codespace['state']}, not {state}"
            time.sleep(0.02)

    return wait
