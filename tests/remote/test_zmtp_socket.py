"""A kernel's channel without libzmq, against libzmq's own sockets, and against peers that are no kernel."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from codespace_kernels.remote import zmtp_socket
from codespace_kernels.remote.curve_socket import CurveSocket
from codespace_kernels.remote.kernel_socket import READ_MESSAGES, RECONNECT
from codespace_kernels.remote.reactor import Reactor
from codespace_kernels.remote.zmtp_socket import ZmtpSocket
from tests.ports import free_port
from tests.zmtp.hello import GREETING, ready

READY = ready(b"ROUTER")
PING = b"\x04\x09\x04PING\x00\x0aok"


class Side:
    """A channel's socket of ours on its own loop, and what it took."""

    def __init__(self, info: dict[str, Any], channel: str, identity: bytes | None = b"me") -> None:
        self.reactor = Reactor()
        self.taken: list[list[bytes]] = []
        self.connections = 0
        kind = CurveSocket if "curve_publickey" in info else ZmtpSocket
        self.socket: Any = kind(self.reactor, info, channel, identity, self.taken.append, self.connected)

    def connected(self) -> None:
        self.connections += 1

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "did not happen"
            self.reactor.turn(time.monotonic() + 0.005)

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.reactor.turn(time.monotonic())


@pytest.fixture
def side() -> Iterator[Callable[..., Side]]:
    made: list[Side] = []

    def make(*arguments: Any) -> Side:
        made.append(Side(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture(params=["tcp", "tcp6", "name", "ipc", "abstract", "curve"])
def info(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What a connection file says of a channel, in the ways in which it can say so."""
    kind = request.param
    if kind in {"ipc", "abstract"}:
        folder = os.path.relpath(tmp_path)  # a socket's path must be short
        ip = f"@{os.urandom(8).hex()}" if kind == "abstract" else f"{folder}/k"
        return {"transport": "ipc", "ip": ip, "shell_port": 1, "iopub_port": 2}
    ip = {"tcp6": "::1", "name": "localhost"}.get(kind, "127.0.0.1")
    if kind == "tcp6":
        with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("this machine has no IPv6")
    made: dict[str, Any] = {"transport": "tcp", "ip": ip, "shell_port": free_port(), "iopub_port": free_port()}
    if kind == "curve":
        public, secret = zmq.curve_keypair()
        made |= {"curve_publickey": public.decode(), "curve_secretkey": secret.decode()}
    return made


def bind(context: zmq.Context[zmq.Socket[bytes]], info: dict[str, Any], channel: str, kind: int) -> zmq.Socket[bytes]:
    bound = context.socket(kind)
    bound.linger = 0
    bound.sndhwm = 0
    if "curve_publickey" in info:
        bound.curve_server = True
        bound.curve_publickey = info["curve_publickey"].encode()
        bound.curve_secretkey = info["curve_secretkey"].encode()
    port = info[f"{channel}_port"]
    if info["transport"] == "ipc":
        bound.bind(f"ipc://{info['ip']}-{port}")
    else:
        ip = {"localhost": "127.0.0.1", "::1": "[::1]"}.get(info["ip"], info["ip"])
        bound.ipv6 = ":" in ip
        bound.bind(f"tcp://{ip}:{port}")
    return bound


TCP = {"transport": "tcp", "ip": "127.0.0.1"}


@pytest.fixture
def subscribed(
    side: Callable[..., Side], context: zmq.Context[zmq.Socket[bytes]], info: dict[str, Any]
) -> tuple[Side, zmq.Socket[bytes]]:
    """A subscriber, and the publisher that has its subscription."""
    publisher = bind(context, info, "iopub", zmq.XPUB)
    ours = side(info, "iopub", None)
    ours.until(lambda: publisher.poll(0))
    assert publisher.recv() == b"\1"
    return ours, publisher


def test_what_was_sent_before_the_kernel_listened_arrives_and_is_answered(
    side: Callable[..., Side], context: zmq.Context[zmq.Socket[bytes]], info: dict[str, Any]
) -> None:
    ours = side(info, "shell")
    ours.socket.send([b"client", b"<IDS|MSG>", b"early"])
    ours.turns(3)
    router = bind(context, info, "shell", zmq.ROUTER)
    ours.until(lambda: router.poll(0))
    assert router.recv_multipart() == [b"me", b"client", b"<IDS|MSG>", b"early"]
    large = os.urandom(3_000_000)
    router.send_multipart([b"me", b"client", b"", large, b"x" * 255, b"x" * 256])
    ours.until(lambda: ours.taken)
    assert ours.taken == [[b"client", b"", large, b"x" * 255, b"x" * 256]]
    ours.socket.send([b"large", large, b"end"])
    ours.until(lambda: router.poll(0))
    assert router.recv_multipart() == [b"me", b"large", large, b"end"]
    assert ours.connections <= 1


def test_a_subscriber_hears_everything_from_then_on(subscribed: tuple[Side, zmq.Socket[bytes]]) -> None:
    ours, publisher = subscribed
    assert ours.connections == 1
    for number in range(1000):
        publisher.send_multipart([b"kernel.stream", b"%d" % number])
    ours.until(lambda: len(ours.taken) == 1000)
    assert [int(parts[1]) for parts in ours.taken] == list(range(1000))


def test_a_turn_hands_on_only_so_much_and_the_next_goes_on_by_itself(
    subscribed: tuple[Side, zmq.Socket[bytes]],
) -> None:
    ours, publisher = subscribed
    for _ in range(2000):
        publisher.send(b"m" * 100)
    most, before = 0, 0

    def all_taken() -> bool:
        nonlocal most, before
        most, before = max(most, len(ours.taken) - before), len(ours.taken)
        return before == 2000

    ours.until(all_taken)
    assert most <= 2 * READ_MESSAGES  # a turn may find more and have some left from the one before


def test_a_pause_leaves_what_comes_where_it_is(subscribed: tuple[Side, zmq.Socket[bytes]]) -> None:
    ours, publisher = subscribed
    ours.socket.pause()
    publisher.send(b"one")
    publisher.send(b"two")
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        ours.reactor.turn(time.monotonic() + 0.01)
    assert ours.taken == []
    ours.socket.resume()
    ours.until(lambda: len(ours.taken) == 2)


def test_what_arrived_is_drained_also_in_a_pause_and_after_the_kernels_end(
    subscribed: tuple[Side, zmq.Socket[bytes]],
) -> None:
    ours, publisher = subscribed
    publisher.send(b"first")
    ours.until(lambda: ours.taken)
    ours.socket.pause()
    publisher.linger = 5000
    for number in range(300):
        publisher.send(b"%d" % number)
    publisher.close()
    end = time.monotonic() + 30
    while len(ours.taken) < 301 and time.monotonic() < end:
        ours.socket.drain()
    assert [parts[0] for parts in ours.taken[1:]] == [b"%d" % number for number in range(300)]


def test_a_kernel_that_comes_back_is_connected_to_again(
    side: Callable[..., Side], context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    info = {**TCP, "shell_port": free_port()}
    router = bind(context, info, "shell", zmq.ROUTER)
    ours = side(info, "shell")
    ours.socket.send([b"one"])
    ours.until(lambda: router.poll(0))
    router.unbind(router.last_endpoint)
    router.close()
    with contextlib.closing(context.socket(zmq.ROUTER)) as again:
        again.linger = 0
        ours.until(lambda: ours.socket.ended)
        again.bind(f"tcp://127.0.0.1:{info['shell_port']}")
        ours.until(lambda: ours.connections == 2)
        ours.socket.send([b"two"])
        ours.until(lambda: again.poll(0))
        assert again.recv_multipart() == [b"me", b"two"]


class Peer:
    """Bytes for bytes what a kernel's port says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.came: socket.socket | None = None
        self.heard = b""

    def work(self) -> bool:
        """Take a connection and what it says."""
        if self.came is None:
            with contextlib.suppress(BlockingIOError):
                self.came, _ = self.listener.accept()
                self.came.setblocking(False)
        elif (data := _read(self.came)) is not None:
            self.heard += data
        return self.came is not None

    def say(self, data: bytes) -> None:
        assert self.came is not None
        self.came.setblocking(True)
        self.came.sendall(data)
        self.came.setblocking(False)

    def break_off(self) -> None:
        """End the connection so that the other end's next write fails; what was said can still be read."""
        assert self.came is not None
        self.came.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def hang_up(self) -> None:
        assert self.came is not None
        self.came.close()
        self.came, self.heard = None, b""


def _read(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(65536)
    except BlockingIOError:
        return None


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.listener.close()
    if made.came is not None:
        made.came.close()


def greeted(side: Callable[..., Side], peer: Peer) -> Side:
    ours = side({**TCP, "shell_port": peer.port}, "shell")
    ours.until(peer.work)
    peer.say(GREETING + READY)
    ours.until(lambda: ours.connections == 1)
    return ours


def test_bytes_may_come_in_any_pieces(side: Callable[..., Side], peer: Peer) -> None:
    ours = side({**TCP, "shell_port": peer.port}, "shell")
    ours.until(peer.work)
    long = b"\x02" + struct.pack(">Q", 300) + b"b" * 300
    for byte in GREETING + READY + b"\x01\x01a" + long + b"\x00\x00":
        peer.say(bytes((byte,)))
        ours.turns(1)
    ours.until(lambda: len(ours.taken) == 2)
    assert ours.taken == [[b"a", b"b" * 300], [b""]]
    assert peer.work()
    ours.until(lambda: peer.work() and peer.heard.endswith(b"\x02me"))
    assert peer.heard.startswith(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL")


def test_a_ping_is_answered(side: Callable[..., Side], peer: Peer) -> None:
    ours = greeted(side, peer)
    peer.say(PING)
    ours.until(lambda: peer.work() and peer.heard.endswith(b"\x04\x07\x04PONGok"))
    assert ours.taken == []


def test_a_request_of_which_a_part_was_taken_does_not_reach_the_next_process(
    side: Callable[..., Side], peer: Peer
) -> None:
    ours = greeted(side, peer)
    ours.socket.send([b"large", bytes(30_000_000)])
    ours.socket.send([b"after it"])
    peer.hang_up()
    ours.until(peer.work)
    peer.say(GREETING + READY)
    ours.until(lambda: ours.connections == 2)
    ours.socket.send([b"new"])
    ours.until(lambda: peer.work() and peer.heard.endswith(b"\x00\x03new"))
    assert b"after it" not in peer.heard
    assert len(peer.heard) < 1000


def test_what_came_before_the_end_is_handed_on_and_half_a_message_is_not(side: Callable[..., Side], peer: Peer) -> None:
    ours = greeted(side, peer)
    peer.say(b"\x00\x01x" * 500 + b"\x01\x01half")
    peer.hang_up()
    ours.until(peer.work)
    peer.say(GREETING + READY + b"\x00\x03new")
    ours.until(lambda: ours.connections == 2 and len(ours.taken) == 501)
    assert ours.taken == [[b"x"]] * 500 + [[b"new"]]


def test_what_came_before_the_end_is_handed_on_also_where_the_end_is_found_by_writing(
    side: Callable[..., Side], peer: Peer
) -> None:
    ours = greeted(side, peer)
    peer.say(b"\x00\x04last")
    peer.break_off()
    ours.socket.send([b"to nobody"])
    assert ours.socket.ended
    ours.until(peer.work)
    peer.say(GREETING + READY)
    ours.until(lambda: ours.connections == 2)
    assert ours.taken == [[b"last"]]


def test_a_request_outlives_a_handshake_that_breaks_off(side: Callable[..., Side], peer: Peer) -> None:
    ours = side({**TCP, "shell_port": peer.port}, "shell")
    ours.socket.send([b"kept"])
    ours.until(lambda: peer.work() and peer.heard)
    peer.say(GREETING)
    peer.break_off()
    ours.until(lambda: ours.socket.ended)
    ours.until(peer.work)
    peer.say(GREETING + READY)
    ours.until(lambda: peer.work() and peer.heard.endswith(b"\x00\x04kept"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak ZMTP"),
        (GREETING.replace(b"NULL\0", b"CURVE"), "uses mechanism b'CURVE'"),
        (GREETING + b"\xff\x00", "flags 0xff"),
        (GREETING + ready(b"XPUB"), "a b'XPUB' socket listens there"),
        (GREETING + b"\x04\x06\x05ERROR", "instead of READY"),
    ],
)
def test_what_is_no_kernel_is_told_of_once_and_called_again(
    side: Callable[..., Side], peer: Peer, caplog: pytest.LogCaptureFixture, said: bytes, told: str
) -> None:
    ours = side({**TCP, "shell_port": peer.port}, "shell")
    ours.socket.send([b"kept"])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ours.until(peer.work)
            peer.say(said)
            ours.until(lambda: ours.socket.ended)
            peer.hang_up()
    assert [told in record.getMessage() for record in caplog.records] == [True]
    ours.until(peer.work)
    peer.say(GREETING + READY)
    ours.until(lambda: peer.work() and peer.heard.endswith(b"\x00\x04kept"))


def test_a_peer_that_never_greets_is_given_up(
    side: Callable[..., Side], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmtp_socket, "HANDSHAKE", 0.05)
    ours = side({**TCP, "shell_port": peer.port}, "shell")
    ours.until(peer.work)
    first, peer.came = peer.came, None
    ours.until(peer.work)
    assert first is not None
    first.close()


def test_an_address_that_is_none_is_told_of(side: Callable[..., Side], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ours = side({"transport": "carrier pigeon", "ip": "x", "shell_port": 1}, "shell")
        ours.until(lambda: caplog.records)
        ours.socket.send([b"nowhere"])
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            ours.reactor.turn(time.monotonic() + 0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "a kernel's shell channel: a transport 'carrier pigeon'"
    ]


def test_a_port_that_is_not_the_kernels_is_called_less_and_less_often(
    side: Callable[..., Side], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmtp_socket, "_RECONNECT_SHARE", 1.0)
    ours = side({**TCP, "shell_port": peer.port}, "shell", None)
    connected: list[float] = []
    while len(connected) < 5:
        ours.until(peer.work)
        connected.append(time.monotonic())
        peer.say(GREETING + ready(b"ROUTER"))
        ours.until(lambda: ours.socket.ended)
        peer.hang_up()
    assert ours.connections == 0
    assert connected[4] - connected[3] > 2 * RECONNECT


def test_timers_are_called_in_their_order_and_not_when_cancelled() -> None:
    reactor = Reactor()
    called: list[str] = []
    now = time.monotonic()
    reactor.call_at(now + 0.02, lambda: called.append("second"))
    reactor.call_at(now + 0.01, lambda: called.append("first"))
    cancelled = reactor.call_at(now, lambda: called.append("never"))
    cancelled.cancel()
    cancelled.cancel()
    reactor.turn(now)
    assert called == []
    while len(called) < 2:
        reactor.turn(None)
    assert called == ["first", "second"]


def test_what_is_to_be_called_soon_is_called_once_in_the_next_turn_unless_forgotten() -> None:
    reactor = Reactor()
    called: list[str] = []

    def again() -> None:
        called.append("again")
        if len(called) < 3:
            reactor.call_soon(again)

    def forgotten() -> None:
        called.append("forgotten")

    reactor.call_soon(again)
    reactor.call_soon(again)
    reactor.call_soon(forgotten)
    reactor.forget(forgotten)
    for count in (1, 2, 3):
        reactor.turn(None)
        assert called == ["again"] * count


def test_a_descriptor_that_is_closed_in_the_turn_in_which_it_has_something_is_left_alone() -> None:
    reactor = Reactor()
    ends = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def close_all(number: int) -> None:
        called.append(number)
        for here, _ in ends:
            reactor.remove(here.fileno())

    for number, (here, there) in enumerate(ends):
        reactor.add_reader(here.fileno(), lambda number=number: close_all(number))  # type: ignore[misc]
        there.send(b"x")
    reactor.turn(time.monotonic() + 1)
    reactor.turn(time.monotonic())
    assert len(called) == 1
    for pair in ends:
        for end in pair:
            end.close()
