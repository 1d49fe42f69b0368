"""The whole way over a real OpenSSH server."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.link.client import LinkClient
from codespace_kernels.ssh.connection import SshConnection
from tests.ssh.conftest import Sshd, sshd

from .conftest import environment
from .recorder import Recorder

__all__ = ["sshd"]


class InHome:
    """An SSH connection whose commands run in a home of their own."""

    def __init__(self, connection: SshConnection, home: Path) -> None:
        self._connection = connection
        self._home = home
        variables = {**environment(home), "HOME": str(home)}
        given = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items() if value is not None)
        self._prefix = f"cd {home}; export {given}; "

    async def upload(self, data: bytes, path: str, **options: object) -> None:
        await self._connection.upload(data, str(self._home / path), **options)

    async def open_command(self, command: str, **options: object) -> object:
        return await self._connection.open_command(self._prefix + command, **options)


async def connect(server: Sshd) -> SshConnection:
    return await SshConnection.connect(
        server.wire(),
        username=server.username,
        key=server.user_key,
        check_host_key=lambda key: None,
        description="test",
    )


@pytest.fixture
async def ssh(sshd: Sshd) -> AsyncIterator[SshConnection]:
    connection = await connect(sshd)
    yield connection
    await connection.close()


async def test_kernels_outlive_the_ssh_connection_and_lose_nothing(
    sshd: Sshd,
    ssh: SshConnection,
    fresh_home: Path,
) -> None:
    workspace = InHome(ssh, fresh_home)
    server = await ensure_server(workspace, install=False)
    client = LinkClient()
    await client.attach(await server.open_link(workspace))
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("import time")
    request = recorder.request("for i in range(1500): print(i, 'x' * 500, flush=True); time.sleep(0.001)")
    await recorder.until(lambda: len(recorder.of_request(request)) > 300)
    sshd.kill_sessions()
    await client.wait_detached()

    again = await connect(sshd)
    workspace = InHome(again, fresh_home)
    await client.attach(await server.open_link(workspace))
    await recorder.until(lambda: recorder.is_idle(request))
    assert [line.split()[0] for line in recorder.text(request).splitlines()] == [str(i) for i in range(1500)]
    assert not recorder.gaps
    await client.shutdown_server()
    await client.wait_detached()
    await client.close()
    await again.close()


async def test_large_messages_both_ways(ssh: SshConnection, fresh_home: Path) -> None:
    workspace = InHome(ssh, fresh_home)
    server = await ensure_server(workspace, install=False)
    client = LinkClient()
    await client.attach(await server.open_link(workspace))
    recorder = Recorder(await client.start_kernel("python3"))
    text = "y" * 8_000_000
    request = await recorder.run(f"data = '{text}'\nprint(len(data))\nprint(data)")
    async with asyncio.timeout(20):
        assert recorder.text(request) == f"8000000\n{text}\n"
    await client.close()
