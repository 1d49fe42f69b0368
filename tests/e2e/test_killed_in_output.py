"""The broker is killed while output passes through its sockets as fast as it can: each line comes once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
from typing import TYPE_CHECKING

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import connected, reply_to, running_kernel, what_the_broker_knows
from .conftest import WAIT
from .test_broker_dies import kill_broker

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient

pytestmark = pytest.mark.e2e

LINES = 9000
KILLS = 3
NUMBERS = f"""
for number in range({LINES}):
    print(number, flush=True)
"""


class Reader:
    """Reads what one front end is sent of a run; a message that comes twice makes jupyter_client raise an error."""

    def __init__(self, client: AsyncKernelClient, msg_id: str) -> None:
        self._client = client
        self._msg_id = msg_id
        self.lines: list[str] = []
        self.moved = asyncio.Event()

    async def run(self) -> list[str]:
        while True:
            try:
                message = await self._client.get_iopub_msg(timeout=WAIT)
            except queue.Empty:
                broker = await asyncio.to_thread(what_the_broker_knows)
                pytest.fail(f"nothing came for {WAIT} s after line {self.lines[-1:]}; {broker}")
            if message["parent_header"].get("msg_id") == self._msg_id:
                self.lines += message["content"].get("text", "").split()
                self.moved.set()
                if message["content"].get("execution_state") == "idle":
                    return self.lines

    async def until(self, count: int) -> None:
        while len(self.lines) < count:
            self.moved.clear()
            await self.moved.wait()


async def kill_at(reader: Reader, counts: list[int]) -> None:
    for count in counts:
        await reader.until(count)
        # It may not serve yet that took the kernel back.
        await asyncio.to_thread(BrokerClient().ensure)
        await asyncio.to_thread(kill_broker)


@pytest.mark.parametrize("front_ends", [1, 2])
async def test_each_line_comes_once(kernel_name: str, front_ends: int) -> None:
    moments = sorted(random.sample(range(100, LINES - 500), KILLS))
    print("killed after lines", moments)
    async with contextlib.AsyncExitStack() as stack:
        manager, client = await stack.enter_async_context(running_kernel(kernel_name))
        others = [await stack.enter_async_context(connected(manager)) for _ in range(front_ends - 1)]
        msg_id = client.execute(NUMBERS)
        readers = [Reader(one, msg_id) for one in (client, *others)]
        works = [asyncio.ensure_future(reader.run()) for reader in readers]
        async with asyncio.timeout(2 * WAIT):
            await asyncio.gather(kill_at(readers[0], moments), *works)
        for reader in readers:
            assert reader.lines == [str(number) for number in range(LINES)]
        assert (await reply_to(client, msg_id))["content"]["status"] == "ok"
