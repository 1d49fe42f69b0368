from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from jupyter_client.asynchronous import AsyncKernelClient

from codespace_kernels.bridge import KernelBridge, WaitingState
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.local_kernel import LocalKernel

KEY = b"0123456789abcdef"


class Owner:
    """Writes down what a bridge tells its owner."""

    def __init__(self) -> None:
        self.shutdowns: list[bool] = []
        self.execution_states: list[str] = []
        self.kernel_states: list[tuple[KernelState, str]] = []
        self.runs_waiting = 0
        self.interrupted = 0
        self.kernel_infos: list[dict] = []
        self.notebooks: list[str] = []
        self.way = WaitingState("Reconnecting to octocat/ml", "", "try 3: no relay")
        self.told: list[str] = []
        self.waiting = 0
        self.acts = 0

    def shutdown_requested(self, *, restart: bool, session: str) -> None:
        self.shutdowns.append(restart)

    def execution_state_changed(self, state: str) -> None:
        self.execution_states.append(state)

    def kernel_state_changed(self, state: KernelState, reason: str) -> None:
        self.kernel_states.append((state, reason))

    def run_waits(self) -> None:
        self.runs_waiting += 1

    def waiting_interrupted(self) -> None:
        self.interrupted += 1

    def kernel_info_received(self, content: dict) -> None:
        self.kernel_infos.append(content)

    def lost_way(self) -> WaitingState:
        return self.way

    def told_of_way(self, text: str) -> None:
        self.told.append(text)

    def somebody_waits(self) -> None:
        self.waiting += 1

    def notebook_named(self, path: str) -> None:
        self.notebooks.append(path)

    def person_acted(self) -> None:
        self.acts += 1


async def until(condition, seconds: float = 60.0) -> None:
    """Wait for a condition, with a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


def connect(bridge: KernelBridge, client_class=AsyncKernelClient, **overrides):
    client = client_class()
    info = {**bridge.connection_info, **overrides}
    client.load_connection_info({**info, "key": info["key"].encode()})
    return client


@contextlib.asynccontextmanager
async def subscribed(bridge: KernelBridge, **overrides):
    """A client whose iopub subscription is known to be there: the bridge has greeted it."""
    client = connect(bridge, **overrides)
    client.iopub_channel.socket.rcvhwm = 0
    client.start_channels(hb=False)
    try:
        while (await client.get_iopub_msg(timeout=60))["msg_type"] != "iopub_welcome":
            pass
        yield client
    finally:
        client.stop_channels()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def bridge(owner):
    bridge = await KernelBridge.bind(key=KEY, owner=owner)
    yield bridge
    await bridge.close()


@pytest.fixture
async def kernel():
    kernel = LocalKernel()
    await kernel.start()
    yield kernel
    await kernel.shutdown()
    await kernel.close()
