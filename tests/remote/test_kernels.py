"""Real kernels of a real server, over the link."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import uuid
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
import pytest

from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.errors import KernelError, KernelNotFoundError, KernelStartError
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.kernel import LinkKernel
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState

from .conftest import processes_of, wait_until_gone
from .local_connection import LocalConnection
from .recorder import Recorder, execute, make


async def delete_over_rest(client: LinkClient, method: str, path: str) -> None:
    info = await client.server_info()
    async with httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{info['port']}{info['base_url']}{path}"
        answer = await http.request(method, url, headers={"Authorization": f"token {info['token']}"}, timeout=30)
        answer.raise_for_status()


async def test_versions_are_told_of_the_pythons_that_run_kernels(client: LinkClient, home: Path) -> None:
    commands = {
        "own": [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "servers": ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "missing": ["/nowhere/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "no-python": ["/bin/echo", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "other": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
        "empty": [],
    }
    folders = [home / "jupyter" / "kernels" / name for name in commands]
    for folder, argv in zip(folders, commands.values(), strict=True):
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": folder.name, "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
    try:
        specs = await client.kernelspecs()
    finally:
        for folder in folders:
            shutil.rmtree(folder)
    known = {"python": platform.python_version(), "ipython": version("ipython")}
    assert {name: specs[name].versions for name in commands} == {
        "own": known, "servers": known, "missing": {}, "no-python": {}, "other": {}, "empty": {}
    }  # fmt: skip
    assert specs["python3"].versions == known


async def test_kernelspecs_come_with_their_logos(client: LinkClient) -> None:
    spec = (await client.kernelspecs())["python3"]
    assert spec.language == "python"
    assert spec.interrupt_mode == "signal"
    assert spec.metadata["debugger"] is True
    assert spec.resources["logo-64x64.png"].startswith(b"\x89PNG")


async def test_the_first_execute_loses_nothing(client: LinkClient) -> None:
    """Sent with the start's answer, long before the kernel listens: its whole output comes, `busy` first."""
    for _ in range(4):
        recorder = Recorder(await client.start_kernel("python3"))
        request = await recorder.run("print('first')")
        kinds = [message.header_dict()["msg_type"] for message in recorder.of_request(request, Channel.IOPUB)]
        assert kinds == ["status", "execute_input", "stream", "status"]
        assert recorder.text(request) == "first\n"
        await recorder.kernel.shutdown()


async def test_the_server_subscribes_only_to_kernels_that_nobody_has_open(client: LinkClient) -> None:
    """A subscription that goes while the publisher's limit is lifted can end the kernel."""
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("pass")
    code = "import json, pathlib, sys; print(json.loads(pathlib.Path(sys.argv[-1]).read_text())['iopub_port'])"
    port = int(recorder.text(await recorder.run(code)))
    server = psutil.Process((await client.server_info())["pid"])

    def subscriptions() -> list[object]:
        return [c for c in server.net_connections("tcp") if c.raddr and c.raddr.port == port]

    assert not subscriptions()
    await recorder.kernel.close()
    async with asyncio.timeout(60):
        while not subscriptions():
            await asyncio.sleep(0.02)
    (again,) = [kernel for kernel in await client.kernels() if kernel["id"] == recorder.kernel.kernel_id]
    assert again["execution_state"] == "idle"
    await delete_over_rest(client, "DELETE", f"api/kernels/{recorder.kernel.kernel_id}")


async def test_replies_carry_the_identities_of_their_request(recorder: Recorder) -> None:
    requests = [recorder.request("pass", identities) for identities in [(b"one",), (b"\0two", b"hop"), ()]]
    await recorder.until(lambda: all(recorder.of_request(request, Channel.SHELL) for request in requests))
    answers = [recorder.of_request(request, Channel.SHELL)[0].identities for request in requests]
    assert answers == [(b"one",), (b"\0two", b"hop"), ()]


async def test_control_requests_are_answered_while_the_kernel_is_busy(recorder: Recorder) -> None:
    busy = recorder.request("print('go', flush=True); import time; time.sleep(60)")
    await recorder.until(lambda: recorder.text(busy))
    info = make("kernel_info_request", {}, (b"who",))
    recorder.kernel.send(Channel.CONTROL, info)
    await recorder.until(lambda: recorder.of_request(info, Channel.CONTROL))
    assert recorder.of_request(info, Channel.CONTROL)[0].identities == (b"who",)
    assert not recorder.of_request(busy, Channel.SHELL)
    await recorder.kernel.interrupt()
    await recorder.until(lambda: recorder.is_idle(busy))


async def test_input_is_asked_of_the_client_that_executes(recorder: Recorder) -> None:
    first = recorder.request("print('one', input('?'))", (b"one",))
    second = recorder.request("print('two', input('??'))", (b"two",))
    for request, identity, answer in ((first, b"one", "Ada"), (second, b"two", "Bob")):
        await recorder.until(lambda request=request: recorder.of_request(request, Channel.STDIN))
        assert recorder.of_request(request, Channel.STDIN)[0].identities == (identity,)
        recorder.kernel.send(Channel.STDIN, make("input_reply", {"value": answer}, (identity,)))
        await recorder.until(lambda request=request: recorder.is_idle(request))
    assert recorder.text(first) == "one Ada\n"
    assert recorder.text(second) == "two Bob\n"


async def test_interrupt(recorder: Recorder) -> None:
    request = recorder.request("print('go', flush=True)\nimport time\ntime.sleep(60)")
    await recorder.until(lambda: recorder.text(request))
    await recorder.kernel.interrupt()
    await recorder.until(lambda: recorder.of_request(request, Channel.SHELL))
    assert recorder.of_request(request, Channel.SHELL)[0].content_dict()["ename"] == "KeyboardInterrupt"


async def test_restart_gives_a_new_process_and_what_was_sent_meanwhile_runs_in_it(recorder: Recorder) -> None:
    await recorder.run("x = 1")
    restarting = asyncio.ensure_future(recorder.kernel.restart())
    await recorder.state(KernelState.RESTARTING)
    request = recorder.request("print('x' in globals())")
    await restarting
    await recorder.until(lambda: recorder.is_idle(request))
    assert recorder.text(request) == "False\n"
    assert [state for state, _ in recorder.states] == [KernelState.RESTARTING, KernelState.ALIVE]


async def test_shutdown_ends_the_process_and_may_be_repeated(client: LinkClient) -> None:
    recorder = Recorder(await client.start_kernel("python3"))
    pid = int(recorder.text(await recorder.run("import os; print(os.getpid())")))
    await recorder.kernel.shutdown()
    wait_until_gone(pid)
    await recorder.kernel.shutdown()
    assert recorder.kernel.kernel_id not in [model["id"] for model in await client.kernels()]
    assert recorder.states[-1] == (KernelState.DEAD, "The kernel was shut down.")


async def test_a_kernel_that_is_ended_while_it_restarts_is_gone(client: LinkClient, home: Path) -> None:
    """As after a lost connection: both commands come at once."""
    before = {process.pid for process in processes_of(home)}
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("pass")
    restart = asyncio.ensure_future(recorder.kernel.restart())
    await asyncio.sleep(0)
    await client.command("shutdown", kernel_id=recorder.kernel.kernel_id)
    await asyncio.wait({restart})
    async with asyncio.timeout(30):
        while {process.pid for process in processes_of(home)} - before:
            await asyncio.sleep(0.1)


async def test_comm_with_binary_buffers_both_ways(recorder: Recorder) -> None:
    await recorder.run(
        "import hashlib\n"
        "def target(comm, message):\n"
        "    @comm.on_msg\n"
        "    def _(message):\n"
        "        data = bytes(message['buffers'][0])\n"
        "        comm.send({'sha': hashlib.sha256(data).hexdigest()}, buffers=[data[::-1], b''])\n"
        "get_ipython().kernel.comm_manager.register_target('mirror', target)"
    )
    comm = uuid.uuid4().hex
    opened = make("comm_open", {"comm_id": comm, "target_name": "mirror", "data": {}})
    data = os.urandom(5_000_000)
    sent = make("comm_msg", {"comm_id": comm, "data": {}})._replace(buffers=(data,))
    recorder.kernel.send(Channel.SHELL, opened)
    recorder.kernel.send(Channel.SHELL, sent)

    def answer() -> list[object]:
        found = recorder.of_request(sent, Channel.IOPUB)
        return [message for message in found if message.header_dict()["msg_type"] == "comm_msg"]

    (message,) = await recorder.until(answer)
    assert message.content_dict()["data"]["sha"] == hashlib.sha256(data).hexdigest()
    assert message.buffers == (data[::-1], b"")


async def test_a_burst_of_20000_messages_arrives_whole_and_in_order(recorder: Recorder) -> None:
    await recorder.run("pass")
    code = (
        "kernel = get_ipython().kernel\n"
        "for i in range(20000):\n"
        "    kernel.session.send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': f'{i}\\n'},"
        " parent=kernel.get_parent())"
    )
    request = await recorder.run(code)
    assert recorder.text(request) == "".join(f"{i}\n" for i in range(20000))


async def test_a_display_of_50_mb_arrives_whole(recorder: Recorder) -> None:
    request = await recorder.run(
        "from IPython.display import display\ndisplay({'text/plain': 'x' * 50_000_000}, raw=True)"
    )
    (message,) = (
        m for m in recorder.of_request(request, Channel.IOPUB) if m.header_dict()["msg_type"] == "display_data"
    )
    assert json.loads(message.content)["data"]["text/plain"] == "x" * 50_000_000


async def test_eight_kernels_share_one_link(client: LinkClient) -> None:
    recorders = [
        Recorder(kernel) for kernel in await asyncio.gather(*(client.start_kernel("python3") for _ in range(8)))
    ]
    requests = await asyncio.gather(*(recorder.run(f"print({index})", 60) for index, recorder in enumerate(recorders)))
    assert [recorder.text(request) for recorder, request in zip(recorders, requests, strict=True)] == [
        f"{index}\n" for index in range(8)
    ]
    await asyncio.gather(*(recorder.kernel.shutdown() for recorder in recorders))


async def test_environment_and_folder(client: LinkClient, home: object) -> None:
    (folder := home / "work").mkdir(exist_ok=True)  # type: ignore[operator]
    kernel = await client.start_kernel("python3", cwd="work", env={"GREETING": "hello"})
    recorder = Recorder(kernel)
    code = "import os; print(os.getcwd(), os.environ['GREETING'], os.environ['HOME'], os.environ.get('PYTHONPATH'))"
    assert recorder.text(await recorder.run(code)) == f"{folder} hello {home} None\n"
    await kernel.shutdown()


async def test_starting_twice_with_one_id_starts_one_kernel(client: LinkClient) -> None:
    kernel_id = str(uuid.uuid4())
    kernels = await asyncio.gather(*(client.start_kernel("python3", kernel_id=kernel_id) for _ in range(3)))
    assert [model["id"] for model in await client.kernels()].count(kernel_id) == 1
    await asyncio.gather(*(kernel.shutdown() for kernel in kernels))


async def test_attach_to_a_kernel_that_runs(client: LinkClient, kernel: LinkKernel) -> None:
    first = Recorder(kernel)
    await first.run("x = 41")
    second = Recorder(await client.attach_kernel(kernel.kernel_id))
    request = await second.run("print(x + 1)")
    assert second.text(request) == "42\n"
    await first.until(lambda: first.text(request))
    assert not first.of_request(request, Channel.SHELL)
    await second.kernel.close()
    await first.run("pass")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"name": "fortran"}, KernelNotFoundError, "no kernelspec 'fortran'; it has (.*, )?python3"),
        ({"name": "python3", "cwd": "no/such"}, KernelStartError, "no/such does not exist in the workspace"),
    ],
)
async def test_a_start_that_cannot_be(client: LinkClient, options: dict[str, str], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        await client.start_kernel(**options)


async def test_attach_to_no_kernel(client: LinkClient) -> None:
    with pytest.raises(KernelNotFoundError, match="no kernel nobody"):
        await client.attach_kernel("nobody")


async def test_a_kernel_that_is_killed_is_dead_for_a_reason_and_can_be_restarted(recorder: Recorder) -> None:
    await recorder.run("x = 1")
    recorder.request("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "killed (SIGKILL)" in await recorder.state(KernelState.DEAD)
    with pytest.raises(KernelError, match="its process has ended"):
        await recorder.kernel.interrupt()
    dropped = recorder.request("print('for the dead')")
    await recorder.kernel.restart()
    assert recorder.text(await recorder.run("print('alive')")) == "alive\n"
    assert not recorder.of_request(dropped)


async def test_a_kernel_that_leaves_says_with_what(recorder: Recorder, tmp_path: Path) -> None:
    # A process that leaves takes along what its ZMQ thread has not sent yet: it waits until its words are here.
    heard = tmp_path / "heard"
    waiting = f"import os, time\nwhile not os.path.exists({str(heard)!r}): time.sleep(0.01)\nos._exit(3)"
    request = recorder.request(f"print('last words', flush=True)\n{waiting}")
    await recorder.until(lambda: recorder.text(request) == "last words\n")
    heard.touch()
    assert "exit code 3" in await recorder.state(KernelState.DEAD)


async def test_a_kernel_that_is_deleted_over_rest_is_dead(client: LinkClient) -> None:
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("pass")
    await delete_over_rest(client, "DELETE", f"api/kernels/{recorder.kernel.kernel_id}")
    assert "shut down by somebody else" in await recorder.state(KernelState.DEAD)


async def test_a_kernel_that_is_restarted_over_rest_is_followed(client: LinkClient, recorder: Recorder) -> None:
    await recorder.run("x = 1")
    await delete_over_rest(client, "POST", f"api/kernels/{recorder.kernel.kernel_id}/restart")
    await recorder.until(lambda: [reason for _, reason in recorder.states if "restarted by somebody else" in reason])
    assert recorder.text(await recorder.run("print('x' in globals())")) == "False\n"
    assert KernelState.DEAD not in [state for state, _ in recorder.states]
    # What it had been given is lost; a restart that is asked for here says so by itself.
    assert ["restarted by somebody else" in gap for gap in recorder.gaps] == [True]
    await recorder.kernel.restart()
    await recorder.run("pass")
    assert len(recorder.gaps) == 1


async def test_the_server_knows_what_the_kernel_does(client: LinkClient, recorder: Recorder) -> None:
    """Its own watch is off; its REST must be right all the same."""

    async def model() -> dict[str, object]:
        return next(model for model in await client.kernels() if model["id"] == recorder.kernel.kernel_id)

    await recorder.run("pass")
    request = recorder.request("print('go', flush=True); import time; time.sleep(60)")
    await recorder.until(lambda: recorder.text(request))
    async with asyncio.timeout(60):
        while (await model())["execution_state"] != "busy":
            await asyncio.sleep(0.05)
    before = (await model())["last_activity"]
    assert (await model())["connections"] == 1
    await recorder.kernel.interrupt()
    async with asyncio.timeout(60):
        while (await model())["execution_state"] != "idle":
            await asyncio.sleep(0.05)
    assert (await model())["last_activity"] > before


async def test_a_child_that_dies_is_replaced_and_the_gap_is_told(
    client: LinkClient, connection, recorder: Recorder
) -> None:
    await recorder.run("x = 41")
    old = (await client.server_info())["child_pid"]
    os.kill(old, signal.SIGKILL)
    assert "ended" in await client.wait_detached()
    assert recorder.states[-1][0] is KernelState.RECONNECTING
    waiting = asyncio.ensure_future(client.kernels())
    queued = recorder.request("print(x + 1)")
    server = await ensure_server(connection, install=False)
    await client.attach(await server.open_link(connection))
    assert recorder.kernel.kernel_id in [model["id"] for model in await waiting]
    await recorder.until(lambda: recorder.is_idle(queued))
    assert recorder.text(queued) == "42\n"
    assert recorder.states[-1][0] is KernelState.ALIVE
    assert len(recorder.gaps) == 1
    assert "was replaced" in recorder.gaps[0]
    assert (await client.server_info())["child_pid"] != old
    wait_until_gone(old)


async def answer_dies_with_child(client: LinkClient, connection: LocalConnection, command: Coroutine) -> None:
    """Have a command taken, the child that carries its answer end, and the command asked again of the next child."""
    info = await client.server_info()
    os.kill(info["pid"], signal.SIGSTOP)
    try:
        waiting = asyncio.ensure_future(command)
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            # What the child acknowledged, it has passed on to the server.
            while client.kept_bytes:
                await asyncio.sleep(0.01)
        os.kill(info["child_pid"], signal.SIGKILL)
    finally:
        os.kill(info["pid"], signal.SIGCONT)
    await client.wait_detached()
    server = await ensure_server(connection, install=False)
    await client.attach(await server.open_link(connection))
    await waiting
    assert (await client.server_info())["child_pid"] != info["child_pid"]


async def test_an_interrupt_that_is_asked_again_is_done_once(
    client: LinkClient, connection: LocalConnection, recorder: Recorder, tmp_path: Path
) -> None:
    code = "import os, signal, time\nseen = []\nsignal.signal(signal.SIGINT, lambda *_: seen.append(1))\nprint('up')\n"
    wait = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\nprint(seen)"
    request = recorder.request(code + wait)
    await recorder.until(lambda: recorder.text(request))
    await answer_dies_with_child(client, connection, recorder.kernel.interrupt())
    # The next child gives the kernel nothing before it hears what that publishes.
    info = make("kernel_info_request", {}, (b"who",))
    recorder.kernel.send(Channel.CONTROL, info)
    await recorder.until(lambda: recorder.of_request(info, Channel.CONTROL))
    (tmp_path / "go").touch()
    await recorder.until(lambda: recorder.is_idle(request))
    assert recorder.text(request) == "up\n[1]\n"


async def test_a_restart_that_is_asked_again_is_done_once(
    client: LinkClient, connection: LocalConnection, home: Path, tmp_path: Path
) -> None:
    counting = "import os, sys; open(sys.argv[1], 'a').write('x'); os.execv(sys.executable, sys.argv[2:])"
    argv = [sys.executable, "-c", counting, str(tmp_path / "starts"), sys.executable, "-m", "ipykernel_launcher"]
    folder = home / "jupyter" / "kernels" / "counting"
    folder.mkdir(parents=True)
    spec = {"argv": [*argv, "-f", "{connection_file}"], "display_name": "Counting", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    recorder = Recorder(await client.start_kernel("counting"))
    await recorder.run("x = 1")
    await answer_dies_with_child(client, connection, recorder.kernel.restart())
    assert recorder.text(await recorder.run("print('x' in globals())")) == "False\n"
    assert (tmp_path / "starts").read_text() == "xx"
    await recorder.kernel.shutdown()
    shutil.rmtree(folder)


async def test_messages_before_anybody_listens_are_kept(client: LinkClient) -> None:
    kernel = await client.start_kernel("python3")
    request = execute("print('early')")
    kernel.send(Channel.SHELL, request)
    late = Recorder(await client.attach_kernel(kernel.kernel_id))
    await late.run("pass")
    recorder = Recorder(kernel)
    await recorder.until(lambda: recorder.is_idle(request))
    assert recorder.text(request) == "early\n"
    await kernel.shutdown()


async def test_the_server_does_not_read_what_the_kernel_publishes(client: LinkClient, recorder: Recorder) -> None:
    """Else each message costs its main loop four times what the link pays."""
    code = "import json\nfrom ipykernel.connect import get_connection_info\nprint(get_connection_info())"
    port = json.loads(recorder.text(await recorder.run(code)))["iopub_port"]
    info = await client.server_info()

    def readers(pid: int) -> int:
        connections = psutil.Process(pid).net_connections("tcp")
        return len([c for c in connections if c.raddr and c.raddr.port == port and c.status == "ESTABLISHED"])

    assert readers(info["child_pid"]) == 1
    assert readers(info["pid"]) == 0
    await recorder.kernel.close()
    async with asyncio.timeout(60):
        while readers(info["pid"]) != 1:  # nobody else watches it any more
            await asyncio.sleep(0.05)
    await (await client.attach_kernel(recorder.kernel.kernel_id)).shutdown()
