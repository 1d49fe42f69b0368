"""A codespace that is stopped: opening a notebook wakes nothing, running a cell does, and the cell tells of it."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from codespace_kernels import kernelspecs
from codespace_kernels.broker.client import BrokerClient

from .clients import connected, execute, reply_to, running_kernel, soon, text_of, until_idle
from .conftest import EmulatedAccount, cli, end_broker, run, wait_until
from .sleepy import CodespaceControl, not_connected
from .test_front_ends import start_jupyter_server

pytestmark = pytest.mark.e2e

NAME = "cs-octocat-sleepy-python3"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account with a codespace whose kernelspec is written, and a broker of its own."""
    before = dict(os.environ)
    os.environ["CODESPACE_KERNELS_HOME"] = str(tmp_path_factory.mktemp("h"))
    environment = EmulatedAccount(repository="octocat/sleepy").environment
    os.environ.update(environment)
    account = CodespaceControl(environment)
    assert cli("connect", "octocat/sleepy").returncode == 0
    yield account
    assert cli("disconnect", account.codespace, "--yes").returncode == 0
    end_broker()
    assert cli("emulator", "stop").returncode == 0
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def asleep(account):
    """The same, stopped, which the broker knows."""
    account.stop()
    wait_until(not_connected, "the broker to notice")
    yield account
    account.clear()


@pytest.fixture
def spec_with(account):
    """Write the kernelspec with other values in its `env`; it is restored at the end."""
    path = kernelspecs.kernels_dir() / NAME / "kernel.json"
    before = path.read_text()

    def write(**env: str) -> None:
        spec = json.loads(before)
        spec["env"] |= {f"CODESPACE_KERNELS_{name}": value for name, value in env.items()}
        path.write_text(json.dumps(spec))

    yield write
    path.write_text(before)


def kinds(messages: list[dict]) -> list[str]:
    """What was published, in short."""
    return [m["content"].get("execution_state", m["msg_type"]) for m in messages]


async def test_opening_wakes_nothing_and_running_does(asleep):
    asleep.set("payment", count=1)
    async with running_kernel(NAME) as (manager, client):
        info = await reply_to(client, client.kernel_info())
        language = info["content"]["language_info"]
        # The kernel has never run: `connect` asked its Python.
        assert (language["name"], language["version"]) == ("python", platform.python_version())
        assert info["content"]["implementation_version"] == version("ipython")
        assert (await reply_to(client, client.complete("impor")))["content"]["matches"] == []
        assert (await execute(client, "x = 1", silent=True))[-1]["content"]["status"] == "ok"
        async with connected(manager):
            pass
        assert await manager.is_alive()
        assert asleep.state == "Shutdown"
        assert asleep.no_start_was_asked_for
        asleep.clear()

        silent = client.execute("y = x + 1", silent=True)
        assert kinds(await until_idle(client, silent)) == ["busy", "idle"]
        messages = await execute(client, "import os; print(y, os.environ['CODESPACE_NAME'])")
        assert text_of(messages) == f"2 {asleep.codespace}\n"
        published = kinds(messages)
        # The line comes before, and is gone before the kernel says a word.
        line = ["display_data", "update_display_data"]
        assert published[:2] == ["busy", "display_data"]
        gone = published.index("clear_output")
        assert not set(published[gone:]) & set(line)
        assert set(published[:gone]) <= {"busy", *line}
        assert published[gone + 1 :] == ["busy", "execute_input", "stream", "idle", "execute_reply"]
        lines = [m["content"]["data"]["text/html"] for m in messages if m["msg_type"] in line]
        assert any("□ Starting codespace" in text and "step 1/5, next: starting" in text for text in lines)
        assert asleep.state == "Available"
        # Nothing of the stand-in is left on the fast way.
        assert kinds(await execute(client, "pass")) == ["busy", "execute_input", "idle", "execute_reply"]
        assert (await reply_to(client, client.complete("impor")))["content"]["matches"]


async def test_interrupt_ends_the_wait_and_the_next_run_waits_anew(asleep):
    asleep.set("slow-start", seconds=60)
    async with running_kernel(NAME) as (manager, client):
        first, second = client.execute("print(1)"), client.execute("print(2)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "display_data":
            pass
        await manager.interrupt_kernel()
        ended = kinds(await until_idle(client, first))
        assert ended[-4:] == ["clear_output", "busy", "error", "idle"]
        replies = {(await client.get_shell_msg(timeout=30))["parent_header"]["msg_id"] for _ in range(2)}
        assert replies == {first, second}
        assert BrokerClient().call("GET", "kernels")["kernels"][0]["messages"]["queued_requests"] == 0
        third = client.execute("print(3)")
        asleep.clear()
        await manager.interrupt_kernel()
        reply = await reply_to(client, third)
        assert reply["content"]["ename"] == "KeyboardInterrupt"


FAULTS = [
    ("payment", {"count": 1}, "PaymentRequiredError", "spending limit"),
    ("state", {"state": "Failed"}, "WorkspaceFailedError", "its state is Failed"),
]


@pytest.mark.parametrize(("fault", "options", "ename", "text"), FAULTS)
async def test_a_failure_is_told_in_the_cell_and_the_next_run_tries_again(asleep, fault, options, ename, text):
    async with running_kernel(NAME) as (manager, client):
        asleep.set(fault, **options)
        messages = await execute(client, "print('never')")
        assert messages[-1]["content"]["ename"] == ename
        (error,) = [m["content"] for m in messages if m["msg_type"] == "error"]
        assert text in error["evalue"]
        assert await manager.is_alive()
        asleep.clear()
        assert text_of(await execute(client, "print('now')")) == "now\n"


async def test_a_kernel_that_the_codespace_lacks_is_told_in_the_cell(asleep, spec_with):
    spec_with(KERNEL="julia")
    async with running_kernel(NAME) as (_, client):
        messages = await execute(client, "1")
        assert messages[-1]["content"]["ename"] == "KernelNotFoundError"
        assert "python3" in messages[-1]["content"]["evalue"]


async def test_never(asleep, spec_with):
    spec_with(WAKE="never")
    asleep.set("payment", count=1)
    async with running_kernel(NAME) as (_, client):
        messages = await execute(client, "print(1)")
        assert messages[-1]["content"]["ename"] == "WorkspaceStoppedError"
        assert f"codespace-kernels connect {asleep.codespace}" in messages[-1]["content"]["evalue"]
        assert asleep.no_start_was_asked_for
        asleep.clear()
        assert (await asyncio.to_thread(cli, "connect", asleep.codespace)).returncode == 0
        assert text_of(await execute(client, "print(1)")) == "1\n"


async def test_on_open(asleep, spec_with):
    spec_with(WAKE="on-open")
    async with running_kernel(NAME) as (_, client):
        await soon(lambda: asleep.state == "Available", "the codespace to start")
        assert text_of(await execute(client, "print(1)")) == "1\n"


async def test_restart_wakes_nothing(asleep):
    async with running_kernel(NAME) as (manager, client):
        assert text_of(await execute(client, "x = 1; print(x)")) == "1\n"
        await asyncio.to_thread(asleep.stop)
        await soon(lambda: not manager.provisioner._handle.alive, "the kernel's death to be told")
        asleep.set("payment", count=1)
        for now in (True, False):
            await manager.restart_kernel(now=now)
            assert await manager.is_alive()
        await client.wait_for_ready(timeout=30)
        assert asleep.no_start_was_asked_for
        asleep.clear()
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"


async def test_a_cell_that_runs_is_told_that_the_codespace_was_stopped(asleep):
    async with running_kernel(NAME) as (_, client):
        await execute(client, "import time")
        client.execute("print('up', flush=True); time.sleep(60)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        await asyncio.to_thread(asleep.stop)
        while (message := await client.get_iopub_msg(timeout=60))["msg_type"] != "stream":
            pass
        assert message["content"]["name"] == "stderr"
        assert "was stopped" in message["content"]["text"]


async def test_a_cell_that_runs_is_told_that_the_codespace_was_stopped_from_here(asleep):
    async with running_kernel(NAME) as (_, client):
        client.execute("import time; print('up', flush=True); time.sleep(60)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        assert (await asyncio.to_thread(cli, "stop", asleep.codespace, "--yes")).returncode == 0
        said = "was stopped from this computer"
        while said not in (await client.get_iopub_msg(timeout=60))["content"].get("text", ""):
            pass


async def test_restart_while_a_cell_waits_drops_the_cell(asleep):
    asleep.set("slow-start", seconds=60)
    async with running_kernel(NAME) as (manager, client):
        client.execute("print('old')")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "display_data":
            pass
        await manager.restart_kernel(now=True)
        assert BrokerClient().call("GET", "kernels")["kernels"][0]["messages"]["queued_requests"] == 0
        assert await manager.is_alive()


async def test_shutdown_while_a_cell_waits_is_prompt(asleep):
    asleep.set("slow-start", seconds=60)
    manager = AsyncKernelManager(kernel_name=NAME)
    await manager.start_kernel()
    async with connected(manager) as client:
        client.execute("1")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "display_data":
            pass
        await asyncio.wait_for(manager.shutdown_kernel(), 20)
    await soon(lambda: BrokerClient().call("GET", "kernels")["kernels"] == [], "the kernel to end")


async def test_a_front_end_that_runs_argv_itself(asleep, tmp_path):
    """As VS Code: its start-up code is not silent on the wire, and each request awaits the one before."""
    spec = KernelSpecManager().get_kernel_spec(NAME)
    manager = AsyncKernelManager(kernel_name=NAME)
    manager.connection_file = str(tmp_path / "kernel.json")
    manager.write_connection_file()
    command = [argument.format(connection_file=manager.connection_file) for argument in spec.argv]
    asleep.set("payment", count=1)
    process = subprocess.Popen(
        command, env={**os.environ, **spec.env, "PATH": os.environ["PATH"]}, stderr=subprocess.PIPE
    )
    try:
        # The manager started nothing: a client that asks it whether the kernel lives gives up after a second.
        async with connected(manager, parent=None) as client:
            for code in ("import json as started", "value = started.dumps([1])"):
                messages = await execute(client, code, store_history=False, stop_on_error=False)
                assert kinds(messages) == ["busy", "idle", "execute_reply"]
            assert asleep.no_start_was_asked_for
            asleep.clear()
            assert text_of(await execute(client, "print(value)", stop_on_error=False)) == "[1]\n"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_jupyter_run_gives_code_to_a_kernel_that_is_there_and_prints_the_result_only(asleep, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print(6 * 7)")
    done = run(sys.executable, "-m", "jupyter", "run", "--kernel", NAME, str(script))
    assert done.stdout == "42\n"
    assert "Starting codespace" in done.stderr
    # Else it would wait in the code, for which `jupyter run` has ten seconds.
    assert notes_in(done.stderr) == []


def notes_in(text: str) -> list[str]:
    """What was told of the wait."""
    return re.findall(r"\[codespace-kernels\] (Starting codespace|The kernel is there after \d+) ", text)


def test_jupyter_console_prints_one_line_at_the_start_and_one_at_the_end(asleep):
    done = run(
        sys.executable, "-m", "jupyter_console", "--kernel", NAME, "--simple-prompt", input="print(6 * 7)\nexit\n"
    )
    told = done.stdout + done.stderr
    assert len(notes_in(told)) == 2
    assert told.count("[codespace-kernels]") == 2
    assert "42" in done.stdout


def outputs_of(path: Path) -> list:
    return [(cell.get("execution_count"), cell.get("outputs")) for cell in nbformat.read(path, 4).cells]


@pytest.fixture
def notebook(tmp_path) -> Path:
    cells = ["x = 1", "print('out')\nx", "from IPython.display import display\ndisplay('shown')"]
    path = tmp_path / "in.ipynb"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(book, path)
    return path


def nbconvert(notebook: Path, kernel: str, target: Path):
    options = ["--to", "notebook", "--execute", f"--ExecutePreprocessor.kernel_name={kernel}", "--output", str(target)]
    return run(sys.executable, "-m", "nbconvert", *options, str(notebook))


def papermill(notebook: Path, kernel: str, target: Path):
    return run(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", kernel, str(notebook), str(target))


@pytest.mark.parametrize("program", [nbconvert, papermill])
def test_programs_wait_tell_of_it_and_keep_nothing(asleep, program, notebook, tmp_path):
    asleep.set("slow-start", seconds=2)
    local, remote = tmp_path / "local.ipynb", tmp_path / "remote.ipynb"
    assert program(notebook, "python3", local).returncode == 0
    done = program(notebook, NAME, remote)
    assert done.returncode == 0
    assert re.search(r"Starting codespace .*\(step 1/5, next: starting\)", done.stderr)
    assert outputs_of(remote) == outputs_of(local)


def test_the_example_wakes_the_codespace(asleep, tmp_path):
    target = tmp_path / "output.ipynb"
    assert nbconvert(EXAMPLES / "hello-codespace.ipynb", NAME, target).returncode == 0
    text = "".join(output.text for cell in nbformat.read(target, 4).cells for output in cell.get("outputs", []))
    assert f"Codespace       {asleep.codespace}\n" in text
    assert "Starting" not in target.read_text()


def test_a_servers_automatic_restart_wakes_nothing(asleep, tmp_path):
    server = start_jupyter_server(tmp_path)
    try:
        body = {"name": "n.ipynb", "path": "n.ipynb", "type": "notebook", "kernel": {"name": NAME}}
        status, session = server.request("POST", "api/sessions", body)
        assert status == 201, session
        assert asleep.state == "Shutdown"
        kernel_id = session["kernel"]["id"]
        said = server.execute(kernel_id, "x = 1; print(x)")
        assert "1\n" in [m["content"].get("text") for m in said]

        asleep.stop()
        asleep.set("payment", count=1)
        # The server looks for the kernel every three seconds; a kernel that was restarted waits for a run.
        wait_until(lambda: [k["state"] for k in BrokerClient().call("GET", "kernels")["kernels"]] == ["waiting"],
                   "the server to restart the kernel")  # fmt: skip
        assert asleep.no_start_was_asked_for
        assert asleep.state == "Shutdown"

        asleep.clear()
        said = server.execute(kernel_id, "print('x' in globals())")
        assert "False\n" in [m["content"].get("text") for m in said]
        assert server.request("DELETE", f"api/sessions/{session['id']}")[0] == 204
    finally:
        server.close()
