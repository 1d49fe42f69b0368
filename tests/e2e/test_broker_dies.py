"""The broker is killed in the middle of things: the next one takes its kernels back, and front ends notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager

from codespace_kernels import __version__
from codespace_kernels.broker import client as broker_client
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.state import state_path
from codespace_kernels.errors import BrokerError
from codespace_kernels.launcher import PORT_NAMES
from tests.ports import free_ports

from .clients import execute, reply_to, running_kernel, soon, text_of, until_idle
from .conftest import WAIT, broker_kernels, cli, end_broker, ended, kernels_inside, wait_until
from .test_kept import front_end_dies, notebook, session_of, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["notebook"]  # a fixture

pytestmark = pytest.mark.e2e


NUMBERS = """
import time
for number in range(200):
    print(number, flush=True)
    time.sleep(0.02)
"""


def broker_pid() -> int:
    return BrokerClient().call("GET", "")["pid"]


def kill_broker(number: int = signal.SIGKILL) -> int:
    """Kill the broker, without a word unless another signal is given; give its process id."""
    pid = broker_pid()
    os.kill(pid, number)
    wait_until(lambda: ended(pid), "the broker to be gone")
    return pid


@contextlib.asynccontextmanager
async def cut_off(account) -> AsyncIterator[None]:
    """Cut the way to the codespace, so that nothing is in the broker's sockets when it is killed; lines wait there."""
    await asyncio.to_thread(account.fault, "relay-drop")
    try:
        yield
    finally:
        await asyncio.to_thread(account.fault, "relay-drop", "--clear")


async def test_a_cell_that_prints_loses_and_doubles_no_line(account, kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 41")
        before = client.get_connection_info()
        for _ in range(2):  # the one that took it back dies, too
            msg_id = client.execute(NUMBERS)
            while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "20\n":
                pass
            async with cut_off(account):
                first = await asyncio.to_thread(kill_broker)
            lines = text_of(await until_idle(client, msg_id)).split()
            assert lines == [str(number) for number in range(21, 200)]
            assert (await reply_to(client, msg_id))["content"]["status"] == "ok"
            assert await asyncio.to_thread(broker_pid) != first
            assert await manager.is_alive()
        assert client.get_connection_info() == before
        assert text_of(await execute(client, "print(x + 1)")) == "42\n"
        assert [kernel["state"] for kernel in await asyncio.to_thread(broker_kernels)] == ["idle"]


@pytest.fixture
def launched(kernel_name, tmp_path):
    """Path of a connection file that a launcher serves, as VS Code starts one; its process."""
    path = tmp_path / "kernel-v3.json"
    ports = dict(zip(PORT_NAMES, free_ports(5), strict=True))
    info = {**ports, "key": "a-uuid", "signature_scheme": "hmac-sha256", "transport": "tcp", "ip": "127.0.0.1"}
    path.write_text(json.dumps(info))
    spec = KernelSpecManager().get_kernel_spec(kernel_name)
    command = [sys.executable, "-m", "codespace_kernels.launcher", "-f", str(path)]
    environment = {**os.environ, **{name: spec.env[name] for name in spec.env if name != "PATH"}}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    yield path, process
    process.terminate()
    process.communicate(timeout=WAIT)
    wait_until(lambda: broker_kernels() == [], "the kernel to end")


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


async def test_the_kernel_of_a_launcher_is_taken_back(account, launched):
    path, process = launched
    # Before a client listens to its heartbeat, which a broker that loads SSH on a busy machine may be late with.
    await soon(lambda: [k["state"] for k in broker_kernels_or_none()] == ["idle"], "the kernel to start")
    client = AsyncKernelClient(connection_file=str(path))
    client.load_connection_file()
    # Its heartbeat counts a kernel as dead that does not listen after a second.
    await soon(lambda: listens(client.hb_port), "the launcher to listen")
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=WAIT)
        msg_id = client.execute(NUMBERS)
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "20\n":
            pass
        async with cut_off(account):
            await asyncio.to_thread(kill_broker)
        lines = text_of(await until_idle(client, msg_id)).split()
        assert lines == [str(number) for number in range(21, 200)]
        assert process.poll() is None
    finally:
        client.stop_channels()


async def test_a_question_is_answered_to_the_next_broker(kernel_name):
    async with running_kernel(kernel_name) as (_, client):
        msg_id = client.execute("print(input('name? '))", allow_stdin=True)
        assert (await client.get_stdin_msg(timeout=60))["content"]["prompt"] == "name? "
        await asyncio.to_thread(kill_broker)
        await soon(lambda: [k["state"] for k in broker_kernels_or_none()] == ["busy"], "the kernel to be taken back")
        client.input("Ada")
        assert text_of(await until_idle(client, msg_id)) == "Ada\n"


def broker_kernels_or_none() -> list[dict]:
    with contextlib.suppress(BrokerError):
        return broker_kernels()
    return []


async def test_a_cell_whose_kernel_dies_with_the_broker_is_told(account, kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        msg_id = client.execute("import time; print('begun', flush=True); time.sleep(600)")
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "begun\n":
            pass
        (kernel,) = kernels_inside(account.codespace)
        await asyncio.to_thread(account.fault, "relay-blackhole")
        os.kill(kernel, signal.SIGKILL)
        await asyncio.to_thread(kill_broker)
        await asyncio.to_thread(account.fault, "relay-blackhole", "--clear")
        await told(client, msg_id, "was killed (SIGKILL)")
        await soon(lambda: not manager.provisioner._handle.alive, "the kernel's death to be told")


async def test_a_cell_whose_answer_is_lost_with_the_broker_ends(account, kernel_name, tmp_path):
    go, done = tmp_path / "go", tmp_path / "done"
    async with running_kernel(kernel_name) as (manager, client):
        code = f"import pathlib\nprint('begun', flush=True)\n{wait_for(go)}pathlib.Path({str(done)!r}).touch()"
        msg_id = client.execute(code)
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "begun\n":
            pass
        await asyncio.to_thread(account.fault, "relay-blackhole")
        # Whatever the kernel says now has nobody to hear it.
        await asyncio.to_thread(account.fault, "signal", "--option", "which=link")
        go.touch()
        await soon(done.exists, "the cell to end")
        await asyncio.to_thread(kill_broker)
        for kind in ("signal", "relay-blackhole"):
            await asyncio.to_thread(account.fault, kind, "--clear")
        assert "Output may be missing" in text_of(await until_idle(client, msg_id))
        reply = await reply_to(client, msg_id)
        assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", "LinkError")
        assert text_of(await execute(client, "print(6 * 7)")) == "42\n"
        assert [kernel["state"] for kernel in await asyncio.to_thread(broker_kernels)] == ["idle"]
        assert await manager.is_alive()


async def told(client, msg_id: str, text: str) -> str:
    """Read what a cell is told until something is in it."""
    found = ""
    while text not in found:
        message = await client.get_iopub_msg(timeout=WAIT)
        if message["parent_header"].get("msg_id") == msg_id:
            found += text_of([message])
    return found


async def test_a_broker_that_is_told_to_end_leaves_its_kernels_to_the_next(kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 41")
        pid = await asyncio.to_thread(broker_pid)
        os.kill(pid, signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: ended(pid), "the broker to end")
        assert text_of(await execute(client, "print(x + 1)")) == "42\n"
        assert await manager.is_alive()


async def test_a_restart_that_meets_a_dead_broker_is_done_by_the_next(kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 41")
        await asyncio.to_thread(kill_broker)
        await manager.restart_kernel()
        await client.wait_for_ready(timeout=WAIT)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"


def test_a_kernel_that_nobody_holds_is_kept_on_with_what_it_wrote(kernel_name, notebook, tmp_path):
    go = tmp_path / "go"
    code = f"print('begun', flush=True)\n{wait_for(go)}for i in range(50):\n    print(i, flush=True)\nx = 17"
    kept = front_end_dies(kernel_name, notebook, "pass", code)
    go.touch()
    wait_until(lambda: broker_kernels()[0]["state"] == "idle", "the cell to end")
    kill_broker()
    BrokerClient().ensure()
    wait_until(lambda: [k["state"] for k in broker_kernels()] == ["idle"], "the kernel to be had again")
    assert broker_kernels()[0]["id"] == kept["id"]
    assert broker_kernels()[0]["kept"]
    shown = asyncio.run(first_run(kernel_name, notebook, "print(x)"))
    assert shown.split("\n", 1)[1] == "".join(f"{i}\n" for i in range(50)) + "17\n"


OLD_BROKER = """
import sys
import codespace_kernels
codespace_kernels.__version__ = "0.0.1"
sys.argv = ["broker", "--daemon"]
from codespace_kernels.broker.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_kernel_that_was_being_started_is_started_once(account, kernel_name, number):
    async with running_kernel(kernel_name):
        before = await asyncio.to_thread(kernels_inside, account.codespace)
        # The order to start one is there, and nobody carries it out.
        await asyncio.to_thread(account.fault, "signal", "--option", "which=server", "--option", "signal=STOP")
        try:
            second = asyncio.create_task(first_words(account, kernel_name))
            await soon(starts, "the start to be written down")
            pid = await asyncio.to_thread(broker_pid)
            os.kill(pid, number)
            await asyncio.to_thread(wait_until, lambda: ended(pid), "the broker to end")
        finally:
            await asyncio.to_thread(account.fault, "signal", "--clear")
        said, inside = await second
        assert said == "42\n"
        assert len({*inside} - {*before}) == 1


async def first_words(account, kernel_name) -> tuple[str, list[int]]:
    """What a new kernel says, and which kernels there are then."""
    async with running_kernel(kernel_name) as (_, client):
        said = text_of(await execute(client, "print(6 * 7)"))
        return said, await asyncio.to_thread(kernels_inside, account.codespace)


def starts() -> bool:
    """Whether the broker has written down that it starts a kernel."""
    with contextlib.suppress(OSError, ValueError):
        return any(kernel["starting"] for kernel in json.loads(state_path().read_bytes())["kernels"])
    return False


async def test_a_broker_of_an_older_version_is_replaced_under_its_kernels(kernel_name):
    await asyncio.to_thread(end_broker)
    started = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", OLD_BROKER], timeout=WAIT, check=False)
    assert started.returncode == 0
    # What is of the same version as that broker does not replace it.
    with mock.patch.object(broker_client, "__version__", "0.0.1"):
        async with running_kernel(kernel_name) as (manager, client):
            await execute(client, "x = 41")
            old = await asyncio.to_thread(BrokerClient().call, "GET", "")
            assert old["version"] == "0.0.1"
            with mock.patch.object(broker_client, "__version__", __version__):
                await asyncio.to_thread(BrokerClient().ensure)
            new = await asyncio.to_thread(BrokerClient().call, "GET", "")
            assert (new["version"], new["pid"] != old["pid"]) == (__version__, True)
            assert text_of(await execute(client, "print(x + 1)")) == "42\n"
            assert await manager.is_alive()


async def test_a_cell_that_waits_for_its_codespace_is_run_by_the_next_broker(account, kernel_name):
    assert (await asyncio.to_thread(cli, "stop", account.codespace, "--yes")).returncode == 0
    await asyncio.to_thread(account.fault, "slow-start", "--option", "seconds=5")
    try:
        async with running_kernel(kernel_name) as (_, client):
            msg_id = client.execute("print(6 * 7)")
            await soon(waits, "the cell to wait")
            await asyncio.to_thread(kill_broker)
            assert text_of(await until_idle(client, msg_id)) == "42\n"
    finally:
        await asyncio.to_thread(account.fault, "slow-start", "--clear")


def waits() -> bool:
    """Whether the broker has written down a request that waits."""
    with contextlib.suppress(OSError, ValueError):
        return any(kernel["waiting"] for kernel in json.loads(state_path().read_bytes())["kernels"])
    return False


async def first_run(kernel_name, notebook, code: str) -> str:
    async with running_kernel(kernel_name, env=session_of(notebook)) as (_, client):
        return text_of(await execute(client, code))
