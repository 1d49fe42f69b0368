"""The sockets on an event loop that can watch no descriptors, as the Proactor loop of Windows."""

import asyncio
import threading

import pytest
import zmq

from codespace_kernels.bridge.sockets import LocalSockets


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """It still watches its own sockets, as the Proactor loop does in its way."""

    def add_reader(self, *args):
        raise NotImplementedError

    add_writer = remove_reader = remove_writer = add_reader


@pytest.fixture
def loop_factory(monkeypatch):
    # Tornado knows that loop by its name.
    monkeypatch.setattr(asyncio, "ProactorEventLoop", LoopWithoutReaders, raising=False)
    return LoopWithoutReaders


def talk(port: int, count: int, size: int) -> list[int]:
    """Send numbers without waiting, then read what comes back."""
    context = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.linger = 0
    client.set_hwm(0)
    client.connect(f"tcp://127.0.0.1:{port}")
    try:
        for number in range(count):
            client.send(b"%d " % number + b"x" * size)
        numbers = []
        for _ in range(count):
            assert client.poll(60_000)
            numbers.append(int(client.recv().split()[0]))
        return numbers
    finally:
        client.close()
        context.term()


def test_everything_arrives_in_order_both_ways(loop_factory):
    async def echo(count: int, size: int) -> list[int]:
        sockets = LocalSockets("127.0.0.1", None)
        sockets.start(lambda channel, frames: sockets.send(channel, frames) is None, print)
        try:
            return await asyncio.to_thread(talk, sockets.ports[0], count, size)
        finally:
            sockets.close()

    before = set(threading.enumerate())
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        with pytest.raises(NotImplementedError):
            runner.get_loop().add_reader(0, print)
        assert runner.run(echo(5000, 10)) == list(range(5000))
        # More than the system's buffers hold, so that writing has to be watched, too.
        assert runner.run(echo(200, 200_000)) == list(range(200))
        # What comes when nothing was sent wakes the loop, too.
        assert runner.run(echo(1, 0)) == [0]
    assert not {thread for thread in threading.enumerate() if thread not in before and thread.is_alive()}
