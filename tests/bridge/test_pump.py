"""The pump on an event loop that can watch no descriptors, as the Proactor loop of Windows."""

import asyncio
import threading

import pytest
import zmq

from codespace_kernels.bridge.pump import SocketPump


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


def test_everything_arrives_in_order_both_ways(loop_factory):
    async def echo(count):
        context = zmq.Context()
        server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        for socket in (server, client):
            socket.linger = 0
            socket.set_hwm(0)
        client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
        received, done, pump = [], asyncio.Event(), SocketPump()

        def answer(frames):
            server.send_multipart(frames)
            pump.sent_on(server)

        def collect(frames):
            received.append(int(frames[0]))
            if len(received) == count:
                done.set()

        pump.add(server, answer)
        pump.add(client, collect)
        for number in range(count):
            client.send(b"%d" % number)
            if not number % 100:
                await asyncio.sleep(0)
        pump.sent_on(client)
        async with asyncio.timeout(30):
            await done.wait()
        pump.close()
        pump.close()
        context.destroy(0)
        return received

    before = set(threading.enumerate())
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        with pytest.raises(NotImplementedError):
            runner.get_loop().add_reader(0, print)
        assert runner.run(echo(5000)) == list(range(5000))
        # What comes when nothing was sent wakes the loop, too.
        assert runner.run(echo(1)) == [0]
    assert not {thread for thread in threading.enumerate() if thread not in before and thread.is_alive()}
