"""The client without limits, on a real kernel of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from jupyter_client.manager import AsyncKernelManager

from benchmarks.kernel_code import PREPARE
from benchmarks.zmq_client import ZmqClient

pytestmark = pytest.mark.e2e


@pytest.fixture
async def client() -> AsyncIterator[ZmqClient]:
    manager = AsyncKernelManager(kernel_name="python3")
    await manager.start_kernel()
    try:
        client = ZmqClient(manager.get_connection_info())
        client.wait_for_ready()
        yield client
        client.close()
    finally:
        await manager.shutdown_kernel(now=True)


async def test_what_kernels_are_asked_for_arrives(client: ZmqClient):
    assert client.execute(PREPARE)["idle"]
    result = client.execute("burst(1000)")
    assert (result["counts"]["stream"], result["idle"]) == (1000, True)
    assert result["text"].split() == [str(number) for number in range(1000)]
    result = client.execute("displays(3, 1_000_000)")
    assert result["counts"]["display_data"] == 3
    assert result["bytes"] > 3_000_000
    result = client.execute("lines(0.3, 0.1)")
    assert result["text"] == "line 0\nline 1\nline 2\n"
    assert client.execute("buffers_down(2, 100_000)")["bytes"] > 200_000


async def test_a_kernel_answers_however_often_it_is_asked_whether_it_is_ready(client: ZmqClient):
    for _ in range(3):
        client.wait_for_ready(timeout=30)
