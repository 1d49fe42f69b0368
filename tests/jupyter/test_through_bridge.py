"""Stock clients of jupyter_client drive a kernel of a real Jupyter server, through the bridge and the websocket."""

from __future__ import annotations

import contextlib

import pytest

from codespace_kernels.bridge import KernelBridge
from codespace_kernels.jupyter import ServerClient
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.conftest import Owner, connect, subscribed, until
from tests.jupyter.conftest import kernel_of


@pytest.fixture(params=["server", "legacy_server"])
async def bridge(request):
    """A bridge in front of a kernel, over both forms of the websocket."""
    client = ServerClient(request.getfixturevalue(request.param).url)
    owner = Owner()
    bridge = await KernelBridge.bind(key=b"local-key", owner=owner)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        kernel = await stack.enter_async_context(kernel_of(client))
        stack.push_async_callback(bridge.close)
        bridge.attach(kernel)
        bridge.test_owner, bridge.test_kernel, bridge.test_client = owner, kernel, client
        yield bridge


async def run(client, code: str, **kwargs) -> tuple[dict, list[dict]]:
    output: list[dict] = []
    reply = await client.execute_interactive(code, output_hook=output.append, timeout=60, **kwargs)
    return reply["content"], output


def text(output: list[dict]) -> str:
    return "".join(m["content"]["text"] for m in output if m["msg_type"] == "stream")


async def test_stock_client(bridge):
    client = connect(bridge)
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        content, output = await run(client, "print(6 * 7)")
        assert content["status"] == "ok"
        assert text(output) == "42\n"
        # By jedi, its cache cold, it may take longer than anybody waits.
        await run(client, "%config Completer.use_jedi = False")
        reply = await client.complete("pri", reply=True, timeout=60)
        assert "print" in reply["content"]["matches"]
        content, output = await run(client, "1 / 0")
        assert content["ename"] == "ZeroDivisionError"
    finally:
        client.stop_channels()


async def test_input_of_two_clients(bridge):
    async with subscribed(bridge) as one, subscribed(bridge) as two:
        for client, name in ((one, "Ada"), (two, "Grace"), (one, "Ada")):
            client.execute("name = input('who? ')", user_expressions={"name": "name"}, allow_stdin=True)
            assert (await client.get_stdin_msg(timeout=60))["content"]["prompt"] == "who? "
            client.input(name)
            reply = await client.get_shell_msg(timeout=60)
            assert reply["content"]["user_expressions"]["name"]["data"]["text/plain"] == repr(name)
        assert not await one.stdin_channel.msg_ready()
        assert not await two.stdin_channel.msg_ready()


async def test_comm_buffers_pass_untouched_both_ways(bridge):
    code = """
from comm import get_comm_manager
def opened(comm, msg):
    comm.on_msg(lambda m: comm.send({"echo": m["content"]["data"]}, buffers=[bytes(b)[::-1] for b in m["buffers"]]))
get_comm_manager().register_target("echo", opened)
"""
    buffers = [bytes(range(256)) * 1000, b"", b"\x00\xff" * 1_000_000]
    async with subscribed(bridge) as client:
        assert (await run(client, code))[0]["status"] == "ok"
        opened = client.session.msg("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}})
        client.session.send(client.shell_channel.socket, opened)
        message = client.session.msg("comm_msg", {"comm_id": "c", "data": {"n": 1}})
        client.session.send(client.shell_channel.socket, message, buffers=buffers)
        while (answer := await client.get_iopub_msg(timeout=60))["msg_type"] != "comm_msg":
            pass
        assert answer["content"]["data"] == {"echo": {"n": 1}}
        assert [bytes(b) for b in answer["buffers"]] == [b[::-1] for b in buffers]


async def test_interrupt_request_interrupts(bridge):
    async with subscribed(bridge) as client:
        client.execute("import time\nprint('running', flush=True)\ntime.sleep(60)")
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "running\n":
            pass
        client.session.send(client.control_channel.socket, client.session.msg("interrupt_request", {}))
        assert (await client.get_control_msg(timeout=60))["content"] == {"status": "ok"}
        assert (await client.get_shell_msg(timeout=60))["content"]["ename"] == "KeyboardInterrupt"


async def test_restart_forgets_variables_and_goes_on(bridge):
    async with subscribed(bridge) as client:
        assert (await run(client, "x = 1"))[0]["status"] == "ok"
        await bridge.test_kernel.restart()
        assert (await run(client, "x"))[0]["ename"] == "NameError"
    states = [state for state, _ in bridge.test_owner.kernel_states]
    assert states == [KernelState.RESTARTING, KernelState.ALIVE]


async def test_a_large_display_arrives_whole(bridge):
    async with subscribed(bridge) as client:
        code = "from IPython.display import display; display({'text/plain': 'x' * 20_000_000}, raw=True)"
        content, output = await run(client, code)
        assert content["status"] == "ok"
        shown = [m["content"]["data"]["text/plain"] for m in output if m["msg_type"] == "display_data"]
        assert [len(one) for one in shown] == [20_000_000]


async def test_a_kernel_that_kills_itself_is_restarted_by_its_server(bridge):
    async with subscribed(bridge) as client:
        client.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        states = bridge.test_owner.kernel_states
        await until(lambda: len(states) >= 2)
        assert [state for state, _ in states] == [KernelState.RESTARTING, KernelState.ALIVE]
        assert "died" in states[0][1]
        assert (await run(client, "print('back')"))[0]["status"] == "ok"
