"""What is noticed of sleep and of another network. Clocks and networks are the test's own but for the last one."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from codespace_kernels.broker.network import NetworkWatch, elapsed, network

WAIT = 60.0


class Computer:
    """Has clocks that are set by hand, and a network.

    Attributes:
        awake: Seconds that it was awake.
        asleep: Seconds that it slept.
        looks: How often its network was looked at.
    """

    def __init__(self) -> None:
        self.awake = self.asleep = 0.0
        self.address = "192.0.2.1"
        self.connected = True
        self.looks = 0
        self.noticed: list[str] = []

    def network(self) -> str:
        self.looks += 1
        return self.address

    @contextlib.asynccontextmanager
    async def watched(self):
        watch = NetworkWatch(
            lambda: self.connected,
            self.noticed.append,
            interval=0.01,
            network=self.network,
            clocks=(lambda: self.awake, lambda: self.awake + self.asleep),
        )
        running = asyncio.create_task(watch.run())
        await self.looked_at()
        yield
        running.cancel()
        await asyncio.wait({running})

    async def looked_at(self) -> None:
        """Wait for two whole looks."""
        before = self.looks
        async with asyncio.timeout(WAIT):
            while self.looks < before + 3:
                await asyncio.sleep(0.005)


@pytest.fixture
def computer() -> Computer:
    return Computer()


async def test_another_address_is_noticed_once(computer):
    async with computer.watched():
        assert computer.noticed == []
        computer.address = "198.51.100.7"
        await computer.looked_at()
        assert computer.noticed == ["this computer's network has changed"]


async def test_sleep_is_noticed(computer):
    async with computer.watched():
        computer.asleep += 3600.0
        await computer.looked_at()
        assert computer.noticed == ["the computer or this process stood still for 3600 s"]


async def test_a_process_that_was_stopped_notices_it(computer):
    async with computer.watched():
        computer.awake += 60.0
        await computer.looked_at()
        assert computer.noticed == ["the computer or this process stood still for 60 s"]


async def test_nothing_is_looked_at_where_nothing_is_connected(computer):
    async with computer.watched():
        computer.connected = False
        await asyncio.sleep(0.1)
        before = computer.looks
        computer.address = "198.51.100.7"
        await asyncio.sleep(0.1)
        assert computer.looks <= before + 1
        computer.connected = True
        await computer.looked_at()
        assert computer.noticed == []


def test_this_computers_own_network_has_addresses_and_its_clock_goes_on():
    before = elapsed()
    assert any(address for _, address in network())
    assert network() == network()
    assert elapsed() > before
