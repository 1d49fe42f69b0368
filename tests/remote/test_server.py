"""Finding, starting and ending the server in a workspace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from pathlib import Path

import psutil
import pytest

from codespace_kernels.bootstrap import ensure_server, make_bundle
from codespace_kernels.errors import NoJupyterError, RemoteServerError, WaitTimeoutError
from codespace_kernels.link.client import LinkClient
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.remote_kernel import KernelState
from tests.processes import command_line
from tests.processes import environment as environment_of

from .conftest import environment, processes_of, state_files, wait_until_empty, wait_until_gone
from .local_connection import LocalConnection
from .recorder import Recorder

RUN = ".local/share/codespace-kernels/run"


async def attach(connection: LocalConnection, **options: object) -> LinkClient:
    server = await ensure_server(connection, install=False, **options)  # type: ignore[arg-type]
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    return client


async def test_cold_start_says_what_it_does_and_every_way_is_one_command(fresh_home: Path) -> None:
    events: list[ProgressEvent] = []
    cold = LocalConnection(fresh_home, environment(fresh_home))
    server = await ensure_server(cold, events.append, install=False)
    assert [event.message for event in events][:2] == [
        "Copying the server extension into the workspace",
        "Looking for Jupyter in the workspace",
    ]
    assert (len(cold.commands), cold.uploads) == (1, [])
    assert (fresh_home / make_bundle().path).read_bytes() == make_bundle().data
    assert stat.S_IMODE((fresh_home / make_bundle().path).stat().st_mode) == 0o600
    assert server.versions["jupyter_server"]
    assert any(offer["prefix"] == "/usr" for offer in server.offers) or not Path("/usr/bin/python3").exists()
    server.close()

    warm = LocalConnection(fresh_home, environment(fresh_home))
    again = await ensure_server(warm, events.append, install=False)
    client = LinkClient()
    await client.attach(await again.open_link(warm))
    assert (len(warm.commands), warm.uploads) == (1, [])
    assert again.versions == server.versions
    assert again.python == server.python
    await client.close()


async def test_a_server_that_is_gone_is_said_and_started_anew(fresh_home: Path) -> None:
    connection = LocalConnection(fresh_home, environment(fresh_home))
    server = await ensure_server(connection, install=False)
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    kernel = await client.start_kernel("python3")
    pid = (await client.server_info())["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    await client.wait_detached()
    with pytest.raises(RemoteServerError, match="is gone"):
        await server.open_link(connection)
    again = await ensure_server(connection, install=False)
    await client.attach(await again.open_link(connection))
    info = await client.server_info()
    assert info["pid"] != pid
    async with asyncio.timeout(60):
        while kernel.state.value != "dead":
            await asyncio.sleep(0.02)
    await client.close()


async def test_a_half_written_state_file_is_no_obstacle(fresh_home: Path) -> None:
    folder = fresh_home / RUN
    folder.mkdir(parents=True)
    (folder / "server-1.json").write_text('{"pid": 1, "start_')
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)))
    assert json.loads((folder / "server-1.json").read_text())["pid"] == (await client.server_info())["pid"]
    await client.close()


async def test_a_state_file_of_another_process_is_no_obstacle(fresh_home: Path) -> None:
    folder = fresh_home / RUN
    folder.mkdir(parents=True)
    state = {"pid": os.getpid(), "start_time": "1", "socket": str(folder / "no.sock"), "versions": {}}
    (folder / "server-1.json").write_text(json.dumps(state))
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)))
    assert (await client.server_info())["pid"] != os.getpid()
    await client.close()


async def test_two_starts_at_once_give_one_server(fresh_home: Path) -> None:
    connections = [LocalConnection(fresh_home, environment(fresh_home)) for _ in range(2)]
    clients = await asyncio.gather(*(attach(connection) for connection in connections))
    pids = {(await client.server_info())["pid"] for client in clients}
    assert len(pids) == 1
    for client in clients:
        await client.close()


async def test_no_secret_is_seen_by_others(fresh_home: Path) -> None:
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)))
    kernel = await client.start_kernel("python3", env={"MY_SECRET": "hush-hush"})
    info = await client.server_info()
    key = kernel._signer.key.decode()
    secrets = [info["token"], key, "hush-hush"]
    processes = processes_of(fresh_home)
    assert {info["pid"], info["child_pid"]} <= {process.pid for process in processes}
    for process in processes:
        assert not [secret for secret in secrets if secret in command_line(process)], process
        assert info["token"] not in " ".join(environment_of(process).values())
    log = Path(info["log"]).read_text()
    assert log
    assert not [secret for secret in secrets if secret in log]
    folder = fresh_home / RUN
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert "config-1.json" not in state_files(fresh_home)
    assert key not in repr(kernel)
    assert info["token"] not in repr(client)
    await client.close()


async def test_the_server_ends_when_nobody_needs_it(fresh_home: Path) -> None:
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)), idle_timeout=2.0)
    pid = (await client.server_info())["pid"]
    kernel = await client.start_kernel("python3")
    await asyncio.sleep(3.0)  # a client and a kernel: it stays however long
    await kernel.shutdown()
    await asyncio.sleep(3.0)  # a client alone is reason enough
    assert psutil.pid_exists(pid)
    await client.close()
    wait_until_gone(pid)
    assert [name for name in state_files(fresh_home) if name.endswith((".json", ".sock"))] == []
    wait_until_empty(fresh_home)


async def test_a_kernel_alone_keeps_the_server(fresh_home: Path) -> None:
    connection = LocalConnection(fresh_home, environment(fresh_home))
    client = await attach(connection, idle_timeout=2.0)
    pid = (await client.server_info())["pid"]
    kernel = await client.start_kernel("python3")
    await client.close()
    await asyncio.sleep(3.0)
    assert psutil.pid_exists(pid)
    client = await attach(connection)
    await (await client.attach_kernel(kernel.kernel_id)).shutdown()
    await client.close()
    wait_until_gone(pid)


async def test_the_server_can_be_ended(fresh_home: Path) -> None:
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)))
    info = await client.server_info()
    await client.start_kernel("python3")
    await client.shutdown_server()
    await client.wait_detached()
    wait_until_gone(info["pid"])
    wait_until_gone(info["child_pid"])
    await client.close()
    wait_until_empty(fresh_home)


async def test_no_jupyter_is_said_with_what_was_found(fresh_home: Path) -> None:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs a Python without Jupyter in /usr/bin")
    connection = LocalConnection(fresh_home, {**environment(fresh_home), "PATH": "/usr/bin:/bin"})
    with pytest.raises(NoJupyterError, match=r"no jupyter_server 2\.0 or newer \(found: Python 3\.\d+\.\d+ in /usr"):
        await ensure_server(connection, install=False)


async def test_no_python_is_said(fresh_home: Path) -> None:
    tools = fresh_home / "bin"
    tools.mkdir()
    for name in ("sh", "tail", "env", "printf", "cat"):
        (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    connection = LocalConnection(fresh_home, {**environment(fresh_home), "PATH": str(tools), "SHELL": "/bin/false"})
    if any(
        Path(place).exists()
        for place in ("/usr/local/python/current/bin/python3", "/opt/conda/bin/python3", "/usr/local/bin/python3")
    ):
        pytest.skip("this machine has a Python where every image may have one")
    with pytest.raises(NoJupyterError, match=r"no Python 3\.8 or newer"):
        await ensure_server(connection, install=False)


async def test_a_server_that_does_not_come_up_shows_its_log(fresh_home: Path) -> None:
    connection = LocalConnection(fresh_home, environment(fresh_home))
    with pytest.raises(RemoteServerError) as raised:
        await ensure_server(connection, install=False, folder="no/such/folder")
    text = str(raised.value)
    assert text.startswith("The Jupyter server in the workspace did not start")
    assert "The end of its log:" in text
    assert "no/such/folder" in text


async def test_a_shell_that_chatters_is_understood(fresh_home: Path) -> None:
    class Chatty(LocalConnection):
        async def open_command(self, command: str, *, timeout: float = 30.0) -> object:
            return await super().open_command(
                f"echo Welcome; echo 'codespace-kernels: [1]'; {command}", timeout=timeout
            )

    connection = Chatty(fresh_home, environment(fresh_home))
    client = await attach(connection)
    assert (await client.server_info())["folder"] == str(fresh_home)
    await client.close()


async def test_the_wait_for_a_server_is_bounded(fresh_home: Path) -> None:
    class Silent(LocalConnection):
        async def open_command(self, command: str, *, timeout: float = 30.0) -> object:
            return await super().open_command("sleep 30", timeout=timeout)

    with pytest.raises(WaitTimeoutError, match=r"after 0\.3 s waiting for the Jupyter server"):
        await ensure_server(Silent(fresh_home, environment(fresh_home)), timeout=0.3)


def test_the_bundle_is_the_same_for_the_same_code() -> None:
    first = make_bundle()
    make_bundle.cache_clear()
    assert make_bundle() == first


FALTERING = """
import os, sys
from pathlib import Path
tries = Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) <= int(sys.argv[2]):
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *sys.argv[3:]])
"""


HANGING = """
import json, os, sys, time
from pathlib import Path
import zmq
tries = Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
info = json.loads(Path(sys.argv[-1]).read_text())
if len(tries.read_text()) <= int(sys.argv[2]):
    # As ipykernel 7 over an iopub port that another program has: it neither comes up nor ends.
    taken = zmq.Context().socket(zmq.ROUTER)
    taken.bind("tcp://127.0.0.1:%d" % info["iopub_port"])
    time.sleep(600)
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *sys.argv[3:]])
"""


def write_faltering_spec(home: Path, failures: int, script: str = FALTERING) -> Path:
    """Make a kernelspec whose process ends at once the first times, or hangs, as one does that finds its port taken."""
    (home / "faltering.py").write_text(script)
    folder = home / "jupyter/kernels/faltering"
    folder.mkdir(parents=True)
    argv = [sys.executable, str(home / "faltering.py"), str(home / "tries"), str(failures), "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "F", "language": "python"}))
    return home / "tries"


@pytest.mark.parametrize("script", [FALTERING, HANGING], ids=["ends", "hangs"])
async def test_a_kernel_that_does_not_come_up_is_started_again(fresh_home: Path, script: str) -> None:
    tries = write_faltering_spec(fresh_home, 2, script)
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)))
    recorder = Recorder(await client.start_kernel("faltering"))
    assert recorder.text(await recorder.run("print('here')")) == "here\n"
    assert tries.read_text() == "xxx"
    await recorder.kernel.shutdown()
    await client.close()


async def test_a_kernel_that_always_ends_is_dead_in_the_end(fresh_home: Path) -> None:
    tries = write_faltering_spec(fresh_home, failures=99)
    client = await attach(LocalConnection(fresh_home, environment(fresh_home)))
    recorder = Recorder(await client.start_kernel("faltering"))
    assert "exit code 1" in await recorder.state(KernelState.DEAD)
    assert tries.read_text() == "xxx"
    await client.close()
