from __future__ import annotations

import asyncio
import os
import threading

import httpx
import psutil
import pytest

from codespace_kernels.connection import Connection
from codespace_kernels.errors import NoSshServerError, WorkspaceConnectionError
from codespace_kernels.progress import silent
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.tunnel.codespace import connect_codespace
from codespace_kernels.tunnel.tunnel import open_tunnel
from tests.tunnel.conftest import WAIT, running


async def read_exactly(stream, size):
    data = bytearray()
    while len(data) < size:
        chunk = await stream.read()
        assert chunk
        data += chunk
    return bytes(data)


async def ended(connection):
    return await asyncio.wait_for(asyncio.shield(connection.closed), WAIT)


async def test_logs_in_and_runs_commands(connect):
    connection: Connection = await connect()
    user = (await connection.run("id -un")).stdout.decode().strip()
    assert connection.description == f"dev tunnel + SSH as {user}"


async def test_one_websocket_carries_everything(connect, shared_emulator):
    before = shared_emulator.emulator.tunnels.relay_connections
    connection = await connect()
    stream = await connection.open_command("cat")
    data = os.urandom(8_000_000)
    _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
    assert echoed == data
    await connection.upload(data, "in-the-codespace")
    assert (await connection.run("wc -c < in-the-codespace")).stdout.strip() == b"8000000"
    await connection.tunnel.services.notify_activity(["keepAlive"])
    assert shared_emulator.emulator.tunnels.relay_connections == before + 1


async def test_many_streams_in_both_layers(connect):
    connection = await connect()

    async def echo(number):
        stream = await connection.open_command("cat")
        data = bytes([number]) * 100_000
        await stream.write(data)
        assert await read_exactly(stream, len(data)) == data
        stream.close()

    await asyncio.gather(*(echo(n) for n in range(12)))


async def test_ports_by_ssh_and_by_the_tunnel(connect, shared_emulator):
    connection = await connect()
    api_port = httpx.URL(shared_emulator.api_url).port
    for port in (await connection.forward("127.0.0.1", api_port), await connection.tunnel.forward(api_port)):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/rate_limit")).headers["server"]


async def test_port_where_nobody_listens(connect):
    connection = await connect()
    with pytest.raises(WorkspaceConnectionError, match="port 9 of the codespace was refused"):
        await connection.tunnel.open_stream(9)
    assert (await connection.run("echo fine")).stdout == b"fine\n"


async def test_close_leaves_nothing(codespace, connect, shared_emulator):
    warm = await connect(codespace)
    await warm.close()
    process = psutil.Process()
    names = {t.ident for t in threading.enumerate()}
    connection = await connect(codespace)
    await connection.tunnel.forward(2222)
    await connection.run("true")
    await connection.close()
    assert await ended(connection) == "The SSH connection ended: it was closed here."
    assert await ended(connection.tunnel) == "The dev tunnel ended: it was closed here."

    def left():
        return [t.name for t in threading.enumerate() if t.ident not in names and "codespace-kernels" in t.name]

    async with asyncio.timeout(WAIT):
        while left() or shared_emulator.emulator.tunnels.open_relays:
            await asyncio.sleep(0.02)
    assert not [c for c in process.net_connections("tcp") if c.raddr and c.raddr.port == 2222]


async def test_relay_that_drops(connect, shared_emulator):
    connection = await connect()
    stream = await connection.open_command("cat")
    reader = asyncio.create_task(stream.read())
    shared_emulator.faults.set("relay-drop")
    try:
        assert await ended(connection)
        assert await ended(connection.tunnel)
        with pytest.raises(WorkspaceConnectionError):
            await asyncio.wait_for(reader, WAIT)
    finally:
        shared_emulator.faults.clear()


async def test_relay_that_carries_nothing_any_more(connect, shared_emulator):
    # A peer that answers, on a machine that keeps it waiting for a second, is not silent.
    connection = await connect(keepalive=KeepaliveOptions(0.1, 19))
    await asyncio.sleep(2.2)
    assert not connection.closed.done()
    shared_emulator.faults.set("relay-blackhole")
    try:
        assert "no answer from the other end" in await ended(connection)
    finally:
        shared_emulator.faults.clear()


async def test_image_without_ssh_server(codespace, shared_emulator):
    shared_emulator.faults.set("no-sshd")
    try:
        with pytest.raises(NoSshServerError, match=r"ghcr\.io/devcontainers/features/sshd:1"):
            await connect_codespace(codespace.properties, name=codespace.name, progress=silent)
    finally:
        shared_emulator.faults.clear()


async def test_tunnel_without_ssh_gives_jupyter(codespace):
    tunnel = await open_tunnel(codespace.properties, silent)
    server = await tunnel.services.get_running_server()
    assert "token" not in repr(server)
    local = await tunnel.forward(server.port)
    url = httpx.URL(server.url).copy_with(port=local, path="/api/status")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).json()["kernels"] == 0
    await tunnel.close()


async def test_codespace_that_stops(emulator):
    target = await running(emulator)
    connection = await connect_codespace(target.properties, name=target.name, progress=silent)
    headers = {"Authorization": f"token {emulator.token}"}
    async with httpx.AsyncClient(base_url=emulator.api_url, headers=headers) as api:
        await api.post(f"/user/codespaces/{target.name}/stop")
    assert await ended(connection)
    await connection.close()
