"""When a stream is given up: not while anything comes, soon after nothing does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from codespace_kernels.link import commands
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.session import MessageReceived, Session

WAIT = 60.0
LONG = 1000.0


class Workspace:
    """The other end, without a server behind it, and the stream to it.

    Attributes:
        deaf: Whether what comes is never taken, as at the other end of a black hole.
        delay: Seconds that its answers take.
    """

    def __init__(self) -> None:
        self.session: Session | None = None
        self.deaf = False
        self.delay = 0.0
        self.received: list[list[bytes]] = []
        self._out: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read(self, max_bytes: int = 262144) -> bytes:
        due, data = await self._out.get()
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        return data

    async def write(self, data: bytes) -> None:
        if self.deaf:
            return
        if self.session is None:
            self.session = Session(_session_of(data))
            self.session.attach()
        for event in self.session.receive_data(data, time.monotonic()):
            if isinstance(event, MessageReceived):
                self.received.append(event.parts)
        self.say()

    def say(self) -> None:
        assert self.session is not None
        while data := self.session.data_to_send(time.monotonic()):
            self._out.put_nowait((time.monotonic() + self.delay, data))

    def close(self) -> None:
        self._out.put_nowait((0.0, b""))


def _session_of(data: bytes) -> str:
    from codespace_kernels.link import frames

    (hello, *_) = frames.FrameDecoder().feed(data)
    return hello.session


@pytest.fixture
async def clients() -> AsyncIterator[list[LinkClient]]:
    made: list[LinkClient] = []
    yield made
    for client in made:
        await client.close()


async def test_the_first_answer_may_take_as_long_as_attaching_may(clients: list[LinkClient]) -> None:
    workspace = Workspace()
    workspace.delay = 1.0
    client = await attached(clients, workspace, busy_ping_interval=0.05, ping_interval=0.05, silence_limit=0.2)
    assert client.attached


async def attached(clients: list[LinkClient], workspace: Workspace, **limits: float) -> LinkClient:
    client = LinkClient(**{"ping_interval": LONG, "busy_ping_interval": LONG, "silence_limit": LONG, **limits})
    clients.append(client)
    await client.attach(workspace)
    return client


async def is_given_up(client: LinkClient) -> str:
    return await asyncio.wait_for(client.wait_detached(), WAIT)


async def test_while_something_runs_it_is_asked_often(clients):
    workspace = Workspace()
    client = await attached(clients, workspace, busy_ping_interval=0.05, silence_limit=0.2)
    workspace.deaf = True
    await asyncio.sleep(0.6)
    assert client.attached
    client.is_running = lambda: True
    assert "no sign of life" in await is_given_up(client)


async def test_a_probe_finds_out_at_once(clients):
    workspace = Workspace()
    client = await attached(clients, workspace)
    heard = client.heard_at
    client.probe(0.2)
    async with asyncio.timeout(WAIT):
        while client.heard_at == heard:
            await asyncio.sleep(0.01)
    workspace.deaf = True
    client.probe(0.2)
    assert "no sign of life" in await is_given_up(client)


async def test_any_byte_is_a_sign_of_life(clients):
    workspace = Workspace()
    client = await attached(clients, workspace, busy_ping_interval=0.05, silence_limit=0.5)
    client.is_running = lambda: True
    workspace.deaf = True
    event = commands.encode({"event": "restarting", "kernel_id": "none"})
    for _ in range(15):
        workspace.session.send(commands.KERNEL, commands.CHANNEL, event)
        workspace.say()
        await asyncio.sleep(0.1)
        assert client.attached
    assert "no sign of life" in await is_given_up(client)


async def test_a_slow_line_is_given_its_time(clients):
    workspace = Workspace()
    workspace.delay = 0.3
    client = await attached(clients, workspace, busy_ping_interval=0.05, silence_limit=0.6)
    client.is_running = lambda: True
    async with asyncio.timeout(WAIT):
        while (client.rtt or 0) < 0.25:
            await asyncio.sleep(0.01)
    workspace.delay = 0.9
    await asyncio.sleep(1.5)
    assert client.attached


async def test_what_came_while_this_process_stood_still_counts(clients):
    workspace = Workspace()
    client = await attached(clients, workspace, busy_ping_interval=0.05, silence_limit=0.5)
    client.is_running = lambda: True
    await asyncio.sleep(0.2)
    workspace.deaf = True
    await asyncio.sleep(0.2)
    time.sleep(3.0)  # As a process that was stopped.
    workspace.deaf = False
    await asyncio.sleep(1.0)
    assert client.attached
