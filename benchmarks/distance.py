"""A network in between: a TCP proxy with delay, rate, losses and black-outs, in a process of its own.

    python -m benchmarks.distance TARGET_PORT [--rtt MS] [--mbit RATE] [--loss SHARE]

Prints its port; each line on stdin is a number of seconds for which it carries nothing from then on. One rate and
direction is shared by all connections. A loss is played as TCP shows it to programs: what was lost and all behind it
come a round trip later (or after 200 ms, whichever is more). What congestion control would make of losses is not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable

SEGMENT = 1448
LEAST_RETRANSMISSION = 0.2


class Direction:
    """What all connections share that send in one direction.

    Args:
        rtt: Round trip in ms.
        mbit: Mbit/s; 0: no limit.
        loss: Share of segments.
    """

    def __init__(self, rtt: float, mbit: float, loss: float) -> None:
        self.delay = rtt / 2000
        self._bytes_a_second = mbit * 125_000
        self._loss = loss
        self._free_at = 0.0
        rate = self._bytes_a_second or 1e9
        self.most_queued = max(262_144, int(2 * rate * max(self.delay * 2, 0.001)))

    def due(self, size: int, now: float) -> float:
        """Tell when bytes that are sent now are there."""
        if self._bytes_a_second:
            self._free_at = max(now, self._free_at) + size / self._bytes_a_second
            now = self._free_at
        if self._loss and random.random() < 1 - (1 - self._loss) ** max(1, size // SEGMENT):
            now += max(2 * self.delay, LEAST_RETRANSMISSION)
        return now + self.delay


class Network:
    """Carries connections.

    Args:
        target: Port on this machine that they lead to.
        rtt: Round trip in ms.
        mbit: Mbit/s in each direction; 0: no limit.
        loss: Share of segments.
    """

    def __init__(self, target: int, rtt: float = 0.0, mbit: float = 0.0, loss: float = 0.0) -> None:
        self._target = target
        self._directions = Direction(rtt, mbit, loss), Direction(rtt, mbit, loss)
        self._dark_until = 0.0

    def black_out(self, seconds: float) -> None:
        """Carry nothing for a while; what is sent meanwhile comes afterwards, as TCP sends it again."""
        self._dark_until = asyncio.get_running_loop().time() + seconds

    async def serve(self) -> asyncio.Server:
        """Take connections on a port of this machine."""
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _no_delay(writer)
        there, back = self._directions
        try:
            # The handshake takes a round trip, too.
            await asyncio.sleep(max(0.0, self.left()) + 2 * there.delay)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 20)
        except OSError:
            writer.close()
            return
        _no_delay(far_writer)

        def broken() -> None:
            for end in (writer, far_writer):
                end.transport.abort()

        carried = Carried(self, reader, far_writer, there, broken), Carried(self, far_reader, writer, back, broken)
        await asyncio.gather(*(one.run() for one in carried))
        for end in (writer, far_writer):
            end.close()

    def left(self) -> float:
        """Seconds of darkness that are left."""
        return self._dark_until - asyncio.get_running_loop().time()


class Carried:
    """One direction of one connection.

    Args:
        network: Of which it is.
        reader, writer: Where bytes come from, and where they go.
        direction: What it shares with the others.
        broken: Called where bytes cannot be delivered.
    """

    def __init__(
        self,
        network: Network,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        broken: Callable[[], None],
    ) -> None:
        self._network, self._reader, self._writer, self._direction = network, reader, writer, direction
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._last = 0.0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Carry all that comes, and then its end."""
        delivering = asyncio.ensure_future(self._deliver())
        with contextlib.suppress(OSError):
            while data := await self._reader.read(65536):
                self._put(data)
                while self._queued > self._direction.most_queued and not delivering.done():
                    await asyncio.sleep(0.001)
        self._add(max(self._last, self._direction.due(0, self._loop.time())), b"")
        await delivering

    def _put(self, data: bytes) -> None:
        # In pieces, so that connections have their turns.
        for at in range(0, len(data), 16384):
            piece = data[at : at + 16384]
            self._last = max(self._last, self._direction.due(len(piece), self._loop.time()))
            self._add(self._last, piece)

    def _add(self, due: float, data: bytes) -> None:
        self._queue.append((due, data))
        self._queued += len(data)
        self._changed.set()

    async def _deliver(self) -> None:
        try:
            while data := await self._next():
                self._writer.write(data)
                await self._writer.drain()
                self._queued -= len(data)
            self._writer.write_eof()
        except OSError:
            self._broken()

    async def _next(self) -> bytes:
        """Give what is due next, when it is due; nothing at the end."""
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        due, data = self._queue.popleft()
        while (wait := max(due - self._loop.time(), self._network.left())) > 0:
            await asyncio.sleep(wait)
        return data


def _no_delay(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def run(options: argparse.Namespace) -> None:
    network = Network(options.target, options.rtt, options.mbit, options.loss)
    server = await network.serve()
    print(server.sockets[0].getsockname()[1], flush=True)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while line := await stdin.readline():
        network.black_out(float(line))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=int)
    parser.add_argument("--rtt", type=float, default=0.0, help="milliseconds")
    parser.add_argument("--mbit", type=float, default=0.0, help="a second; 0 for no limit")
    parser.add_argument("--loss", type=float, default=0.0, help="share of segments")
    # epoll waits for whole milliseconds, which would come on top of each delay.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
