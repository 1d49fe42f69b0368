"""Kernels that outlive their front end, where the spec says so, and come back to the same notebook."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from jupyter_client.blocking import BlockingKernelClient

from codespace_kernels.broker.kept import RESTART_SECONDS
from tests.terminals import Terminal

from .clients import execute, running_kernel, text_of, until_idle
from .conftest import WAIT, broker_kernels, cli, ended, kernels_inside, wait_until
from .test_front_ends import Server, start_jupyter_server
from .vscode import VSCodeKernel, find_specs

pytestmark = pytest.mark.e2e

FRONT_END = """
import os, sys
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name=sys.argv[1])
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
client.execute_interactive(sys.argv[2], timeout=60, allow_stdin=False, output_hook=lambda message: None)
if len(sys.argv) > 3:
    client.execute(sys.argv[3])
    while client.get_iopub_msg(timeout=60)["content"].get("text") != "begun\\n":
        pass
print("ready", flush=True)
sys.stdin.read()
"""
"""A front end that dies without a word: runs some code, begins some more, and waits to be killed."""


def the_kept_one() -> dict:
    """Wait until one kernel is kept and none held; give it."""
    wait_until(lambda: [kernel["kept"] for kernel in broker_kernels()] == [True], "the kernel to be kept")
    return broker_kernels()[0]


@pytest.fixture
def notebook(kernel_name, tmp_path, monkeypatch):
    """Path of a notebook whose kernel is to be kept, named to all front ends that a test starts."""
    monkeypatch.setenv("CODESPACE_KERNELS_ON_CLOSE", "keep")
    yield tmp_path / "analysis.ipynb"
    assert cli("kernels", "end", "--all").returncode == 0
    wait_until(lambda: broker_kernels() == [], "all kernels to end")


def session_of(notebook) -> dict[str, str]:
    return {**os.environ, "JPY_SESSION_NAME": str(notebook)}


def front_end(kernel_name, notebook, *code: str) -> subprocess.Popen[str]:
    """Start a front end, and let it run code."""
    process = subprocess.Popen(
        [sys.executable, "-c", FRONT_END, kernel_name, *code],
        env=session_of(notebook),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill_front_end(kernel_name, notebook, *code: str) -> None:
    """Start a front end, let it run code, and kill it."""
    process = front_end(kernel_name, notebook, *code)
    process.kill()
    process.communicate(timeout=WAIT)


def front_end_dies(kernel_name, notebook, *code: str) -> dict:
    """Let a front end die; give the kernel that is kept."""
    kill_front_end(kernel_name, notebook, *code)
    return the_kept_one()


def wait_for(path: Path) -> str:
    """Code that waits for a file."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}):\n    time.sleep(0.02)\n"


async def test_the_same_notebook_gets_its_kernel_back(account, kernel_name, notebook):
    kept = await asyncio.to_thread(front_end_dies, kernel_name, notebook, "x = 41")
    assert (kept["session"], kept["state"]) == (str(notebook), "idle")
    # Counted from its last work, a day by default.
    assert 23 * 3600 < kept["until"] - time.time() <= 24 * 3600 + 1  # it is told to the second
    (inside,) = kernels_inside(account.codespace)
    async with running_kernel(kernel_name, env=session_of(notebook)) as (_, client):
        # Nothing was written meanwhile, so nothing is said.
        assert text_of(await execute(client, "import os; print(os.getpid(), x + 1)")) == f"{inside} 42\n"
        assert [kernel["kept"] for kernel in await asyncio.to_thread(broker_kernels)] == [False]
    # That front end shut it down.
    await asyncio.to_thread(wait_until, lambda: broker_kernels() == [], "the kernel to end")
    assert ended(inside)


async def test_another_notebook_gets_another_kernel(kernel_name, notebook):
    await asyncio.to_thread(front_end_dies, kernel_name, notebook, "x = 41")
    async with running_kernel(kernel_name, env=session_of(notebook.with_name("other.ipynb"))) as (_, client):
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"


async def test_output_that_was_made_meanwhile_is_shown_at_the_first_run(kernel_name, notebook, tmp_path):
    go = tmp_path / "go"
    wrote = textwrap.dedent("""
        import sys
        print("epoch 1", flush=True)
        print("loss is high", file=sys.stderr, flush=True)
        from IPython.display import display, HTML
        display(HTML("<b>plot</b>"))
        weights = 17
    """)
    code = f"print('begun', flush=True)\n{wait_for(go)}{wrote}"
    kept = await asyncio.to_thread(front_end_dies, kernel_name, notebook, "pass", code)
    assert (kept["state"], kept["until"]) == ("busy", None)
    go.touch()
    await asyncio.to_thread(wait_until, lambda: broker_kernels()[0]["state"] == "idle", "the kernel to finish")
    async with running_kernel(kernel_name, env=session_of(notebook)) as (_, client):
        messages = await execute(client, "print(weights)")
        outputs = [m for m in messages if m["msg_type"] in ("stream", "display_data")]
        shown = [m["content"].get("text") or m["content"]["data"]["text/html"] for m in outputs]
        note = "[codespace-kernels] What the kernel wrote while no notebook was connected:\n"
        assert shown == [note, "epoch 1\n", "loss is high\n", "<b>plot</b>", "17\n"]
        # Once.
        assert text_of(await execute(client, "print(weights)")) == "17\n"


async def test_a_kernel_that_still_works_is_had_at_once_and_its_output_is_seen(kernel_name, notebook, tmp_path):
    go = tmp_path / "go"
    code = f"print('begun', flush=True)\n{wait_for(go)}print('epoch', flush=True)\nname = input('who? ')"
    await asyncio.to_thread(front_end_dies, kernel_name, notebook, "pass", code)
    # The start succeeds: what front ends ask at the start is answered although the kernel's shell is taken for long.
    async with running_kernel(kernel_name, env=session_of(notebook)) as (_, client):
        msg_id = client.execute("print(name)", allow_stdin=True)
        go.touch()
        question = await client.get_stdin_msg(timeout=WAIT)
        assert question["content"]["prompt"] == "who? "
        client.input("Ada")
        text = text_of(await until_idle(client, msg_id))
    running = "[codespace-kernels] An earlier cell still runs, and this one is next."
    assert text.startswith(running)
    assert re.search(r"epoch\n(.*\n)*Ada\n$", text)


async def test_a_run_that_nobody_sees_can_be_interrupted(kernel_name, notebook):
    await asyncio.to_thread(
        front_end_dies, kernel_name, notebook, "pass", "import time; print('begun', flush=True); time.sleep(3600)"
    )
    async with running_kernel(kernel_name, env=session_of(notebook)) as (manager, client):
        msg_id = client.execute("print('mine')")
        await manager.interrupt_kernel()
        messages = await until_idle(client, msg_id)
        errors = [m["content"]["ename"] for m in messages if m["msg_type"] == "error"]
        # It is the earlier run's, and this run's cell is where it is seen.
        assert errors == ["KeyboardInterrupt"]


async def test_a_restart_gives_a_fresh_kernel(kernel_name, notebook):
    await asyncio.to_thread(front_end_dies, kernel_name, notebook, "x = 41")
    async with running_kernel(kernel_name, env=session_of(notebook)) as (manager, client):
        assert text_of(await execute(client, "print(x)")) == "41\n"
        await manager.restart_kernel()
        await client.wait_for_ready(timeout=WAIT)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"


async def test_a_kept_kernel_that_died_says_so_to_its_notebook(account, kernel_name, notebook, tmp_path):
    go, die = tmp_path / "go", tmp_path / "die"
    last_words = f"print('last words', flush=True)\n{wait_for(die)}os._exit(3)"
    code = f"print('begun', flush=True)\n{wait_for(go)}{last_words}"
    await asyncio.to_thread(front_end_dies, kernel_name, notebook, "x = 41", code)
    go.touch()
    await asyncio.to_thread(wait_until, lambda: broker_kernels()[0]["unseen_outputs"], "its output")
    die.touch()
    await asyncio.to_thread(wait_until, lambda: broker_kernels()[0]["state"] == "dead", "the kernel to die")
    async with running_kernel(kernel_name, env=session_of(notebook)) as (_, client):
        text = text_of(await execute(client, "print('x' in globals())"))
    assert "What the kernel wrote while no notebook was connected" in text
    assert "The kernel that was kept is no more, this is a new one." in text
    assert "exit code 3" in text
    assert text.index("last words\n") < text.index("False\n")


async def test_a_kernel_is_ended_when_its_time_is_over(account, kernel_name, notebook, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_KEEP_HOURS", str(1 / 3600))
    inside = len(kernels_inside(account.codespace))
    await asyncio.to_thread(kill_front_end, kernel_name, notebook, "pass")
    await asyncio.to_thread(wait_until, lambda: broker_kernels() == [], "the kernel to be ended")
    await asyncio.to_thread(wait_until, lambda: len(kernels_inside(account.codespace)) == inside, "its process to end")


# The Jupyter server: to a kernel, the server's end looks like a kernel's end that a person asked for.


@pytest.fixture
def server(notebook):
    """Starts Jupyter servers in the notebook's folder; ends them."""
    started: list[Server] = []

    def start() -> Server:
        started.append(start_jupyter_server(notebook.parent))
        return started[-1]

    yield start
    for each in started:
        each.close()


def open_notebook(server: Server, kernel_name: str, notebook: Path) -> dict:
    body = {"name": notebook.name, "path": notebook.name, "type": "notebook", "kernel": {"name": kernel_name}}
    status, session = server.request("POST", "api/sessions", body)
    assert status == 201, session
    return session


def leave() -> None:
    """Close the page in the middle of a run."""
    raise InterruptedError


def test_a_jupyter_server_that_ends_leaves_its_kernels_and_one_that_is_asked_ends_them(kernel_name, notebook, server):
    first = server()
    kernel_id = open_notebook(first, kernel_name, notebook)["kernel"]["id"]
    # A run that nothing disturbs, although a manager that ends a kernel interrupts it first.
    first.execute(kernel_id, "import time; x = 41")
    with pytest.raises(InterruptedError):
        first.execute(
            kernel_id, "print('begun')\ntry:\n    time.sleep(1)\nexcept KeyboardInterrupt:\n    x = 0", on_output=leave
        )
    first.close()
    assert the_kept_one()["session"] == str(notebook)
    wait_until(lambda: broker_kernels()[0]["state"] == "idle", "its run to end")
    second = server()
    session = open_notebook(second, kernel_name, notebook)
    said = second.execute(session["kernel"]["id"], "print(x + 1)")
    assert [m["content"]["text"] for m in said if m["kind"] == "stream"] == ["42\n"]
    assert second.request("DELETE", f"api/sessions/{session['id']}")[0] == 204
    wait_until(lambda: broker_kernels() == [], "the kernel to end")


# VS Code: no notebook's name in the environment, no goodbye, and a restart that looks like a new start.


@pytest.fixture
def launch(kernel_name, notebook):
    """Starts launchers of the notebook, as VS Code does; clears them away."""
    launched: list[VSCodeKernel] = []

    def launch(kernel: VSCodeKernel | None = None) -> VSCodeKernel:
        launched.append(kernel or VSCodeKernel(find_specs()[kernel_name], notebook))
        return launched[-1].start()

    yield launch
    for kernel in launched:
        kernel.end()


def test_vscode_closed_and_opened_again(launch, notebook):
    first = launch()
    first.execute("x = 41")
    first.close_window()
    kept = the_kept_one()
    assert kept["session"] == str(notebook)
    wait_until(lambda: time.time() - kept["since"] > 2 * RESTART_SECONDS, "a person to open it again")
    assert launch().execute("print(x + 1)").text == "42\n"


def test_vscode_restart_gives_a_fresh_kernel(launch):
    first = launch()
    first.execute("x = 41")
    again = launch(first.restart())
    assert again.execute("print('x' in globals())").text == "False\n"
    wait_until(lambda: [kernel["kept"] for kernel in broker_kernels()] == [False], "the old kernel to end")


# The command line.


def test_attach_holds_a_kept_kernel_and_gives_it_back(kernel_name, notebook):
    kept = front_end_dies(kernel_name, notebook, "x = 41")
    with attached(kept["id"][:8]) as path:
        assert broker_kernels()[0]["kept"] is False
        client = BlockingKernelClient(connection_file=str(path))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=WAIT)
        reply = client.execute_interactive("x += 1", timeout=WAIT, user_expressions={"x": "x"})
        assert reply["content"]["user_expressions"]["x"]["data"]["text/plain"] == "42"
        client.stop_channels()
    assert not path.exists()
    assert the_kept_one()["session"] == str(notebook)


def use_a_console(kernel_id: str, code: str, expected: str) -> None:
    """Open a console on a kernel, run a line, wait for its output, and leave."""
    command = [sys.executable, "-m", "codespace_kernels.cli", "kernels", "attach", kernel_id]
    with Terminal(command) as console:
        console.wait_for("In [")
        # What its reply has overtaken, the console shows at the next Enter only.
        console.type(f"{code}\r\r")
        console.wait_for(expected)
        console.wait_for("In [")
        console.wait_for("really want to exit", key="\x04")
        console.type("y\r")
        assert console.wait() == 0


def test_a_console_is_a_guest_of_a_kernel_that_a_front_end_holds(kernel_name, notebook):
    process = front_end(kernel_name, notebook, "x = 41")
    try:
        (kernel,) = broker_kernels()
        use_a_console(kernel["id"], "x += 1; print(x * 1000)", "42000")
        use_a_console(kernel["id"], "x += 1; print(x * 1000)", "43000")
    finally:
        process.kill()
        process.communicate(timeout=WAIT)


def test_a_console_is_a_guest_of_a_kept_kernel(kernel_name, notebook):
    kept = front_end_dies(kernel_name, notebook, "x = 41")
    use_a_console(kept["id"], "x += 1; print(x * 1000)", "42000")
    use_a_console(the_kept_one()["id"], "x += 1; print(x * 1000)", "43000")
    the_kept_one()


@contextlib.contextmanager
def attached(kernel_id: str):
    """Give the connection file that `kernels attach` makes, as long as that runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "codespace_kernels.cli", "kernels", "attach", "--connection-file", kernel_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        path = Path(process.stdout.readline().strip())
        assert path.stat().st_mode & 0o077 == 0
        yield path
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 0
        process.stdout.close()


def test_kernels_and_end(kernel_name, notebook):
    kept = front_end_dies(kernel_name, notebook, "pass")
    assert json.loads(cli("kernels", "--json").stdout)["kernels"] == [kept]
    listed = cli("kernels").stdout
    assert kept["id"][:8] in listed
    assert "no, kept until" in listed
    assert cli("kernels", "end", "no-such").returncode == 3
    assert cli("kernels", "end").returncode == 2
    assert cli("kernels", "end", kept["id"][:8]).returncode == 0
    assert broker_kernels() == []
