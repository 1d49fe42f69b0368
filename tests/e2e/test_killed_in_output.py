"""The broker is killed while output passes through its sockets as fast as it can: each line comes once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import signal
from typing import TYPE_CHECKING

import pytest
import zmq.asyncio
from jupyter_client.session import Session

from codespace_kernels.broker.client import BrokerClient

from .clients import connected, execute, reply_to, running_kernel, text_of, what_the_broker_knows
from .conftest import WAIT
from .test_broker_dies import kill_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.manager import AsyncKernelManager

pytestmark = pytest.mark.e2e

LINES = 6000
KILLS = 3
NUMBERS = f"""
for number in range({LINES}):
    print(number, flush=True)
"""

BIG = 10_000_000
DISPLAYS = f"""
from IPython.display import display
for number in range(5):
    display({{"text/plain": str(number) * {BIG}}}, raw=True)
print("after")
"""

WIDE = 80
WIDE_LINES = f"""
for number in range({WIDE}):
    print(str(number).zfill(100_000), flush=True)
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


async def end_at(reader: Reader, counts: list[int], number: int) -> None:
    for count in counts:
        await reader.until(count)
        # It may not serve yet that took the kernel back.
        await asyncio.to_thread(BrokerClient().ensure)
        await asyncio.to_thread(kill_broker, number)


@pytest.mark.parametrize(("front_ends", "number"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGTERM)])
async def test_each_line_comes_once(kernel_name: str, front_ends: int, number: int) -> None:
    moments = sorted(random.sample(range(100, LINES - 500), KILLS))
    print("ended after lines", moments)
    async with contextlib.AsyncExitStack() as stack:
        manager, client = await stack.enter_async_context(running_kernel(kernel_name))
        others = [await stack.enter_async_context(connected(manager)) for _ in range(front_ends - 1)]
        msg_id = client.execute(NUMBERS)
        readers = [Reader(one, msg_id) for one in (client, *others)]
        works = [asyncio.ensure_future(reader.run()) for reader in readers]
        async with asyncio.timeout(2 * WAIT):
            await asyncio.gather(end_at(readers[0], moments, number), *works)
        for reader in readers:
            assert reader.lines == [str(number) for number in range(LINES)]
        assert (await reply_to(client, msg_id))["content"]["status"] == "ok"


@contextlib.contextmanager
def slow_reader(manager: AsyncKernelManager) -> Iterator[zmq.asyncio.Socket]:
    """A subscriber that takes hardly anything as long as it is not read from."""
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as sock:
        sock.rcvhwm = 1
        sock.rcvbuf = 65_536
        sock.connect(f"tcp://127.0.0.1:{manager.get_connection_info()['iopub_port']}")
        sock.subscribe(b"")
        yield sock


async def read_cell(sock: zmq.asyncio.Socket, key: bytes, msg_id: str) -> list[dict[str, Any]]:
    session, messages = Session(key=key), []
    while True:
        _, parts = session.feed_identities(await sock.recv_multipart())
        message = session.deserialize(parts)
        if message["parent_header"].get("msg_id") == msg_id:
            messages.append(message)
            if message["content"].get("execution_state") == "idle":
                return messages


def shown_in(messages: list[dict[str, Any]]) -> list[str]:
    """Which of the displays came; the line of a cell that waited for its kernel is none of them."""
    data = [message["content"]["data"] for message in messages if message["msg_type"] == "display_data"]
    return [one["text/plain"][0] for one in data if len(one.get("text/plain", "")) == BIG]


async def test_what_a_slow_front_end_has_not_taken_of_a_cell_that_is_over_is_told(kernel_name: str) -> None:
    async with running_kernel(kernel_name) as (manager, client):
        with slow_reader(manager) as slow:
            assert (await slow.recv_multipart())[-1]
            messages = await execute(client, DISPLAYS)
            msg_id = messages[0]["parent_header"]["msg_id"]
            assert shown_in(messages) == list("01234")
            await asyncio.to_thread(kill_broker)
            async with asyncio.timeout(WAIT):
                seen = await read_cell(slow, manager.session.key, msg_id)
    shown = shown_in(seen)
    texts = [message["content"]["text"] for message in seen if message["msg_type"] == "stream"]
    # What comes is in order, and that there is too little of it is told before what comes next.
    assert shown == sorted(set(shown))
    assert len(shown) < 5
    told, after = texts
    assert told.startswith("[codespace-kernels] Output may be missing")
    assert after == "after\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_front_end_that_has_everything_is_not_sent_what_a_slow_one_lacks(kernel_name: str, number: int) -> None:
    async with running_kernel(kernel_name) as (manager, client):
        with slow_reader(manager) as slow:
            assert (await slow.recv_multipart())[-1]
            messages = await execute(client, WIDE_LINES)
            wanted = [str(number) for number in range(WIDE)]
            assert [text.lstrip("0") or "0" for text in text_of(messages).split()] == wanted
            await asyncio.to_thread(kill_broker, number)
            reading = asyncio.create_task(read_cell(slow, manager.session.key, messages[0]["parent_header"]["msg_id"]))
            # A message that comes twice makes jupyter_client raise an error.
            assert text_of(await execute(client, "print('next')")) == "next\n"
            async with asyncio.timeout(WAIT):
                seen = await reading
    assert [text.lstrip("0") or "0" for text in text_of(seen).split()] == wanted
