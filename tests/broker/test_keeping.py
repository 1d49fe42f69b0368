"""What clients have after the process that served them was killed is known to the byte, and the next one goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from codespace_kernels.bridge.sockets import LocalSockets, Ports
from codespace_kernels.bridge.takings import LeftTable, Token
from codespace_kernels.broker.keeping import Keeping, collect
from codespace_kernels.messages import Channel
from codespace_kernels.processes import is_alive
from tests.bridge.test_killed import SENT, numbers_in
from tests.ports import free_ports
from tests.processes import command_line, living_children
from tests.zmtp.hello import GREETING, ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much it has taken")

SUBSCRIBE = GREETING + ready(b"SUB") + b"\x00\x01\x01"
HANDSHAKE = 64
MOST_WAITING = 1 << 24


class Done:
    """A message's way home: it is marked as delivered, in order, and has a token."""

    def __init__(self, publisher: Publisher, number: int) -> None:
        self._publisher = publisher
        self._number = number
        self.token = Token(1, 2, number, number - 1)

    def __call__(self) -> None:
        self._publisher.delivered(self._number)


class Publisher:
    """Publishes numbers for as long as its process lives, each in bytes that only depend on it."""

    def __init__(self, folder: Path, ports: Ports, subscribers: int) -> None:
        tokens, inherited = collect(folder)
        self._state = os.open(folder / "state", os.O_RDWR | os.O_CREAT, 0o600)
        (self._delivered,) = SENT.unpack(os.pread(self._state, 8, 0) or SENT.pack(0))
        for token in sorted(tokens, key=lambda token: token.number):
            if token.after <= self._delivered:
                self._delivered = max(self._delivered, token.number)
        self._keeping = Keeping(folder, inherited)
        self._sockets = LocalSockets("127.0.0.1", ports, takings=self._keeping.takings)
        self._here = asyncio.Semaphore(0)
        self._subscribers = 0 if inherited else subscribers
        rests = [one.past.rest for one in itertools.chain.from_iterable(inherited.values())]
        if [rest.token.number for rest in rests if rest].count(self._delivered + 1) == 1:
            # One client has a part of the next message; it is then left out, as a link does with what it gave up.
            with contextlib.suppress(FileNotFoundError):
                (folder / "give-up").unlink()
                self._delivered += 1

    def delivered(self, number: int) -> None:
        self._delivered = number
        os.pwrite(self._state, SENT.pack(number), 0)

    async def run(self) -> None:
        self._keeping.watch()
        self._sockets.start(lambda _channel, _frames: True, lambda _topic: self._here.release())
        print("listening", flush=True)
        for _ in range(self._subscribers):
            await self._here.acquire()
        number = self._delivered
        while True:
            if self._sockets.waiting < MOST_WAITING:
                number += 1
                frames = [b"t", SENT.pack(number), bytes(number * 997 % 50_000)]
                self._sockets.send(Channel.IOPUB, frames, Done(self, number))
            await asyncio.sleep(0)


class Serving:
    """A publisher's process."""

    def __init__(self, folder: Path, ports: list[int], subscribers: int = 1) -> None:
        self._start = [sys.executable, "-m", __name__, str(folder), str(subscribers), *map(str, ports)]
        self.folder, self.port = folder, ports[1]
        self.begin()

    def begin(self) -> None:
        self.process = subprocess.Popen(self._start, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    publisher = Serving(tmp_path, free_ports(5), getattr(request, "param", 1))
    yield publisher
    publisher.kill()
    for connections in collect(tmp_path)[1].values():
        for one in connections:
            one.sock.close()


class Client:
    """Reads when it is told."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.sock.sendall(SUBSCRIBE)
        self.data = bytearray()

    @property
    def numbers(self) -> list[int]:
        return numbers_in(bytes(self.data[HANDSHAKE:]))

    def read(self, size: int) -> None:
        while len(self.data) < size:
            self.data += self.sock.recv(min(65536, size - len(self.data))) or pytest.fail("the connection ended")

    def read_rest(self) -> None:
        while piece := self.sock.recv(65536):
            self.data += piece


@pytest.mark.parametrize("read_before", [50_000, 200_000, 3_000_000, 6_000_000, 10_000_000])
def test_what_was_taken_is_known_to_the_byte(serving: Serving, read_before: int) -> None:
    client = Client(serving.port)
    with client.sock:
        client.read(read_before)
        serving.kill()
        tokens, inherited = collect(serving.folder)
        [(sock, past)] = inherited[serving.port]
        sock.close()
        client.read_rest()
    got = client.numbers
    assert got == list(range(1, len(got) + 1))
    assert max(token.number for token in tokens) == len(got) > 3
    assert (past.taken, past.last) == (len(client.data), Token(1, 2, len(got), len(got) - 1))
    assert sorted(path.name for path in serving.folder.iterdir()) == ["state", "taken.lock"]


@pytest.mark.parametrize("serving", [2], indirect=True)
def test_clients_that_are_not_equally_far_notice_nothing(serving: Serving) -> None:
    quick, slow = Client(serving.port), Client(serving.port)
    with quick.sock, slow.sock:
        for round_ in range(1, 4):
            quick.read(round_ * 3_000_000)
            slow.read(round_ * 300_000)
            serving.kill()
            serving.begin()
        quick.read(12_000_000)
        slow.read(12_000_000)
    for client in (quick, slow):
        numbers = client.numbers
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("serving", [2], indirect=True)
def test_a_client_whose_message_does_not_come_again_is_cut_off_and_misses_nothing_else(serving: Serving) -> None:
    quick, slow = Client(serving.port), Client(serving.port)
    with quick.sock, slow.sock:
        (serving.folder / "give-up").touch()
        # As a rule the first kill leaves it in the middle of a message; it may have been at the end of one.
        while (serving.folder / "give-up").exists():
            quick.read(len(quick.data) + 6_000_000)
            slow.read(len(slow.data) + 300_000)
            serving.kill()
            serving.begin()
        quick.read(len(quick.data) + 3_000_000)
        slow.read_rest()
        again = Client(serving.port)
        with again.sock:
            again.read(1_000_000)
    had = slow.numbers
    assert had == list(range(1, len(had) + 1))
    assert again.numbers == list(range(len(had) + 2, len(had) + 2 + len(again.numbers)))
    assert quick.numbers == list(range(1, len(quick.numbers) + 1))


def test_the_keeper_alone_is_killed(serving: Serving) -> None:
    client = Client(serving.port)
    with client.sock:
        client.read(1_000_000)
        (keeper,) = psutil.Process(serving.process.pid).children()
        assert [Path(word).name for word in keeper.cmdline()][3] == "keeper.py"
        keeper.kill()
        while not (others := [one for one in keepers_of(serving) if one.pid != keeper.pid]):
            client.read(len(client.data) + 100_000)
        client.read(len(client.data) + 2_000_000)
        serving.kill()
        tokens, inherited = collect(serving.folder)
        inherited[serving.port][0].sock.close()
        client.read_rest()
    assert max(token.number for token in tokens) == len(client.numbers)
    assert not any(is_alive(one) for one in others)


def keepers_of(serving: Serving) -> list[psutil.Process]:
    """Give the keepers that hold a connection."""
    return [child for child in psutil.Process(serving.process.pid).children() if holds_connections(child)]


def is_keeper(process: psutil.Process) -> bool:
    return "keeper.py" in command_line(process)


def holds_connections(process: psutil.Process) -> bool:
    try:
        # Before it is the keeper it is a copy of its parent, with all of its connections.
        return is_keeper(process) and bool(process.net_connections("tcp"))
    except psutil.Error:
        return False


async def test_a_keeper_ends_with_its_process_and_leaves_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    keeping.watch()
    (keeper,) = [child for child in living_children() if is_keeper(child)]
    os.kill(keeper.pid, signal.SIGTERM)  # which ends the user's other programs first
    assert {path.name for path in tmp_path.iterdir()} == {"taken.table", "taken.lock"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    await keeping.close()
    assert not psutil.pid_exists(keeper.pid)
    assert list(tmp_path.iterdir()) == []


async def test_a_connection_that_closes_is_closed_with_its_keeper(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    sockets = LocalSockets("127.0.0.1", None, takings=keeping.takings)
    sockets.start(lambda _channel, _frames: True, lambda _topic: None)
    with socket.create_connection(("127.0.0.1", sockets.ports.iopub)) as client:
        client.setblocking(False)
        while not select.select([client], [], [], 0)[0]:
            await asyncio.sleep(0.01)
        sockets.close()
        client.settimeout(60)
        while client.recv(65536):
            pass
    await keeping.close()


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"none")
    with pytest.raises(ValueError, match="size"):
        LeftTable(tmp_path / "table")
    for path in ("taken.table", "taken"):
        (tmp_path / path).write_bytes(b"none")
    assert collect(tmp_path) == (set(), {})


if __name__ == "__main__":
    asyncio.run(Publisher(Path(sys.argv[1]), Ports(*map(int, sys.argv[3:])), int(sys.argv[2])).run())
