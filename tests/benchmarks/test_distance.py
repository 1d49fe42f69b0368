"""The network of the benchmarks: what it adds, and that it carries everything, in order, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from benchmarks.distance import Direction, Network

SIZE = 300_000


@contextlib.asynccontextmanager
async def through(network_options: dict[str, float]) -> AsyncIterator[tuple[Network, int]]:
    """A network in front of a server that sends back all that comes, and ends when its client does."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        network = Network(server.sockets[0].getsockname()[1], **network_options)
        async with await network.serve() as listening:
            yield network, listening.sockets[0].getsockname()[1]


async def there_and_back(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    back = await asyncio.wait_for(reader.read(), 60)
    await sending
    writer.close()
    return back


async def test_all_bytes_come_once_and_in_order_by_every_network():
    data = os.urandom(SIZE)
    for options in ({}, {"rtt": 20.0}, {"mbit": 100.0}, {"rtt": 10.0, "mbit": 100.0, "loss": 0.05}):
        async with through(options) as (_, port):
            assert await there_and_back(port, data) == data


async def test_connections_share_a_network_and_do_not_mix():
    async with through({"rtt": 5.0, "mbit": 200.0}) as (_, port):
        every = [os.urandom(SIZE) for _ in range(4)]
        assert await asyncio.gather(*(there_and_back(port, data) for data in every)) == every


async def test_a_round_trip_takes_at_least_as_long_as_the_network_says():
    async with through({"rtt": 100.0}) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        # The first one waits for the handshake, too.
        assert time.monotonic() - began >= 0.2
        began = time.monotonic()
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        assert time.monotonic() - began >= 0.1
        writer.close()


async def test_a_rate_is_not_exceeded():
    async with through({"mbit": 8.0}) as (_, port):
        began = time.monotonic()
        await there_and_back(port, bytes(SIZE))
        # A million bytes a second.
        assert time.monotonic() - began >= SIZE / 1e6


async def test_what_is_sent_in_a_black_out_comes_after_it():
    async with through({}) as (network, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        network.black_out(0.4)
        began = time.monotonic()
        writer.write(b"within")
        assert await reader.readexactly(6) == b"within"
        assert time.monotonic() - began >= 0.4
        assert await there_and_back(port, b"another one") == b"another one"
        writer.close()


async def test_a_connection_whose_far_end_breaks_is_broken():
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        network = Network(server.sockets[0].getsockname()[1])
        async with await network.serve() as listening:
            reader, writer = await asyncio.open_connection("127.0.0.1", listening.sockets[0].getsockname()[1])
            with contextlib.suppress(OSError):
                writer.write(bytes(SIZE))
                assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()


def test_lost_segments_come_a_retransmission_later():
    lossless, lossy = Direction(40.0, 0.0, 0.0), Direction(40.0, 0.0, 1.0)
    assert lossless.due(1000, 0.0) == 0.02
    assert lossy.due(1000, 0.0) == 0.02 + 0.2
    far = Direction(400.0, 0.0, 1.0)
    assert far.due(1000, 0.0) == 0.2 + 0.4
