"""The tunnel as a client sees it: relay, SSH session, ports."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from paramiko.common import MSG_GLOBAL_REQUEST
from paramiko.packet import Packetizer
from websockets.exceptions import InvalidStatus

from codespace_kernels.emulator.machine import Machine
from codespace_kernels.emulator.tunnel_ports import REPEAT_AFTER

from .machine_fixtures import PATIENCE, RPC_PORT, EchoServer, MachineRoom, TunnelClient, echo, eventually


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineRoom]:
    with MachineRoom(tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture(scope="module")
def machine(room: MachineRoom) -> Machine:
    return room.machine()


@pytest.fixture
def tunnel(room: MachineRoom, machine: Machine) -> Iterator[TunnelClient]:
    with room.tunnel(machine) as tunnel:
        yield tunnel


def open_echo(room: MachineRoom, machine: Machine, tunnel: TunnelClient, port: int) -> paramiko.Channel:
    room.put_port(machine, port)
    assert tunnel.refresh()
    tunnel.wait_for(port)
    return tunnel.open_port(port)


def wait_for_client(connection: socket.socket) -> None:
    """Wait for a byte: a stock paramiko client loses a channel that is closed before `open_channel` has returned."""
    connection.recv(1)


def read_exactly(channel: paramiko.Channel, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = channel.recv(min(65536, size - len(data)))
        assert more, f"ended after {len(data)} of {size} bytes"
        data += more
    return bytes(data)


def test_host_key_is_the_published_one(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    (endpoint,) = room.call(machine).json()["endpoints"]
    key = tunnel.get_remote_server_key()
    assert endpoint["hostPublicKeys"] == [base64.b64encode(key.asbytes()).decode()]
    assert key.get_name() == "ecdsa-sha2-nistp384"


def test_host_key_lasts_over_a_restart(room: MachineRoom) -> None:
    machine = room.machine("restarting")
    keys = []
    for _ in range(2):
        with room.tunnel(machine) as tunnel:
            keys.append(tunnel.get_remote_server_key().asbytes())
        room.run(machine.shutdown())
        room.run(machine.boot())
    assert keys[0] == keys[1]


def test_tells_the_services_port_after_log_in(tunnel: TunnelClient) -> None:
    tunnel.wait_for(RPC_PORT)


def test_only_user_tunnel_logs_in(room: MachineRoom, machine: Machine) -> None:
    tunnel = room.tunnel(machine, login=False)
    with tunnel, pytest.raises(paramiko.SSHException):
        tunnel.auth_none("root")


def test_tells_nothing_before_log_in(room: MachineRoom, machine: Machine) -> None:
    with room.tunnel(machine, login=False) as tunnel:
        tunnel.global_request("keepalive@openssh.com", wait=False)
        tunnel.auth_none("tunnel")
        tunnel.wait_for(RPC_PORT)


def test_real_host_algorithms(room: MachineRoom, machine: Machine) -> None:
    offered = _offered(room, machine)
    assert offered["kex"][:2] == ["ecdh-sha2-nistp384", "ecdh-sha2-nistp256"]
    assert not [name for name in offered["kex"] if "strict" in name or "curve25519" in name]
    assert offered["ciphers"] == ["aes256-gcm@openssh.com", "aes256-ctr"]


def _offered(room: MachineRoom, machine: Machine) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = {}

    class Listening(TunnelClient):
        def _parse_kex_init(self, message: paramiko.Message) -> None:
            message.get_bytes(16)
            seen["kex"] = message.get_list()
            seen["keys"] = message.get_list()
            seen["ciphers"] = message.get_list()
            message.rewind()
            super()._parse_kex_init(message)

    with Listening(room.open_relay(machine)):
        return seen


def test_gcm_and_a_session_channel(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    session = tunnel.open_session(timeout=PATIENCE)
    assert not session.closed
    with EchoServer(echo) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(b"beside a session")
        assert read_exactly(channel, 16) == b"beside a session"


def test_direct_tcpip_is_refused(tunnel: TunnelClient) -> None:
    with pytest.raises(paramiko.ChannelException):
        tunnel.open_channel("direct-tcpip", ("127.0.0.1", RPC_PORT), ("", 0), timeout=PATIENCE)


def test_keepalive_is_answered_and_unknown_requests_are_refused(tunnel: TunnelClient) -> None:
    assert tunnel.global_request("keepalive@openssh.com", wait=True) is not None
    assert tunnel.global_request("something@example.com", wait=True) is None


def test_unannounced_port_is_refused(tunnel: TunnelClient) -> None:
    with EchoServer(echo) as server, pytest.raises(paramiko.ChannelException):
        tunnel.open_port(server.port)


def test_port_without_listener_is_refused(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    with socket.socket() as bound:
        # Kept, so that nobody else listens there meanwhile.
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(paramiko.ChannelException) as refusal:
            open_echo(room, machine, tunnel, bound.getsockname()[1])
    assert refusal.value.code == 2


def test_refused_announcement_is_forgotten(room: MachineRoom, machine: Machine) -> None:
    with EchoServer(echo) as server, room.tunnel(machine, refuse=frozenset({server.port})) as tunnel:
        with pytest.raises(paramiko.ChannelException):
            open_echo(room, machine, tunnel, server.port)
        # Not told again until the client asks, and accepted then.
        assert tunnel.announced(server.port) == 1
        tunnel.refused = frozenset()
        assert tunnel.refresh()
        tunnel.open_port(server.port).close()


def test_refresh_is_answered_after_all_announcements(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    ports = range(20001, 20031)
    for port in ports:
        room.put_port(machine, port)
    assert tunnel.refresh()
    assert {port for _, port in tunnel.announcements} >= set(ports)
    for port in ports:
        room.call(machine, "DELETE", f"/ports/{port}").raise_for_status()
    assert tunnel.refresh()
    assert ("cancel-tcpip-forward", 20001) in tunnel.announcements


def test_answer_to_a_refresh_is_not_lost_between_replies(room: MachineRoom, machine: Machine) -> None:
    """Replies that come together: the first one's turn brings the answer, the next is about another port."""
    together, answers = threading.Event(), threading.Semaphore(0)

    class Late(TunnelClient):
        def _reply(self, reply: paramiko.Message, announcement: tuple[str, int]) -> None:
            together.wait(PATIENCE)
            super()._reply(reply, announcement)

        def _parse_request_success(self, _message: paramiko.Message) -> None:
            answers.release()

        def ask_to_refresh(self) -> None:
            message = paramiko.Message()
            message.add_byte(bytes([MSG_GLOBAL_REQUEST]))
            message.add_string("RefreshPorts")
            message.add_boolean(True)
            self._send_user_message(message)

    ports = range(20101, 20131)
    with Late(room.open_relay(machine)) as tunnel:
        for port in ports:
            room.put_port(machine, port)
            tunnel.ask_to_refresh()
        together.set()
        assert all(answers.acquire(timeout=PATIENCE) for _ in ports)
    for port in ports:
        room.call(machine, "DELETE", f"/ports/{port}").raise_for_status()


def test_port_that_nobody_opened_is_told_again(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    with EchoServer(echo) as opened, EchoServer(echo) as unopened:
        open_echo(room, machine, tunnel, opened.port)
        room.put_port(machine, unopened.port)
        assert tunnel.refresh()
        before = tunnel.announced(opened.port)
        eventually(lambda: tunnel.announced(unopened.port) > 1, "a repeated announcement")
        assert tunnel.announced(opened.port) == before


def test_port_is_told_again_to_a_client_that_was_slow_to_reply(room: MachineRoom, machine: Machine) -> None:
    class Slow(TunnelClient):
        def _reply(self, reply: paramiko.Message, announcement: tuple[str, int]) -> None:
            if not self.announcements:
                time.sleep(2 * REPEAT_AFTER[0])
            super()._reply(reply, announcement)

    with Slow(room.open_relay(machine)) as tunnel:
        eventually(lambda: tunnel.announced(RPC_PORT) > 1, "a repeated announcement")


def test_64_mib_arrive_intact(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    _echo_intact(room, machine, tunnel, 64)


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes256-ctr"])
@pytest.mark.parametrize("starter", ["client", "host", "both"])
def test_keys_are_changed_while_channels_come_and_go(
    room: MachineRoom, machine: Machine, monkeypatch: pytest.MonkeyPatch, starter: str, cipher: str
) -> None:
    """Confirmations and closes of channels fall into key exchanges, whoever begins them."""
    small, large = 2**19, 2**29
    data = os.urandom(2**20)
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", large if starter == "client" else small)

    def serve(connection: socket.socket) -> None:
        wait_for_client(connection)
        connection.sendall(data)

    with EchoServer(serve) as server:
        room.put_port(machine, server.port)
        with room.tunnel(machine, cipher=cipher) as tunnel:
            tunnel.packetizer.REKEY_BYTES = large if starter == "host" else small
            tunnel.wait_for(server.port)
            first = tunnel.session_keys
            for _ in range(30):
                channel = tunnel.open_port(server.port)
                channel.sendall(b"x")
                assert read_exactly(channel, len(data)) == data
                assert channel.recv(1) == b""
            assert tunnel.session_keys - first >= 5
            assert tunnel.local_cipher == cipher


def _echo_intact(room: MachineRoom, machine: Machine, tunnel: TunnelClient, mebibytes: int) -> None:
    block = os.urandom(2**20)
    received = hashlib.sha256()
    with EchoServer(echo) as server:
        channel = open_echo(room, machine, tunnel, server.port)

        def send() -> None:
            for _ in range(mebibytes):
                channel.sendall(block)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        for _ in range(mebibytes):
            received.update(read_exactly(channel, len(block)))
        sender.join(PATIENCE)
        channel.close()
    assert received.digest() == hashlib.sha256(block * mebibytes).digest()


def test_many_connections_at_once(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    with EchoServer(echo) as server:
        open_echo(room, machine, tunnel, server.port).close()
        before = threading.active_count()
        channels = [tunnel.open_port(server.port) for _ in range(30)]
        # The echo server has a thread a connection; the tunnel's host none.
        assert threading.active_count() <= before + 30
        for number, channel in enumerate(channels):
            channel.sendall(b"%02d" % number)
        assert [read_exactly(channel, 2) for channel in channels] == [b"%02d" % number for number in range(30)]


def test_a_reader_that_stalls_holds_up_nobody_else(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(bytes(65536))

    with EchoServer(flood) as flooding, EchoServer(echo) as server:
        stalled = open_echo(room, machine, tunnel, flooding.port)
        eventually(lambda: stalled.in_window_size and stalled.recv_ready(), "the flood")
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(b"still here")
        assert read_exactly(channel, 10) == b"still here"
        stalled.close()


def test_a_server_that_reads_nothing_holds_up_nobody_else(
    room: MachineRoom, machine: Machine, tunnel: TunnelClient
) -> None:
    done = threading.Event()

    def ignore(_connection: socket.socket) -> None:
        done.wait(PATIENCE)

    with EchoServer(ignore) as deaf, EchoServer(echo) as server:
        stalled = open_echo(room, machine, tunnel, deaf.port)
        stalled.settimeout(0.0)
        sent = 0
        with pytest.raises(TimeoutError):  # noqa: PT012  (it is the last of many that fails)
            while sent < 2**28:
                sent += stalled.send(bytes(32768))
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(b"still here")
        assert read_exactly(channel, 10) == b"still here"
        done.set()


def test_the_servers_close_comes_after_its_data(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    data = os.urandom(3 * 2**20)

    def serve(connection: socket.socket) -> None:
        wait_for_client(connection)
        connection.sendall(data)

    with EchoServer(serve) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(b"x")
        assert read_exactly(channel, len(data)) == data
        assert channel.recv(1) == b""


def test_data_before_the_clients_close_arrives(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    received = bytearray()
    ended = threading.Event()

    def collect(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            received.extend(data)
        ended.set()

    data = os.urandom(500_000)
    with EchoServer(collect) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(data)
        channel.close()
        assert ended.wait(PATIENCE)
    assert received == data


def test_half_close_does_not_reach_the_server(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    ended = threading.Event()

    def watch(connection: socket.socket) -> None:
        echo(connection)
        ended.set()

    with EchoServer(watch) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(b"x")
        channel.shutdown_write()
        # What comes after it in the session has been served, so the end of file has been seen too.
        assert tunnel.refresh()
        assert read_exactly(channel, 1) == b"x"
        assert not ended.is_set()
        channel.close()
        assert ended.wait(PATIENCE)


def test_relay_drop_ends_the_session_and_the_next_gets_through(room: MachineRoom, machine: Machine) -> None:
    with room.tunnel(machine) as tunnel:
        room.faults.set("relay-drop", machine.spec.name)
        eventually(lambda: not tunnel.is_active(), "the end of the session")
        eventually(lambda: not room.tunnels.open_relays, "the relay's end")
    with room.tunnel(machine) as tunnel:
        tunnel.wait_for(RPC_PORT)
    room.faults.clear()


def test_black_hole_moves_nothing_and_loses_nothing(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    with EchoServer(echo) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        channel.sendall(b"before")
        assert read_exactly(channel, 6) == b"before"
        room.faults.set("relay-blackhole", machine.spec.name)
        channel.sendall(b"during")
        channel.settimeout(0.5)
        with pytest.raises(TimeoutError):
            channel.recv(1)
        assert not tunnel.websocket.ping().wait(0.2)
        assert tunnel.is_active()
        room.faults.clear("relay-blackhole")
        channel.settimeout(PATIENCE)
        assert read_exactly(channel, 6) == b"during"


def test_other_codespaces_are_spared_by_a_fault(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    room.faults.set("relay-drop", "another")
    assert tunnel.refresh()
    room.faults.clear()


def test_relays_are_counted(room: MachineRoom, machine: Machine) -> None:
    before = room.tunnels.relay_connections
    eventually(lambda: not room.tunnels.open_relays, "earlier relays' end")
    with room.tunnel(machine):
        assert room.tunnels.open_relays == 1
        assert room.tunnels.relay_connections == before + 1
    eventually(lambda: not room.tunnels.open_relays, "the relay's end")


def test_shutdown_cuts_relays_and_ends_their_threads(room: MachineRoom) -> None:
    machine = room.machine("cut")
    eventually(lambda: not room.tunnels.open_relays, "earlier relays' end")
    before = {thread.ident for thread in threading.enumerate()}
    with room.tunnel(machine) as tunnel:
        room.run(machine.shutdown())
        eventually(lambda: not tunnel.is_active(), "the end of the session")
    left = [
        thread.name
        for thread in threading.enumerate()
        if thread.ident not in before and "HostTransport" in f"{thread.name}{type(thread)}"
    ]
    assert not left
    assert room.call(machine).json()["endpoints"] == []


@pytest.mark.parametrize("subprotocols", [None, ["tunnel-relay-client-v2-dev"]])
def test_only_protocol_v1_is_served(room: MachineRoom, machine: Machine, subprotocols: list[str] | None) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        room.open_relay(machine, subprotocols=subprotocols)
    assert refusal.value.response.status_code == 400


def test_the_host_key_file_is_private(machine: Machine) -> None:
    path: Path = machine.spec.folder / "etc" / "tunnel_host_key"
    assert path.stat().st_mode & 0o077 == 0


def test_black_hole_in_one_direction_for_a_time(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    received = bytearray()
    done = threading.Event()

    def answer(connection: socket.socket) -> None:
        received.extend(connection.recv(100))
        done.set()
        connection.sendall(b"answer")
        connection.recv(1)

    with EchoServer(answer) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        room.faults.set("relay-blackhole", machine.spec.name, direction="to-client", seconds=1.5)
        channel.sendall(b"question")
        assert done.wait(PATIENCE)
        assert received == b"question"
        channel.settimeout(0.2)
        with pytest.raises(TimeoutError):
            channel.recv(1)
        channel.settimeout(PATIENCE)
        assert read_exactly(channel, 6) == b"answer"
    room.faults.clear()


def test_a_half_open_relay_is_silent_until_it_is_reset(room: MachineRoom, machine: Machine) -> None:
    with room.tunnel(machine) as tunnel:
        room.faults.set("relay-half-open", machine.spec.name)
        eventually(lambda: not room.tunnels.open_relays, "the end of the relay's other side")
        assert not tunnel.websocket.ping().wait(0.3)
        assert tunnel.is_active()
        with room.tunnel(machine) as other:
            other.wait_for(RPC_PORT)
        room.faults.clear()
        eventually(lambda: not tunnel.is_active(), "the reset")


def test_a_slow_relay(room: MachineRoom, machine: Machine, tunnel: TunnelClient) -> None:
    with EchoServer(echo) as server:
        channel = open_echo(room, machine, tunnel, server.port)
        room.faults.set("relay-slow", machine.spec.name, mbit=8)
        begun = time.monotonic()
        channel.sendall(bytes(500_000))
        assert read_exactly(channel, 500_000)
        assert time.monotonic() - begun >= 0.5
        room.faults.clear()


def test_tokens_of_before_expire_and_new_ones_are_good(room: MachineRoom, machine: Machine) -> None:
    old = machine.tunnel_properties()
    room.faults.set("token-expired", machine.spec.name, which="old")
    assert room.call(machine, token=old["managePortsAccessToken"]).status_code == 401
    with pytest.raises(InvalidStatus) as refusal:
        room.open_relay(machine, token=old["connectAccessToken"])
    assert refusal.value.response.status_code == 401
    with room.tunnel(machine) as tunnel:
        tunnel.wait_for(RPC_PORT)
    room.faults.clear()
