"""The kernel's sockets themselves, with real ZMQ clients and with what is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import zmq
import zmq.asyncio

from codespace_kernels.bridge import Ports, connection, endpoint, router
from codespace_kernels.bridge.sockets import LocalSockets
from codespace_kernels.errors import SettingsError
from codespace_kernels.messages import Channel
from tests.bridge.conftest import until
from tests.zmtp.hello import GREETING, ready


class Served:
    """Sockets, and what came in by them."""

    def __init__(self, ports: Ports | None = None) -> None:
        self.received: list[tuple[Channel, list[bytes]]] = []
        self.topics: list[bytes] = []
        self.trusts = False
        self.sockets = LocalSockets("127.0.0.1", ports)
        self.sockets.start(self._take, self.topics.append)

    def _take(self, channel: Channel, frames: list[bytes]) -> bool:
        self.received.append((channel, frames))
        return self.trusts

    def port(self, channel: str) -> int:
        return int(getattr(self.sockets.ports, channel))

    async def clients(self) -> None:
        """Wait until nothing is connected."""
        await until(lambda: not any(one._connections for one in self.sockets._endpoints))


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    yield served
    served.sockets.close()


@pytest.fixture
def context() -> Iterator[zmq.asyncio.Context]:
    context = zmq.asyncio.Context()
    yield context
    context.destroy(linger=0)


def connect(context: zmq.asyncio.Context, served: Served, channel: str, **options: object) -> zmq.asyncio.Socket:
    sock = context.socket({"iopub": zmq.SUB, "hb": zmq.REQ}.get(channel, zmq.DEALER))
    sock.linger = 0
    for name, value in options.items():
        setattr(sock, name, value)
    if channel == "iopub":
        sock.subscribe(b"")
    sock.connect(f"tcp://127.0.0.1:{served.port(channel)}")
    return sock


async def received(sock: zmq.asyncio.Socket) -> list[bytes]:
    return await asyncio.wait_for(sock.recv_multipart(), 60)


@contextlib.contextmanager
def raw(served: Served, channel: str, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port(channel)), timeout=60) as sock:
        sock.sendall(data)
        sock.setblocking(False)
        yield sock


async def ended(sock: socket.socket) -> None:
    """Wait until the other end closes."""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(60):
            while await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass


async def test_done_is_called_when_the_system_has_taken_the_message(served, context):
    done: list[int] = []
    sub = connect(context, served, "iopub")
    await until(lambda: served.topics)
    served.sockets.send(Channel.IOPUB, [b"t", b"small"], lambda: done.append(1))
    await asyncio.sleep(0)
    assert done == [1], "a small message is taken in the next turn of the loop"
    sub.rcvhwm = 1
    for number in range(2, 40):
        served.sockets.send(Channel.IOPUB, [b"t", bytes(1_000_000)], lambda number=number: done.append(number))
    assert len(done) < 39, "the system has no room for so much"
    assert served.sockets.waiting >= (39 - len(done)) * 1_000_000
    assert len(await received(sub)) == 2
    for _ in range(38):
        await received(sub)
    await until(lambda: len(done) == 39)
    assert done == list(range(1, 40))
    assert not served.sockets.waiting


@pytest.mark.parametrize("channel", [Channel.IOPUB, Channel.SHELL])
async def test_what_goes_to_nobody_is_done_at_once(served, channel):
    done = []
    served.sockets.send(channel, [b"nobody", b"x"], lambda: done.append(1))
    assert done == [1]


async def test_a_subscription_is_heard_before_a_request_that_came_after_it(served, monkeypatch):
    heard: list[str] = []
    monkeypatch.setattr(served.sockets._publisher, "_subscribed", lambda _: heard.append("topic"))
    for channel, one in served.sockets._routers.items():
        monkeypatch.setattr(one, "_received", lambda _, name=channel.name: heard.append(name))
    # Connected in the order in which they are not to be heard.
    with (
        raw(served, "shell", GREETING + ready()) as shell,
        raw(served, "stdin", GREETING + ready()) as stdin,
        raw(served, "control", GREETING + ready()) as control,
        raw(served, "iopub", GREETING + ready(b"SUB")) as iopub,
    ):
        ends = served.sockets._endpoints[:4]
        await until(lambda: [[one._peer.ready for one in end._connections] for end in ends] == [[True]] * 4)
        for _ in range(20):
            heard.clear()
            iopub.sendall(b"\x00\x02\x01t")
            for sock in (shell, stdin, control):
                sock.sendall(b"\x00\x01x")
            await until(lambda: len(heard) == 4)
            assert heard == ["topic", "CONTROL", "STDIN", "SHELL"]


async def test_done_of_several_subscribers_waits_for_the_slowest_or_its_end(served, context):
    done: list[int] = []
    quick = connect(context, served, "iopub", rcvhwm=0)
    with raw(served, "iopub", GREETING + ready(b"SUB") + b"\x00\x01\x01"):
        await until(lambda: len(served.topics) == 2)
        for number in range(30):
            served.sockets.send(Channel.IOPUB, [b"t", bytes(1_000_000)], lambda number=number: done.append(number))
        for _ in range(30):
            await received(quick)
        # One megabyte counts once, whoever waits for it.
        assert 0 < served.sockets.waiting <= 30 * 1_000_100
        assert len(done) < 30
    await until(lambda: len(done) == 30)
    assert done == list(range(30))
    assert not served.sockets.waiting


async def test_who_unsubscribes_gets_no_more(served, context):
    sub = connect(context, served, "iopub")
    sub.subscribe(b"other")
    await until(lambda: sorted(served.topics) == [b"", b"other"])
    sub.unsubscribe(b"")
    publisher = served.sockets._publisher
    await until(lambda: list(publisher._prefixes.values()) == [(b"other",)])
    served.sockets.send(Channel.IOPUB, [b"t", b"1"])
    served.sockets.send(Channel.IOPUB, [b"other.2", b"2"])
    assert await received(sub) == [b"other.2", b"2"]


async def test_subscriptions_have_a_bound(served, caplog):
    many = b"".join(b"\x00\x05\x01" + number.to_bytes(4, "big") for number in range(2000))
    with raw(served, "iopub", GREETING + ready(b"SUB") + many) as bad:
        await ended(bad)
    assert len(served.topics) == 1024
    assert "subscriptions" in caplog.text


async def test_a_message_of_100_mb_both_ways(served, context):
    client = connect(context, served, "shell", identity=b"me")
    data = os.urandom(100_000_000)
    await client.send_multipart([b"head", data, b""])
    await until(lambda: served.received)
    assert served.received == [(Channel.SHELL, [b"me", b"head", data, b""])]
    done = []
    served.sockets.send(Channel.SHELL, [b"me", b"head", data, b"tail"], lambda: done.append(1))
    assert not done
    assert await received(client) == [b"head", data, b"tail"]
    await until(lambda: done)


async def test_a_client_without_an_id_is_given_one(served, context):
    clients = [connect(context, served, "shell") for _ in range(3)]
    for number, client in enumerate(clients):
        await client.send(b"%d" % number)
    await until(lambda: len(served.received) == 3)
    for _, (client_id, number) in served.received:
        assert client_id[:1] == b"\0"
        served.sockets.send(Channel.SHELL, [client_id, b"to", number])
    assert [await received(client) for client in clients] == [[b"to", b"%d" % number] for number in range(3)]


async def test_a_req_socket_gets_its_envelope_back(served, context):
    beat = connect(context, served, "hb")
    for word in (b"one", b"", bytes(1000)):
        await beat.send(word)
        assert await received(beat) == [word]


async def test_a_client_that_pings_stays(served, context):
    client = connect(
        context, served, "shell", identity=b"me", heartbeat_ivl=20, heartbeat_timeout=10_000, heartbeat_ttl=60_000
    )
    monitor = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    await client.send(b"1")
    await until(lambda: served.received)
    # Some rounds of PING and PONG.
    assert not await monitor.poll(300)
    served.sockets.send(Channel.SHELL, [b"me", b"2"])
    assert await received(client) == [b"2"]


async def test_clients_come_back_after_the_kernels_process_was_replaced(context):
    first = Served()
    shell = connect(context, first, "shell", identity=b"me", reconnect_ivl=20)
    sub = connect(context, first, "iopub", reconnect_ivl=20)
    await shell.send(b"request")
    await until(lambda: first.received and first.topics)
    first.sockets.close()
    second = Served(first.sockets.ports)
    try:
        done = []
        second.sockets.send(Channel.SHELL, [b"other", b"nobody waits for it"], lambda: done.append(b"other"))
        second.sockets.expect(b"me")
        for number in range(3):
            second.sockets.send(Channel.SHELL, [b"me", b"%d" % number], lambda: done.append(b"me"))
        assert done == [b"other"]
        assert [await received(shell) for _ in range(3)] == [[b"0"], [b"1"], [b"2"]]
        # libzmq subscribes again when its socket is used next.
        published = asyncio.create_task(received(sub))
        await until(lambda: second.topics)
        second.sockets.send(Channel.IOPUB, [b"t", b"published"])
        assert await published == [b"t", b"published"]
        assert done == [b"other", b"me", b"me", b"me"]
    finally:
        second.sockets.close()


async def test_who_is_expected_and_never_comes_is_given_up(served, monkeypatch, caplog):
    monkeypatch.setattr(router, "PATIENCE", 0.1)
    done = []
    served.sockets.expect(b"me")
    for number in range(3):
        served.sockets.send(Channel.CONTROL, [b"me", b"x"], lambda number=number: done.append(number))
    assert not done
    await until(lambda: done == [0, 1, 2])
    assert "its control channel did not connect" in caplog.text


async def test_what_an_old_connection_did_not_take_goes_to_the_one_that_takes_it_over(served, context):
    done: list[int] = []
    with raw(served, "shell", GREETING + ready(identity=b"me")) as old:
        await until(lambda: b"me" in served.sockets._routers[Channel.SHELL]._by_id)
        for number in range(30):
            served.sockets.send(
                Channel.SHELL, [b"me", b"%d" % number, bytes(1_000_000)], lambda number=number: done.append(number)
            )
        before = len(done)
        assert before < 30
        client = connect(context, served, "shell", identity=b"me")
        numbers = [int((await received(client))[0]) for _ in range(30 - before)]
        assert numbers == list(range(before, 30))
        await until(lambda: len(done) == 30)
        assert done == list(range(30))
        await ended(old)


async def test_what_was_said_before_a_client_went_is_heard(served):
    """A script sends its last request and ends."""
    for _ in range(20):
        served.received.clear()
        with raw(served, "shell", GREETING + ready(identity=b"me")):
            await until(lambda: b"me" in served.sockets._routers[Channel.SHELL]._by_id)
        with raw(served, "shell", GREETING + ready(identity=b"me") + b"\x00\x01x" * 500):
            pass
        served.sockets.send(Channel.SHELL, [b"me", bytes(100_000)])
        await until(lambda: len(served.received) == 500)
    await served.clients()


NO_ZMTP = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "random": b"\x01" * 100,
    "wrong socket": GREETING + ready(b"PAIR"),
    "flags": GREETING + ready() + b"\xff" * 100,
}


@pytest.mark.parametrize("channel", Ports._fields)
@pytest.mark.parametrize("name", NO_ZMTP)
async def test_what_is_no_zmq_client_is_disconnected_and_said(served, context, caplog, channel, name):
    client = connect(context, served, "shell", identity=b"me")
    await client.send(b"1")
    with raw(served, channel, NO_ZMTP[name]) as bad:
        await ended(bad)
    assert f"{channel} port {served.port(channel)}: ended the connection" in caplog.text
    await until(lambda: served.received)
    served.sockets.send(Channel.SHELL, [b"me", b"2"])
    assert await received(client) == [b"2"]


async def test_who_says_nothing_is_disconnected_after_a_while(monkeypatch, caplog):
    monkeypatch.setattr(connection, "_HANDSHAKE_SECONDS", 0.2)
    served = Served()
    try:
        with raw(served, "shell", GREETING[:30]) as half, raw(served, "iopub", b"") as silent:
            await ended(half)
            await ended(silent)
        assert caplog.text.count("no handshake in time") == 2
    finally:
        served.sockets.close()


async def test_connections_have_a_bound(served, monkeypatch, caplog):
    monkeypatch.setattr(endpoint, "MAX_CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(raw(served, "shell"))
        await until(lambda: len(served.sockets._routers[Channel.SHELL]._connections) == 3)
        with raw(served, "shell") as fourth:
            await ended(fourth)
        assert "there are 3 already" in caplog.text
    await served.clients()


@pytest.mark.parametrize("trusts", [True, False])
async def test_strangers_together_may_keep_so_much_and_no_more(served, monkeypatch, caplog, trusts):
    monkeypatch.setattr(connection, "UNTRUSTED_BYTES", 1_000_000)
    served.trusts = trusts
    begun = b"\x03" + (600_000).to_bytes(8, "big") + bytes(599_000)
    with contextlib.ExitStack() as stack:
        for number in range(2):
            data = GREETING + ready(identity=b"%d" % number) + b"\x00\x01x" + begun
            last = stack.enter_context(raw(served, "shell", data))
        if trusts:
            last.sendall(bytes(1000) + b"\x00\x00")
            await until(lambda: len(served.received) == 3)
            assert not caplog.text
        else:
            await until(lambda: "of more than 0 MiB, with those of others" in caplog.text)
    await served.clients()
    assert served.sockets._endpoints[0]._allowance._kept == 0


async def test_ports_are_free_at_once_although_clients_are_connected(context):
    served = Served()
    for _ in range(5):
        clients = [connect(context, served, name) for name in ("shell", "iopub", "control", "stdin")]
        await until(lambda served=served: served.topics)
        for client in clients:
            client.close()
        served.sockets.close()
        served = Served(served.sockets.ports)
    with pytest.raises(SettingsError, match="is taken by another program"):
        Served(served.sockets.ports)
    served.sockets.close()
