"""VS Code's contract with a kernel that it runs itself, played message for message (see `vscode`).

Everything but VS Code is real: the written kernelspec, the launcher, the broker, the emulated codespace. What VS Code's
features need of a kernel is in `test_vscode_abilities`. Not played:

- The kernel list on the screen (what is starred, sorted, remembered; its refresh button): no code of ours takes part.
- Untrusted folders, Restricted Mode: our specs stand in the user's own folder, which is trusted.
- Matching with an environment by the Python extension: it needs a path in `argv[0]`, and ours is a bare name.
- Windows: its branches are tested in `tests/test_launcher.py`, `tests/test_kernelspecs.py` and
  `tests/broker/test_pretended_windows.py`. A forced end of the process tree is the killed launcher here.
- Signal-mode interrupts: the spec says `message`, so that no signal is sent.
- The fallback through a local Jupyter server: that is jupyter_client with provisioners (`test_front_ends`).
- The 60 s limits: only that requests are answered while the codespace starts.
- Two connection attempts to a shell port by one identity, reconnects, the heartbeat: the extension makes none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from codespace_kernels.broker.client import BrokerClient

from . import vscode
from .conftest import WAIT, cli, end_broker, ended, kernels_inside, wait_until
from .vscode import (
    REWRITTEN,
    Spec,
    VSCodeKernel,
    command_line,
    extension_host,
    find_specs,
    internal_name,
    new_connection_file,
    next_ports,
    python_probe,
    substituted,
    taken_for_python,
    vanishing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e


@pytest.fixture
def spec(kernel_name) -> Spec:
    """The codespace's kernelspec, as the extension finds it."""
    return find_specs()[kernel_name]


def held_kernels() -> list[dict]:
    """The kernels that the broker holds."""
    return BrokerClient().call("GET", "kernels")["kernels"] if BrokerClient().running() else []


def a_kernel_runs() -> bool:
    """Whether the broker holds a kernel that can be used."""
    return any(kernel["state"] == "idle" for kernel in held_kernels())


@pytest.fixture(scope="module")
def codespace(account) -> str:
    """Name of the account's codespace."""
    return account.codespace


@pytest.fixture
def clean(codespace):
    """Afterwards nothing may be left, here or in the codespace."""
    yield
    wait_until(lambda: not held_kernels(), "the broker to forget the kernels")
    wait_until(lambda: not kernels_inside(codespace), "the codespace's kernels to end")
    assert not list(Path(os.environ["XDG_RUNTIME_DIR"]).glob("*/kernel-*"))


@pytest.fixture
def started() -> Iterator[list[VSCodeKernel]]:
    """Kernels that are to be cleared away."""
    kernels: list[VSCodeKernel] = []
    yield kernels
    for kernel in kernels:
        kernel.end()


@pytest.fixture
def launch(spec, tmp_path, clean, started):
    """Starts launchers."""

    def launch(used: Spec = spec, **env: str) -> VSCodeKernel:
        kernel = VSCodeKernel(used, tmp_path / "note book.ipynb", **env)
        started.append(kernel)
        return kernel

    return launch


@pytest.fixture
def kernel(launch) -> VSCodeKernel:
    """A started kernel."""
    return launch().start()


# The list of kernels.


def test_the_spec_is_listed_under_its_own_name(spec, kernel_name):
    assert spec.folder == internal_name(spec) == kernel_name
    assert vanishing([spec]) == {}
    assert spec.content["argv"] == ["codespace-kernel", "-f", "{connection_file}"]
    # A module of that name would be run in some other way.
    assert "ipykernel" not in str(spec.content["argv"])
    assert spec.is_python
    assert spec.content["interrupt_mode"] == "message"
    assert not re.search(r"python \d+(\.\d*)?$", spec.content["display_name"].lower())
    assert not spec.content["metadata"].keys() & {"interpreter", "vscode", "originalSpecFile"}
    assert not re.search("token|secret|gh[a-z]_", json.dumps(spec.content), re.IGNORECASE)


def test_the_target_stands_in_env_and_path_keeps_what_was_there(spec):
    env = substituted({"PATH": "/somewhere/else", "HOME": "/h"}, spec)
    assert {"CODESPACE_KERNELS_WORKSPACE", "CODESPACE_KERNELS_KERNEL"} <= env.keys()
    # Windows knows names in capitals only.
    assert all(name == name.upper() for name in spec.content["env"])
    assert env["PATH"].endswith(os.pathsep + "/somewhere/else")


def test_the_launcher_is_found_without_any_environment_activated(spec):
    assert not taken_for_python(spec.program)
    found = shutil.which(spec.program, path=substituted({"PATH": "/usr/bin:/bin"}, spec)["PATH"])
    assert found is not None
    # By its path it would have been taken for a Python: this environment shows that the rule bites.
    assert taken_for_python(found)
    assert shutil.which(spec.program, path="/usr/bin:/bin") is None


def test_two_specs_are_never_merged(spec, account):
    """The codespace's kernels, with the one that a second account or a renamed codespace would add beside them."""
    clone = Spec("cs-copy", {**spec.content, "env": {}})
    assert vanishing([spec, clone]) == {"cs-copy": "display_name and argv[0] equal another's"}
    specs = [found for found in find_specs().values() if found.program == spec.program]
    assert vanishing(specs) == {}


NO_SYSTEM_CALLS = """
import os, sys
def refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn")):
        os._exit(99)
sys.addaudithook(refuse)
"""


def test_a_probe_for_an_interpreter_fails_at_once_and_touches_nothing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_SYSTEM_CALLS)
    program = shutil.which("codespace-kernel")
    assert program is not None
    # The hook works: a real start is stopped by it.
    (tmp_path / "file.json").write_text(json.dumps({**next_ports(), "key": "k"}))
    target = {"CODESPACE_KERNELS_WORKSPACE": "w", "CODESPACE_KERNELS_KERNEL": "k"}
    env = {**os.environ, "PYTHONPATH": str(tmp_path), **target}
    started = subprocess.run([program, "-f", str(tmp_path / "file.json")], env=env, check=False, timeout=30)
    assert started.returncode == 99

    done = python_probe(program, PYTHONPATH=str(tmp_path), CODESPACE_KERNELS_HOME=str(tmp_path / "home"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    assert not (tmp_path / "home").exists()


# The start.


def test_a_start_as_the_extension_does_it(launch):
    kernel = launch()
    assert stat.S_IMODE(kernel.connection_file.stat().st_mode) == 0o644
    kernel.start()
    assert all(kernel.answers(port) for port in ("hb_port", "control_port", "stdin_port"))
    ran = kernel.execute("print(__vsc_ipynb_file__, started_by_the_user_setting)")
    assert ran.text == f"{kernel.notebook} True\n"
    assert ran.reply.content["execution_count"] == 1
    assert [message.kind for message in ran.outputs] == ["execute_input", "stream"]
    assert kernel.process.poll() is None


def test_variables_that_the_kernel_needs_reach_it_and_no_other(launch):
    kernel = launch(A_SECRET="canary").start()
    ran = kernel.execute(
        "from os import environ as e; print(e.get('PYDEVD_IPYTHON_COMPATIBLE_DEBUGGING'), 'A_SECRET' in e)"
    )
    assert ran.text == "1 False\n"


def test_connections_that_only_try_the_ports_do_no_harm(launch):
    kernel = launch()
    kernel.wait_for_ports()
    for _ in range(50):
        assert kernel.answers("shell_port")
        assert kernel.answers("iopub_port")
    assert kernel.start().execute("print(1)").text == "1\n"


def test_two_hundred_requests_that_wait_are_each_answered_once(launch):
    kernel = launch()
    kernel.wait_for_ports()
    asked = [
        kernel.wire.send(channel, "kernel_info_request", {}) for _ in range(100) for channel in ("shell", "control")
    ]
    for msg_id in asked:
        assert kernel.wire.reply(msg_id).content["language_info"]["name"] == "python"
        assert kernel.wire.reply(msg_id).channel == ("shell" if asked.index(msg_id) % 2 == 0 else "control")
    kernel.run_start_up_code()
    assert kernel.execute("print(1)").text == "1\n"
    parents = [m.parent_id for m in kernel.wire.received if m.channel in {"shell", "control"}]
    assert len(parents) == len(set(parents))


def test_a_codespace_that_is_stopped_and_slow_to_start_is_no_hindrance(launch, account, codespace):
    """Whether opening wakes it or the first cell: the ports answer at once, and all that was sent meanwhile is done."""
    assert cli("stop", codespace, "--yes").returncode == 0
    account.fault("slow-start", "--option", "seconds=3")
    try:
        kernel = launch()
        kernel.wait_for_ports()
        asked = kernel.shake_hands()
        for msg_id in asked:
            # Its idle may have come before the subscription, as with a local kernel: it is answered at once.
            kernel.wire.reply(msg_id)
        kernel.run_start_up_code()
        ran = kernel.execute("print(__vsc_ipynb_file__, started_by_the_user_setting)")
    finally:
        account.fault("--clear")
    assert ran.text.endswith(f"{kernel.notebook} True\n")


def test_two_notebooks_with_one_spec_are_two_kernels(launch):
    first, second = launch(), launch()
    numbers = {kernel.start().execute("import os; print(os.getpid())").text for kernel in (first, second)}
    assert len(numbers) == 2


# While it runs.


def test_an_interrupt_is_a_message(kernel):
    cell = kernel.send_cell("import time\nprint('running', flush=True)\ntime.sleep(600)")
    kernel.wait_for_output(cell, "running")
    kernel.interrupt()
    assert kernel.finish_cell(cell).reply.content["ename"] == "KeyboardInterrupt"
    # The button may be pressed just when the cell is done.
    kernel.interrupt()
    assert kernel.execute("print(1)").text == "1\n"
    assert "KeyboardInterrupt" not in kernel.stderr()


def test_input_is_asked_of_the_identity_that_ran_the_cell(kernel):
    cell = kernel.send_cell("import getpass; print(input('name: '), getpass.getpass('word: '))")
    for prompt, hidden, answer in (("name: ", False, "ann"), ("word: ", True, "x1")):
        request = kernel.wire.first(
            lambda m, prompt=prompt: m.kind == "input_request" and m.content["prompt"] == prompt, prompt
        )
        assert (request.channel, request.parent_id, request.content["password"]) == ("stdin", cell, hidden)
        kernel.wire.send("stdin", "input_reply", {"value": answer, "status": "ok"}, parent=request.header)
    assert kernel.finish_cell(cell).text.endswith("ann x1\n")


def test_a_cancelled_input_is_an_empty_one(kernel):
    cell = kernel.send_cell("print(repr(input('name: ')))")
    request = kernel.wire.first(lambda m: m.kind == "input_request", "the question")
    kernel.wire.send("stdin", "input_reply", {"value": "", "status": "ok"}, parent=request.header)
    assert kernel.finish_cell(cell).text.endswith("''\n")


def test_the_debugger_answers_while_a_cell_runs(kernel):
    busy = kernel.send_cell("import time\nprint('running', flush=True)\ntime.sleep(600)")
    kernel.wait_for_output(busy, "running")
    # Control is a channel of its own.
    assert kernel.debug("debugInfo")["body"]["isStarted"] is False
    kernel.interrupt()
    kernel.finish_cell(busy)


LOOSE = """
import json
from IPython import get_ipython
from IPython.display import display
kernel = get_ipython().kernel
kernel.session.pack = lambda value: json.dumps(value, default=str).encode()
display({'application/json': {'a': float('nan'), 'b': [float('-inf'), 'NaN']}}, raw=True)
"""


def test_numbers_that_are_no_json_do_not_end_the_channel(kernel):
    ran = kernel.execute(LOOSE)
    (shown,) = [m for m in ran.outputs if m.kind == "display_data"]
    assert shown.content["data"]["application/json"] == {"a": None, "b": [None, "NaN"]}
    assert kernel.execute("print(1)").text == "1\n"


BROKEN = """
from IPython import get_ipython
kernel = get_ipython().kernel
whole = kernel.session.pack
kernel.session.pack = lambda value: b"{'no': json}" if 'a_mark' in str(value) else whole(value)
kernel.session.send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'a_mark'}, parent=kernel.get_parent())
kernel.session.pack = whole
print('after')
"""


def test_a_message_that_is_no_json_at_all_does_not_end_the_channel(kernel):
    assert kernel.execute(BROKEN).text == "after\n"
    assert kernel.execute("print(1)").text == "1\n"


def test_output_keeps_its_order_and_comes_whole(kernel):
    ran = kernel.execute("for i in range(20000): print(i, flush=i % 100 == 0)")
    assert ran.text == "".join(f"{i}\n" for i in range(20000))


# The end.


def process_number(kernel: VSCodeKernel) -> int:
    """The process id of the kernel in the codespace; emulated codespaces run on this machine."""
    return int(kernel.execute("import os; print(os.getpid())").text)


def test_stop_is_a_signal_without_a_word(kernel):
    pid = process_number(kernel)
    kernel.stop()
    assert kernel.process.wait(WAIT) == 0
    wait_until(lambda: ended(pid), "the kernel in the codespace to end")
    wait_until(lambda: not kernel.answers("shell_port"), "the ports to be free")
    assert "Error" not in kernel.stderr()


@pytest.mark.parametrize("times", [1, 3])
def test_restart_is_a_new_launcher_while_the_old_one_cleans_up(kernel, started, times):
    kernel.execute("x = 1")
    pid = process_number(kernel)
    current = kernel
    for _ in range(times):
        current = current.restart()
        started.append(current)
    current.start()
    assert current.execute("print('x' in globals())").text == "False\n"
    wait_until(lambda: ended(pid), "the old kernel to end")
    wait_until(lambda: len(held_kernels()) == 1, "the broker to hold the new kernel only")


def test_stop_while_it_starts(launch):
    kernel = launch()
    wait_until(held_kernels, "the launcher to have asked for a kernel")
    kernel.stop()
    assert kernel.process.wait(WAIT) == 0


def test_stop_that_ends_all_descendants_does_not_end_the_broker(kernel, launch):
    other = launch().start()
    kernel.stop()
    assert other.execute("print(1)").text == "1\n"


def test_a_stop_that_ends_a_broker_at_its_birth_leaves_others_a_broker(launch):
    """The broker is the launcher's grandchild until it serves, and the extension ends all descendants."""
    end_broker()
    pair = [launch(), launch()]
    starter = wait_until(lambda: next(filter(VSCodeKernel.descendants, pair), None), "a launcher to start the broker")
    starter.stop()
    (other,) = (kernel for kernel in pair if kernel is not starter)
    assert other.start().execute("print(1)").text == "1\n"


def test_a_closed_window_leaves_nothing(kernel):
    pid = process_number(kernel)
    kernel.close_window()
    assert kernel.process.wait(WAIT) == 0
    wait_until(lambda: ended(pid), "the kernel in the codespace to end")
    assert not kernel.connection_file.exists()


def test_the_end_of_stdin_is_the_end_of_vscode(kernel):
    pid = process_number(kernel)
    kernel.crash()
    assert kernel.process.wait(WAIT) == 0
    wait_until(lambda: ended(pid), "the kernel in the codespace to end")
    assert not kernel.connection_file.exists()


def test_a_killed_extension_host_leaves_nothing(clean, spec):
    """The launcher's own parent is killed, and nobody closes anything in order."""
    _, connection_file = new_connection_file(spec)
    host, launcher = extension_host(spec, connection_file)
    wait_until(a_kernel_runs, "the kernel")
    host.kill()
    host.communicate(timeout=WAIT)
    wait_until(lambda: ended(launcher), "the launcher to end")


@pytest.mark.parametrize("state", ["waiting", "idle"])
def test_a_killed_launcher_leaves_nothing(launch, state):
    kernel = launch()
    wait_until(lambda: [k for k in held_kernels() if state in {"waiting", k["state"]}], "the kernel")
    kernel.process.kill()
    kernel.stop()


def test_a_launcher_that_nobody_holds_by_stdin_lives_on(clean, spec):
    """Other front ends give it `/dev/null`, which is at its end from the beginning."""
    _, connection_file = new_connection_file(spec)
    command, env = command_line(spec, connection_file), substituted(dict(os.environ), spec)
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
    wait_until(a_kernel_runs, "the kernel")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0


@pytest.mark.parametrize("code", ["exit()", "import os; os._exit(3)", "import os, signal; os.kill(os.getpid(), 9)"])
def test_a_kernel_that_dies_ends_its_launcher(kernel, code):
    kernel.send_cell(code)
    kernel.process.wait(WAIT)
    assert "Traceback" not in kernel.stderr()


FRONT_END = """
import asyncio, sys
from jupyter_client.manager import AsyncKernelManager

async def main():
    manager = AsyncKernelManager(kernel_name=sys.argv[1])
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_front_end_of_jupyter_client_leaves_nothing(clean, codespace, kernel_name):
    front_end = subprocess.Popen([sys.executable, "-c", FRONT_END, kernel_name], stdout=subprocess.PIPE, text=True)
    assert front_end.stdout.readline() == "ready\n"
    assert kernels_inside(codespace)
    front_end.kill()
    front_end.communicate(timeout=WAIT)


# What a user reads when it does not start.


def shown_failure(kernel: VSCodeKernel) -> str:
    """The text of a failed start: one line with `Error`, no words that the extension puts its own advice for."""
    text = kernel.failure()
    assert kernel.process.returncode != 0
    assert re.match(r"\w+Error: ", text)
    assert "\n" not in text
    assert not REWRITTEN.search(kernel.stderr())
    assert "Traceback" not in kernel.stderr()
    return text


def with_env(spec: Spec, **env: str) -> Spec:
    return Spec(spec.folder, {**spec.content, "env": {**spec.content["env"], **env}})


def test_a_codespace_that_is_gone_is_named(launch, spec):
    kernel = launch(with_env(spec, CODESPACE_KERNELS_WORKSPACE="no-such-codespace"))
    assert "no-such-codespace" in shown_failure(kernel)


def test_a_kernel_that_is_gone_is_named(launch, spec):
    kernel = launch(with_env(spec, CODESPACE_KERNELS_KERNEL="no-such-kernel"))
    assert "no-such-kernel" in shown_failure(kernel)


def test_a_taken_port_is_named(launch, monkeypatch):
    first = launch().start()
    # As when another process took a port between its choice and its use.
    monkeypatch.setattr(vscode, "next_ports", lambda: {**next_ports(), "iopub_port": first.info["iopub_port"]})
    assert str(first.info["iopub_port"]) in shown_failure(launch())
    assert first.execute("print(1)").text == "1\n"


def test_a_spec_without_its_target_says_what_to_do(launch, spec):
    content = {**spec.content, "env": {"PATH": spec.content["env"]["PATH"]}}
    assert "codespace-kernels connect" in shown_failure(launch(Spec(spec.folder, content)))
