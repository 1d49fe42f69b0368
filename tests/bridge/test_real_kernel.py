"""Stock clients of jupyter_client drive a real ipykernel through the bridge."""

from __future__ import annotations

import asyncio

from jupyter_client.blocking import BlockingKernelClient

from codespace_kernels.messages import Channel
from tests.bridge.conftest import connect, subscribed, until


async def run(client, code: str, **kwargs) -> tuple[dict, list[dict]]:
    """Execute, and give the reply's content and the iopub messages up to idle."""
    output: list[dict] = []
    reply = await client.execute_interactive(code, output_hook=output.append, timeout=60, **kwargs)
    return reply["content"], output


def text(output: list[dict]) -> str:
    return "".join(m["content"]["text"] for m in output if m["msg_type"] == "stream")


async def test_stock_client_runs_code(bridge, kernel):
    bridge.attach(kernel)
    client = connect(bridge)
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        content, output = await run(client, "print(6 * 7)")
        assert content["status"] == "ok"
        assert text(output) == "42\n"
        assert await client.complete("pri", reply=True, timeout=60)
        await until(client.hb_channel.is_beating)
    finally:
        client.stop_channels()


async def test_blocking_client_in_a_thread(bridge, kernel):
    bridge.attach(kernel)

    def work() -> list[str]:
        client = connect(bridge, BlockingKernelClient)
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            lines: list[str] = []
            client.execute_interactive(
                "for i in range(3): print(i)",
                timeout=60,
                output_hook=lambda m: lines.append(m["content"].get("text", "")),
            )
            return lines
        finally:
            client.stop_channels()

    assert "".join(await asyncio.to_thread(work)) == "0\n1\n2\n"


async def test_requests_that_came_before_the_kernel_are_answered_in_order(bridge, kernel):
    async with subscribed(bridge) as client:
        ids = [client.execute(f"x = {i}; print(x)") for i in range(5)]
        await until(lambda: bridge.stats.queued_requests == 5)
        assert bridge.stats.pending_requests == 5
        bridge.attach(kernel)
        replies = [await client.get_shell_msg(timeout=60) for _ in ids]
        assert [r["parent_header"]["msg_id"] for r in replies] == ids
        await until(lambda: bridge.stats.pending_requests == 0)


async def test_two_clients_get_their_own_replies_and_all_output(bridge, kernel):
    bridge.attach(kernel)
    async with subscribed(bridge) as one, subscribed(bridge) as two:
        first, second = one.execute("print('one')"), two.execute("print('two')")
        assert (await one.get_shell_msg(timeout=60))["parent_header"]["msg_id"] == first
        assert (await two.get_shell_msg(timeout=60))["parent_header"]["msg_id"] == second
        for client in (one, two):
            seen: list[str] = []
            # Who of two clients comes first is not fixed.
            while sorted(seen) != ["one", "two"]:
                message = await client.get_iopub_msg(timeout=60)
                seen += message["content"].get("text", "").split()


async def test_input_goes_to_the_client_that_asked(bridge, kernel):
    bridge.attach(kernel)
    async with subscribed(bridge) as one, subscribed(bridge) as two:
        for client, name in ((one, "Ada"), (two, "Grace"), (one, "Ada")):
            client.execute("name = input('who? ')", user_expressions={"name": "name"}, allow_stdin=True)
            request = await client.get_stdin_msg(timeout=60)
            assert request["content"]["prompt"] == "who? "
            client.input(name)
            reply = await client.get_shell_msg(timeout=60)
            value = reply["content"]["user_expressions"]["name"]["data"]["text/plain"]
            assert value == repr(name)
        assert not await one.stdin_channel.msg_ready()
        assert not await two.stdin_channel.msg_ready()


async def test_comm_buffers_pass_untouched_both_ways(bridge, kernel):
    bridge.attach(kernel)
    code = """
from comm import get_comm_manager
def opened(comm, msg):
    comm.on_msg(lambda m: comm.send({"echo": m["content"]["data"]}, buffers=[bytes(b)[::-1] for b in m["buffers"]]))
get_comm_manager().register_target("echo", opened)
"""
    buffers = [bytes(range(256)) * 1000, b"", b"\x00\xff" * 1_000_000]
    async with subscribed(bridge) as client:
        assert (await run(client, code))[0]["status"] == "ok"
        send = client.session.send
        opened = client.session.msg("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}})
        send(client.shell_channel.socket, opened)
        message = client.session.msg("comm_msg", {"comm_id": "c", "data": {"n": 1}})
        send(client.shell_channel.socket, message, buffers=buffers)
        while (answer := await client.get_iopub_msg(timeout=60))["msg_type"] != "comm_msg":
            pass
        assert answer["content"]["data"] == {"echo": {"n": 1}}
        assert [bytes(b) for b in answer["buffers"]] == [b[::-1] for b in buffers]


async def test_interrupt_request_interrupts(bridge, kernel):
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        client.execute("import time\nprint('running', flush=True)\ntime.sleep(60)")
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "running\n":
            pass
        request = client.session.msg("interrupt_request", {})
        client.session.send(client.control_channel.socket, request)
        reply = await client.get_control_msg(timeout=60)
        assert reply["msg_type"] == "interrupt_reply"
        assert reply["content"] == {"status": "ok"}
        assert reply["parent_header"]["msg_id"] == request["header"]["msg_id"]
        assert (await client.get_shell_msg(timeout=60))["content"]["ename"] == "KeyboardInterrupt"


async def test_shutdown_request_is_answered_and_never_reaches_the_kernel(bridge, kernel, owner):
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        assert (await client.shutdown(restart=True, reply=True, timeout=60))["content"] == {
            "status": "ok",
            "restart": True,
        }
        assert owner.shutdowns == [True]
        assert (await run(client, "1"))[0]["status"] == "ok"
    assert "shutdown_request" not in [m.header_dict()["msg_type"] for m in kernel.sent]


async def test_a_kernel_that_dies_is_told_to_the_owner_alone(bridge, kernel, owner):
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        request = client.execute("import time; print('up', flush=True); time.sleep(60)")
        while (await client.get_iopub_msg(timeout=60))["content"].get("text") != "up\n":
            pass
        await kernel.kill()
        assert bridge.stats.execution_state == "dead"
        assert bridge.stats.pending_requests == 0
        assert owner.execution_states[-1] == "dead"
        assert not await client.shell_channel.msg_ready()
        assert not await client.iopub_channel.msg_ready()
        assert request


async def test_many_lines_arrive_complete_and_in_order(bridge, kernel):
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        content, output = await run(client, "for i in range(20000): print(i)")
        assert content["status"] == "ok"
        assert text(output) == "".join(f"{i}\n" for i in range(20000))
        assert bridge.stats.execution_state == "idle"
        assert bridge.stats.to_clients[Channel.IOPUB.name.lower()] >= len(output)
