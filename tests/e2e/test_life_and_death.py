"""Restart and death of a kernel end as with a local kernel, and the notebook is told why."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from jupyter_client.ioloop import AsyncIOLoopKernelManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from traitlets.config import Config
from websockets.sync.client import connect

from codespace_kernels import kernelspecs
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record

from .clients import connected, execute, running_kernel, soon, text_of
from .conftest import WAIT, broker_kernels, kernels_inside, wait_until
from .test_front_ends import start_jupyter_server

pytestmark = pytest.mark.e2e


def state_of_the_kernel() -> str:
    (kernel,) = broker_kernels()
    return kernel["state"]


OTHERS: set[int] = set()
"""Kernels of other files' tests: one whose broker was killed may live on for two minutes."""


def kernels_here(codespace: str) -> list[int]:
    """Process ids of the kernels in an emulated codespace that these tests have started."""
    return [pid for pid in kernels_inside(codespace) if pid not in OTHERS]


@pytest.fixture(scope="module")
def codespace(account):
    OTHERS.update(kernels_inside(account.codespace))
    return account.codespace


@pytest.fixture
def control(account):
    """The emulator, asked in this process; it is well again afterwards."""
    client = ControlClient(find_record(account.environment["GITHUB_API_URL"]))
    yield client
    client.clear_faults(None, None)


async def test_a_dead_kernel_is_restarted(codespace, kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        assert text_of(await execute(client, "x = 1; print(x)")) == "1\n"
        client.execute("import os; os._exit(3)")
        await soon(lambda: not manager.provisioner._handle.alive, "the death to be told")
        await manager.restart_kernel()
        assert await manager.is_alive()
        await client.wait_for_ready(timeout=60)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        assert len(kernels_here(codespace)) == 1
    await soon(lambda: kernels_here(codespace) == [], "the kernel to end")


async def test_a_restart_while_the_connection_is_lost_is_a_fresh_kernel_once_it_is_back(
    codespace, control, kernel_name
):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 1")
        (old,) = kernels_here(codespace)
        control.set_fault("server-error", None, {})
        control.set_fault("relay-drop", None, {})
        await soon(lambda: state_of_the_kernel() == "reconnecting", "the loss to be seen")
        await asyncio.wait_for(manager.restart_kernel(), 60)
        assert state_of_the_kernel() == "waiting"
        assert await manager.is_alive()
        await client.wait_for_ready(timeout=60)
        control.clear_faults(None, None)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        await soon(lambda: old not in kernels_here(codespace), "the old kernel to end")
        assert len(kernels_here(codespace)) == 1


async def test_a_restart_that_the_connection_breaks_under(codespace, control, kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 1")
        control.set_fault("server-error", None, {})
        control.set_fault("relay-blackhole", None, {})
        restart = asyncio.create_task(manager.restart_kernel(now=True))
        done, _ = await asyncio.wait({restart}, timeout=1)
        assert not done
        control.set_fault("relay-drop", None, {})
        await asyncio.wait_for(restart, 60)
        assert state_of_the_kernel() == "waiting"
        control.clear_faults(None, None)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        await soon(lambda: len(kernels_here(codespace)) == 1, "the old kernel to end")


# What a server shows.


@pytest.fixture(scope="module")
def server(kernel_name, tmp_path_factory):
    """JupyterLab's back end, which looks often whether kernels live, and restarts one that does not once."""
    often = ("--KernelRestarter.time_to_dead=0.3", "--KernelRestarter.restart_limit=1")
    started = start_jupyter_server(tmp_path_factory.mktemp("root"), *often)
    yield started
    started.close()


DEATHS = {
    "exit()": "",
    "import os; os._exit(3)": "exit code 3",
    "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)": "killed (SIGKILL)",
}


@pytest.mark.parametrize("code", DEATHS)
def test_a_kernel_that_dies_fares_as_a_local_one(server, kernel_name, code):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        local, remote = pool.map(lambda name: fate(server, name, code), ["python3", kernel_name])
    assert remote.states == local.states
    assert "restarting" in remote.states
    assert remote.after == local.after == "False\n"
    assert DEATHS[code] in remote.told


async def test_a_kernel_that_cannot_run_is_given_up_as_a_local_one(broken, caplog):
    local, remote = [await asyncio.create_task(end_of(name)) for name in broken]
    assert remote == local == ["restart", "dead"]
    assert "exit code 1. Its last words on stderr:\n" in caplog.text
    assert "No module named no_such_module" in caplog.text


@pytest.fixture
async def broken(kernel_name):
    """Kernelspecs whose process ends at once, one here and one in the codespace, by name."""
    content = {"argv": [sys.executable, "-m", "no_such_module", "{connection_file}"], "display_name": "Broken"}
    local = kernelspecs.kernels_dir() / "broken"
    local.mkdir()
    (local / "kernel.json").write_text(json.dumps(content))
    async with running_kernel(kernel_name) as (_, client):
        home = text_of(await execute(client, "import jupyter_core.paths as p; print(p.jupyter_data_dir())"))
    there = Path(home.strip()) / "kernels" / "broken"
    there.mkdir(parents=True)
    (there / "kernel.json").write_text(json.dumps(content))
    spec = json.loads((kernelspecs.kernels_dir() / kernel_name / "kernel.json").read_text())
    spec["env"]["CODESPACE_KERNELS_KERNEL"] = "broken"
    remote = local.with_name("cs-broken")
    remote.mkdir()
    (remote / "kernel.json").write_text(json.dumps(spec))
    yield local.name, remote.name
    for folder in (local, remote, there):
        shutil.rmtree(folder)


async def end_of(name: str) -> list[str]:
    """What a restarter tells of a kernel."""
    config = Config()
    config.KernelRestarter.time_to_dead = 0.3
    config.KernelRestarter.restart_limit = 1
    manager = AsyncIOLoopKernelManager(kernel_name=name, config=config)
    told: list[str] = []
    await manager.start_kernel()
    for event in ("restart", "dead"):
        manager.add_restart_callback(functools.partial(told.append, event), event)
    await soon(lambda: "dead" in told, "the restarter to give up")
    await manager.shutdown_kernel()
    return told


@dataclasses.dataclass
class Fate:
    """What a page sees of a kernel that dies.

    Attributes:
        states: What the server said of it, other than busy and idle.
        told: What the cell that ran was told on stderr.
        after: What a cell prints that is run then.
    """

    states: list[str]
    told: str
    after: str


class Channels:
    """A kernel's websocket, as a page has it."""

    def __init__(self, server, kernel_id: str) -> None:
        url = server.url.replace("http", "ws", 1) + f"api/kernels/{kernel_id}/channels?session_id=s2"
        self.socket = connect(url, additional_headers={"Authorization": f"token {server.token}"}, max_size=None)

    def execute(self, code: str) -> None:
        """Run code."""
        options = {"silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        self._send("execute_request", {"code": code, **options})

    def receive(self, timeout: float = WAIT) -> dict:
        """The next message."""
        return json.loads(self.socket.recv(timeout=timeout))

    def wait_for_an_answer(self) -> None:
        """Ask until the kernel answers, as a page does with one that restarts: what comes too early is lost."""
        for _ in range(int(WAIT)):
            self._send("kernel_info_request", {})
            with contextlib.suppress(TimeoutError):
                while self.receive(1.0)["msg_type"] != "kernel_info_reply":
                    pass
                return
        pytest.fail("the restarted kernel gave no answer")

    def _send(self, kind: str, content: dict) -> None:
        header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "username": "", "session": "s2", "version": "5.3"}
        message = {"header": {**header, "date": ""}, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps({**message, "channel": "shell"}))


def fate(server, name: str, code: str) -> Fate:
    status, kernel = server.request("POST", "api/kernels", {"name": name})
    assert status == 201, kernel
    try:
        server.execute(kernel["id"], "x = 1")
        channels = Channels(server, kernel["id"])
        with channels.socket:
            channels.execute(code)
            messages = list(until_restarting(channels))
            channels.wait_for_an_answer()
        after = text_of(server.execute(kernel["id"], "print('x' in globals())"))
        wait_until(lambda: is_listed_as_idle(server, kernel["id"]), f"the list to say that {name} is idle")
    finally:
        assert server.request("DELETE", f"api/kernels/{kernel['id']}")[0] == 204
    states = [m["content"]["execution_state"] for m in messages if m["msg_type"] == "status"]
    told = "".join(m["content"]["text"] for m in messages if m["content"].get("name") == "stderr")
    return Fate([s for s in states if s not in {"busy", "idle"}], told, after)


def is_listed_as_idle(server, kernel_id: str) -> bool:
    """Have the kernel do something: the server's own look at it may have come back too late for what was before."""
    server.execute(kernel_id, "1")
    return server.request("GET", f"api/kernels/{kernel_id}")[1]["execution_state"] == "idle"


def until_restarting(channels):
    """The messages up to the one that says so; a kernel that says its number is killed."""
    while True:
        message = channels.receive()
        yield message
        if message["content"].get("execution_state") == "restarting":
            return
        if message["content"].get("text", "").startswith("pid "):
            os.kill(int(message["content"]["text"].split()[1]), signal.SIGKILL)


# What kernel managers do.


@pytest.fixture(scope="module")
def inside(account, codespace) -> Path:
    """Where the server in the codespace keeps connection files."""
    return Path(account.status()["folder"], codespace, "home/.local/share/jupyter/runtime")


@pytest.fixture
def clean(codespace, inside):
    """Afterwards nothing may be left, here or in the codespace."""
    folders = Path(jupyter_runtime_dir()), inside
    before = {file for folder in folders for file in folder.glob("kernel-*.json")}
    yield
    wait_until(lambda: broker_kernels() == [], "the broker to forget the kernels")
    wait_until(lambda: kernels_here(codespace) == [], "the codespace's kernels to end")
    assert inside.is_dir()
    for folder in folders:
        wait_until(lambda folder=folder: set(folder.glob("kernel-*.json")) <= before, f"the files in {folder} to go")


async def test_an_id_is_used_again(clean, kernel_name):
    manager = AsyncMultiKernelManager()
    for value in "12":
        assert await manager.start_kernel(kernel_name=kernel_name, kernel_id="mine") == "mine"
        async with connected(manager.get_kernel("mine")) as client:
            assert text_of(await execute(client, f"print('x' in globals()); x = {value}")) == "False\n"
        await manager.shutdown_kernel("mine", now=value == "1")


@pytest.mark.parametrize("ready", [False, True])
async def test_pending_kernels(clean, kernel_name, ready):
    manager = AsyncMultiKernelManager()
    manager.use_pending_kernels = True
    kernel_id = await manager.start_kernel(kernel_name=kernel_name)
    kernel = manager.get_kernel(kernel_id)
    assert not kernel.ready.done()
    if ready:
        await asyncio.wait_for(kernel.ready, 60)
        async with connected(kernel) as client:
            assert text_of(await execute(client, "print(1)")) == "1\n"
    await manager.shutdown_all()
    assert manager.list_kernel_ids() == []


async def test_the_steps_of_a_shutdown_one_by_one(clean, kernel_name):
    manager = AsyncKernelManager(kernel_name=kernel_name)
    await manager.start_kernel()
    async with connected(manager) as client:
        await execute(client, "x = 1")
    await manager.request_shutdown(restart=True)
    await manager.finish_shutdown(restart=True)
    assert not await manager.is_alive()
    await manager.cleanup_resources(restart=True)
    assert Path(manager.connection_file).exists()
    await manager.start_kernel()
    async with connected(manager) as client:
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
    await manager.request_shutdown()
    await manager.finish_shutdown()
    await manager.cleanup_resources()
    assert not await manager.is_alive()


@pytest.mark.parametrize(("signum", "count"), [(signal.SIGTERM, 10), (signal.SIGKILL, 2)])
def test_a_server_that_ends_takes_its_kernels_along(clean, codespace, kernel_name, tmp_path, signum, count):
    broker = psutil.Process(BrokerClient().call("GET", "")["pid"])
    listening = listening_ports(broker)
    server = start_jupyter_server(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: server.request("POST", "api/kernels", {"name": kernel_name}), range(count)))
    assert [status for status, _ in answers] == [201] * count
    wait_until(lambda: len(kernels_here(codespace)) == count, "the kernels")
    began = time.monotonic()
    server.process.send_signal(signum)
    server.process.wait(60)
    print(f"the server took {time.monotonic() - began:.1f} s")
    wait_until(lambda: kernels_here(codespace) == [], "the codespace's kernels to end")
    print(f"its kernels took {time.monotonic() - began:.1f} s")
    wait_until(lambda: listening_ports(broker) <= listening, "the broker's ports to be free")


def listening_ports(process: psutil.Process) -> set[int]:
    """Ports that a process listens on."""
    return {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
