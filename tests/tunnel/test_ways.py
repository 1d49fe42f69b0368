"""The way of the last time: taken before anybody has answered, and left where it leads to the wrong place."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import stat

import paramiko
import pytest

from codespace_kernels import settings
from codespace_kernels.errors import HostKeyError
from codespace_kernels.progress import silent
from codespace_kernels.ssh.login import log_in
from codespace_kernels.tunnel import codespace as connecting
from codespace_kernels.tunnel import tunnel as tunnels
from codespace_kernels.tunnel.preparation import Preparation
from codespace_kernels.tunnel.properties import TunnelProperties
from codespace_kernels.tunnel.tunnel import open_tunnel
from codespace_kernels.tunnel.ways import FOLDER, KnownWay, load_way, save_way
from tests.tunnel.conftest import WAIT, Answer, HttpService
from tests.tunnel.test_tunnel import tunnel_object, with_endpoint


@pytest.fixture
async def way(codespace, connect) -> KnownWay:
    """The way to the codespace, as a connection found it."""
    connection = await connect(codespace)
    await connection.close()
    known = load_way(codespace.name)
    assert known is not None
    return known


def keep(codespace, way, **changes):
    save_way(codespace.name, dataclasses.replace(way, **changes))


def relays(shared_emulator):
    return shared_emulator.emulator.tunnels.relay_connections


async def test_what_is_kept_is_what_was_found_and_no_secret(codespace, way):
    endpoint = (await tunnel_object(codespace.properties))["endpoints"][0]
    assert way.leads_to(codespace.properties)
    assert way.relay_uri == endpoint["clientRelayUri"]
    assert (way.ssh_port, way.kex, way.host_key) == (2222, "ecdh-sha2-nistp384", "ecdsa-sha2-nistp384")
    (file,) = [path for path in (settings.state_dir() / FOLDER).iterdir() if codespace.name in path.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert codespace.properties.connect_access_token not in file.read_text()
    assert codespace.properties.manage_ports_access_token not in file.read_text()


async def test_the_known_way_is_one_connection_that_is_there_before_the_service_is_asked(
    codespace, way, shared_emulator, monkeypatch
):
    asked = []
    preparation = Preparation(codespace.name)
    sock = await asyncio.wait_for(asyncio.shield(preparation._socket), WAIT)
    assert sock is not None
    peer = sock.getpeername()
    monkeypatch.setattr(connecting.SshConnection, "negotiate", _noting(connecting.SshConnection.negotiate, asked))
    before = relays(shared_emulator)
    connection = await connecting.connect_codespace(
        codespace.properties, name=codespace.name, progress=silent, preparation=preparation
    )
    assert relays(shared_emulator) == before + 1
    assert connection._tunnel._session.sock._lower._sock.getpeername() == peer
    # What listened at the known port is what was logged in to.
    assert len(asked) == 1
    assert (await connection.run("echo here")).stdout == b"here\n"
    await connection.close()


def _noting(function, calls):
    async def noted(*args, **options):
        calls.append(args)
        return await function(*args, **options)

    return noted


async def _nobody(reader, writer):
    writer.close()


WRONG = {
    "another tunnel": {"tunnel_id": "another"},
    "nobody at the relay": {"relay_uri": "ws://127.0.0.1:1/api"},
    "no such host": {"relay_uri": "wss://relay.invalid/api"},
    "no port of the tunnel": {"ssh_port": 4},
    "another service's port": {"ssh_port": 16634},
    "another key exchange": {"kex": "ecdh-sha2-nistp256"},
    "another host key": {"host_key": "rsa-sha2-512"},
    "unknown algorithms": {"kex": "rot13", "host_key": "none"},
    "no algorithms": {"kex": "", "host_key": ""},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
async def test_a_way_that_is_wrong_now_is_found_anew(codespace, way, connect, changes):
    keep(codespace, way, **changes)
    connection = await connect(codespace)
    assert (await connection.run("echo here")).stdout == b"here\n"
    await connection.close()
    assert load_way(codespace.name) == way


async def test_a_host_that_takes_nothing_early_is_met_step_by_step(codespace, way, connect, monkeypatch):
    logins = []

    def only_patient(session, *args, waits=False, **options):
        logins.append(waits)
        if not waits:
            raise paramiko.SSHException("a message before its time")
        log_in(session, *args, waits=waits, **options)

    monkeypatch.setattr(tunnels, "log_in", only_patient)
    connection = await connect(codespace)
    assert logins == [False, False, True]
    assert (await connection.run("echo here")).stdout == b"here\n"
    await connection.close()


async def test_a_relay_that_hangs_up(codespace, way, connect):
    server = await asyncio.start_server(_nobody, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        keep(codespace, way, relay_uri=f"ws://127.0.0.1:{port}/api")
        connection = await connect(codespace)
        await connection.close()
    assert load_way(codespace.name) == way


async def test_a_relay_that_says_nothing_is_not_waited_for(codespace, way, connect):
    with socket.create_server(("127.0.0.1", 0)) as silent_relay:
        keep(codespace, way, relay_uri=f"ws://127.0.0.1:{silent_relay.getsockname()[1]}/api")
        connection = await connect(codespace)
        await connection.close()
    assert load_way(codespace.name) == way


async def test_the_token_is_sent_to_no_relay_that_is_known_of_another_tunnel(codespace, way, connect):
    heard = []

    async def listen(reader, writer):
        heard.append(await reader.read(65536))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        keep(codespace, way, relay_uri=f"ws://127.0.0.1:{port}/api", tunnel_id="another")
        connection = await connect(codespace)
        await connection.close()
    assert [data for data in heard if data] == []


SERVICE = "https://global.rel.tunnels.api.visualstudio.com/"


@pytest.mark.parametrize(
    ("relay_uri", "expected"),
    [
        ("wss://usw2-data.rel.tunnels.api.visualstudio.com/api/v1/Connect/Client/x", True),
        ("wss://global.rel.tunnels.api.visualstudio.com/x", True),
        ("wss://usw2-data.rel.tunnels.api.visualstudio.com.evil.example/x", False),
        ("wss://x.evil-rel.tunnels.api.visualstudio.com/x", False),
        ("wss://usw2.rel.tunnels.api.visualstudio.com@evil.example/x", False),
        ("wss://evil.example/global.rel.tunnels.api.visualstudio.com", False),
        ("wss://com/x", False),
        ("ws://127.0.0.1:1/x", False),
    ],
)
def test_the_token_goes_to_relays_of_the_service_only(relay_uri, expected):
    properties = TunnelProperties("connect", "manage", SERVICE, "t", "usw2")
    assert KnownWay(SERVICE, "t", "usw2", relay_uri, 2222, "k", "h").leads_to(properties) is expected


@pytest.mark.parametrize("service_uri", ["https://a.example/", "https://10.0.0.1/", "https://localhost/", "https://b/"])
def test_what_is_no_domain_of_one_owner_has_no_relays_but_itself(service_uri):
    properties = TunnelProperties("connect", "manage", service_uri, "t", "c")
    for relay_uri in ("wss://b.example/", "wss://11.0.0.1/", "wss://a.com/"):
        assert not KnownWay(service_uri, "t", "c", relay_uri, 2222, "k", "h").leads_to(properties)


async def test_the_host_s_key_is_the_one_that_is_published_now(codespace, way):
    tunnel = with_endpoint(await tunnel_object(codespace.properties), hostPublicKeys=["AAAAB3NzaC1yc2E="])
    async with HttpService(lambda method, target: Answer(200, tunnel)) as service:
        properties = dataclasses.replace(codespace.properties, service_uri=service.url)
        keep(codespace, way, service_uri=service.url)
        with pytest.raises(HostKeyError, match="another key than the tunnel service publishes"):
            await open_tunnel(properties, silent, preparation=Preparation(codespace.name))


FILES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "too deep": b"[" * 16000,
    "another version": {"version": 2},
    "a field is missing": {"kex": None},
    "a port that is none": {"ssh_port": 65536},
    "a port in words": {"ssh_port": "2222"},
    "a relay without encryption": {"relay_uri": "ws://relay.example/api"},
    "a relay that is none": {"relay_uri": "file:///etc/passwd"},
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_files_that_cannot_be_used_are_no_way(tmp_path, content):
    good = KnownWay("https://x/", "t", "c", "wss://relay.example/api", 2222, "k", "h")
    save_way("hello", good, tmp_path)
    assert load_way("hello", tmp_path) == good
    assert load_way("other", tmp_path) is None
    (file,) = tmp_path.iterdir()
    if isinstance(content, dict):
        content = json.dumps({**json.loads(file.read_text()), **content}).encode()
    file.write_bytes(content)
    assert load_way("hello", tmp_path) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    save_way("hello", KnownWay("https://x/", "t", "c", "wss://relay.example/api", 2222, "k", "h"), tmp_path / "file")


@pytest.mark.parametrize("wait", [True, False])
async def test_what_is_prepared_and_not_used_is_closed(codespace, way, wait):
    async with asyncio.timeout(WAIT):
        preparation = Preparation(codespace.name)
        if wait:
            sock = await asyncio.shield(preparation._socket)
        preparation.close()
        preparation.close()
        assert await preparation.take_socket() is None
        await asyncio.wait({preparation._socket, preparation._modules})
        await asyncio.sleep(0)
    if wait:
        assert sock.fileno() == -1
