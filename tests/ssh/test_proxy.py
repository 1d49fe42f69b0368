from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from codespace_kernels.errors import HostKeyError, NoSshServerError, SshError
from codespace_kernels.processes import is_alive
from codespace_kernels.progress import silent
from codespace_kernels.ssh.gh import connect_by_gh
from codespace_kernels.ssh.hostkeys import HostKeyPins
from codespace_kernels.ssh.proxy import ProxyProcess
from tests.processes import command_line, living_children
from tests.ssh.conftest import WAIT, make_key
from tests.ssh.test_connection import read_exactly

# Copies between a TCP port and its stdin and stdout, as gh does.
NETCAT = """
import os, socket, sys, threading
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def upward():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_RDWR)
threading.Thread(target=upward, daemon=True).start()
while data := sock.recv(65536):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
"""


@pytest.mark.parametrize("use_pipes", [False, True])
async def test_carries_a_session(connect, sshd, use_pipes):
    argv = [sys.executable, "-c", NETCAT, str(sshd.port)]
    proxy = await ProxyProcess.start(argv, os.environ, use_pipes=use_pipes)
    connection = await connect(wire=proxy.wire, release=proxy.close)
    (child,) = [child for child in living_children() if NETCAT in command_line(child)]
    stream = await connection.open_command("cat")
    data = os.urandom(5_000_000)
    _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
    assert echoed == data
    await connection.close()
    assert not is_alive(child)


async def test_what_it_says_on_stderr_is_the_reason(connect):
    proxy = await ProxyProcess.start(["sh", "-c", "echo first >&2; echo no way in >&2; exit 1"], os.environ)
    with pytest.raises(SshError):
        await connect(wire=proxy.wire)
    assert await proxy.failure() == "first no way in"
    await proxy.close()
    await proxy.close()


async def test_program_that_is_not_there():
    with pytest.raises(SshError, match="no-such-program cannot be started"):
        await ProxyProcess.start(["/no-such-program", "--secret"], {})


async def test_program_that_ignores_its_end(sshd):
    proxy = await ProxyProcess.start(
        ["sh", "-c", "trap '' TERM; echo ready >&2; while :; do sleep 1; done"], os.environ
    )
    async with asyncio.timeout(WAIT):
        # A program that has just been started has no arguments yet.
        while not (found := [p for p in living_children() if "trap" in command_line(p)]):
            await asyncio.sleep(0.01)
    await proxy.close()
    assert not is_alive(found[0])


@pytest.fixture(scope="session")
def emulator_options():
    return {"transition_seconds": 0.02, "own_environment": False}


class TestGh:
    """The real gh, against the emulated account."""

    @pytest.fixture
    def gh(self, emulator):
        """Arguments for `connect_by_gh`."""
        program = shutil.which("gh", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        if program is None:
            pytest.skip("no gh on this machine")
        headers = {"Authorization": f"token {emulator.token}"}
        with httpx.Client(base_url=emulator.api_url, headers=headers) as api:
            codespace = api.get("/user/codespaces").json()["codespaces"][0]["name"]
        environment = {**os.environ, **emulator.environment()}
        return {
            "codespace": codespace, "name": codespace, "environment": environment, "progress": silent, "gh": program,
        }  # fmt: skip

    async def test_logs_in_as_the_user_that_gh_tells(self, gh):
        connection = await connect_by_gh(**gh)
        user = (await connection.run("id -un")).stdout.decode().strip()
        assert connection.description == f"gh codespace ssh --stdio as {user}"
        children = [p for p in living_children() if "gh" in p.name()]
        assert children
        # No secret in what others can read.
        assert gh["environment"]["GH_ENTERPRISE_TOKEN"] not in str([command_line(p) for p in children])
        await connection.close()
        assert not [p for p in children if is_alive(p)]

    async def test_changed_host_key_is_refused(self, gh, tmp_path):
        HostKeyPins(gh["name"]).check(make_key(tmp_path / "other"))
        with pytest.raises(HostKeyError):
            await connect_by_gh(**gh)
        assert not [p for p in living_children() if "gh" in p.name()]

    async def test_unknown_codespace(self, gh):
        for user in ("", "somebody"):
            with pytest.raises(SshError, match=r"gh could not connect to the codespace: .*Not Found"):
                await connect_by_gh(**{**gh, "codespace": "unknown", "user": user})

    async def test_image_without_ssh_server(self, gh, emulator):
        emulator.faults.set("no-sshd")
        with pytest.raises(NoSshServerError, match="features/sshd:1"):
            await connect_by_gh(**gh)
