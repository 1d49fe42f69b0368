"""What a kernel's websocket promises, and says it does not, against real servers and real kernels."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
import uuid

import pytest

from codespace_kernels.errors import KernelError, KernelNotFoundError
from codespace_kernels.jupyter import ServerClient, ServerUrl, WebsocketKernel
from codespace_kernels.messages import Channel, Message
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.conftest import until
from tests.jupyter.conftest import TOKEN, Listener, kernel_of, running
from tests.jupyter.proxy import Proxy
from tests.jupyter.websocket_proxy import PoliteProxy

_numbers = itertools.count()


def request(msg_type: str, content: dict, identities=(b"me",)) -> Message:
    header = {"msg_id": f"r{next(_numbers)}-{uuid.uuid4().hex}", "msg_type": msg_type, "session": "s", "username": "u",
              "date": "2026-01-01T00:00:00Z", "version": "5.3"}  # fmt: skip
    return Message(tuple(identities), json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode())


def execute(code: str, **kwargs) -> Message:
    return request(
        "execute_request", {"code": code, "silent": False, "store_history": True, "allow_stdin": False}, **kwargs
    )


def output(listener: Listener) -> str:
    contents = [m.content_dict() for c, m in listener.messages if c is Channel.IOPUB and b'"stream"' in m.header]
    return "".join(content["text"] for content in contents)


def replies(listener: Listener, channel: Channel = Channel.SHELL) -> list[Message]:
    return [message for c, message in listener.messages if c is channel]


async def run(kernel, listener, code: str) -> Message:
    """Execute, and give the reply when idle has come too."""
    message = execute(code)
    kernel.send(Channel.SHELL, message)
    msg_id = message.header_dict()["msg_id"]

    def mine() -> list[Message]:
        return [reply for reply in replies(listener) if reply.parent_dict()["msg_id"] == msg_id]

    def idle() -> bool:
        return any(b'"idle"' in m.content and m.parent_dict()["msg_id"] == msg_id for _, m in listener.messages)

    await until(lambda: mine() and idle())
    return mine()[0]


@pytest.fixture
async def kernel(client):
    async with kernel_of(client) as kernel:
        yield kernel


@pytest.fixture
async def listener(kernel):
    listener = Listener()
    kernel.listen(listener)
    return listener


@contextlib.asynccontextmanager
async def through_proxy(server):
    """A kernel that is reached through a proxy."""
    async with Proxy(server.port) as proxy:
        client = ServerClient(ServerUrl(f"http://127.0.0.1:{proxy.port}/", TOKEN))
        try:
            async with kernel_of(client) as kernel:
                listener = Listener()
                kernel.listen(listener)
                yield proxy, client, kernel, listener
        finally:
            await client.close()


async def test_answers_carry_the_identities_of_their_request(kernel, listener):
    for identities in ((b"one",), (b"two", b"hops"), ()):
        kernel.send(Channel.SHELL, execute("1", identities=identities))
        kernel.send(Channel.CONTROL, request("kernel_info_request", {}, identities))
    await until(lambda: len(replies(listener)) == len(replies(listener, Channel.CONTROL)) == 3)
    for channel in (Channel.SHELL, Channel.CONTROL):
        assert [reply.identities for reply in replies(listener, channel)] == [(b"one",), (b"two", b"hops"), ()]


async def test_iopub_has_a_topic(kernel, listener):
    await run(kernel, listener, "print(1)")
    topics = {message.identities for channel, message in listener.messages if channel is Channel.IOPUB}
    assert (f"kernel.{kernel.kernel_id}.stream".encode(),) in topics


async def test_what_comes_before_anybody_listens_is_handed_over(kernel):
    kernel.send(Channel.SHELL, execute("print('early')"))
    other = Listener()
    await until(lambda: (kernel.listen(other), kernel.listen(None), replies(other))[-1])
    late = Listener()
    kernel.listen(late)
    await run(kernel, late, "print('late')")
    assert output(other) + output(late) == "early\nlate\n"


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_QUICKACK is Linux's")
async def test_no_nagle_delay_behind_a_stock_server(kernel, listener):
    """Each request took 44 ms and more without immediate acknowledgements; the kernel alone takes 3 ms.

    A busy machine delays most requests, but not each; Nagle's algorithm does, but for the first of a connection.
    """
    times = []
    for _ in range(60):
        start = time.perf_counter()
        await run(kernel, listener, "pass")
        times.append(time.perf_counter() - start)
    assert min(times[20:]) < 0.04


async def test_a_cut_connection_is_mended_and_the_gap_is_told(server):
    async with through_proxy(server) as (proxy, _, kernel, listener):
        await run(kernel, listener, "x = 41")
        session = kernel.session_id
        proxy.cut()
        await until(lambda: listener.states)
        kernel.send(Channel.SHELL, execute("print(x + 1)"))
        await until(lambda: "42\n" in output(listener))
        assert [state for state, _ in listener.states] == [KernelState.RECONNECTING, KernelState.ALIVE]
        assert len(listener.gaps) == 1
        assert kernel.session_id == session
        assert replies(listener)[-1].identities == (b"me",)


async def test_requests_wait_while_the_server_cannot_be_reached(server):
    async with through_proxy(server) as (proxy, _, kernel, listener):
        await run(kernel, listener, "n = 0")
        proxy.refuses = True
        proxy.cut()
        await until(lambda: listener.states)
        assert listener.states[0][0] is KernelState.RECONNECTING
        for _ in range(3):
            kernel.send(Channel.SHELL, execute("n += 1; print(n)"))
        proxy.refuses = False
        await until(lambda: output(listener).endswith("3\n"))
        assert output(listener) == "1\n2\n3\n"
        assert kernel.state is KernelState.ALIVE


async def test_a_request_just_before_the_break_runs_at_most_once_and_is_told(server):
    async with through_proxy(server) as (proxy, _, kernel, listener):
        await run(kernel, listener, "n = 0")
        proxy.stall()
        kernel.send(Channel.SHELL, execute("n += 1"))
        # The request is in the proxy, as in the buffers of a link that died.
        await until(lambda: proxy.held)
        proxy.cut()
        proxy.flow()
        await until(lambda: listener.gaps)
        assert "1 request(s)" in listener.gaps[0]
        await run(kernel, listener, "print(n)")
        assert output(listener) == "0\n"


async def test_a_clean_close_loses_nothing(server):
    async with PoliteProxy(server.url) as proxy, kernel_of(client := proxy.client()) as kernel:
        listener = Listener()
        kernel.listen(listener)
        code = "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.05)"
        kernel.send(Channel.SHELL, execute(code))
        await until(lambda: "3\n" in output(listener))
        await proxy.say_goodbye()
        # The reply takes another way than the output.
        await until(lambda: replies(listener) and "19\n" in output(listener))
        assert output(listener) == "".join(f"{i}\n" for i in range(20))
        assert listener.gaps == []
        assert [state for state, _ in listener.states] == [KernelState.RECONNECTING, KernelState.ALIVE]
    await client.close()


async def test_output_that_another_client_took_is_told_as_a_gap(server, client):
    async with through_proxy(server) as (proxy, _, kernel, listener):
        await run(kernel, listener, "1")
        other = await WebsocketKernel.connect(client, kernel.kernel_id)
        try:
            proxy.cut()
            await until(lambda: listener.gaps)
        finally:
            await other.close()


async def test_a_stall_that_ends_loses_nothing(server):
    async with through_proxy(server) as (proxy, _, kernel, listener):
        kernel.send(Channel.SHELL, execute("import time\nfor i in range(20): print(i, flush=True); time.sleep(0.05)"))
        await until(lambda: "3\n" in output(listener))
        proxy.stall()
        kernel.send(Channel.SHELL, execute("print('later')"))
        seen = len(listener.messages)
        time.sleep(0.3)
        proxy.flow()
        await until(lambda: output(listener).endswith("later\n"))
        assert len(listener.messages) > seen
        assert output(listener) == "".join(f"{i}\n" for i in range(20)) + "later\n"
        assert (listener.gaps, listener.states) == ([], [])


async def test_a_request_that_the_server_will_not_take_is_told(server):
    async with through_proxy(server) as (_, _, kernel, listener):
        kernel.send(Channel.SHELL, execute("x = '" + "y" * 11 * 1024 * 1024 + "'"))
        await until(lambda: listener.gaps)
        assert "10 MB" in listener.gaps[0]
        assert "1 request(s)" in listener.gaps[0]
        await run(kernel, listener, "1")


async def test_a_kernel_that_is_gone_after_the_cut_is_dead(server, client):
    async with through_proxy(server) as (proxy, _, kernel, listener):
        proxy.refuses = True
        proxy.cut()
        await client.shutdown(kernel.kernel_id)
        proxy.refuses = False
        await until(lambda: kernel.state is KernelState.DEAD)
        assert listener.states[-1][0] is KernelState.DEAD
        assert "gone" in listener.states[-1][1]
        kernel.send(Channel.SHELL, execute("1"))
        with pytest.raises(KernelNotFoundError):
            await kernel.restart()


async def test_a_kernel_that_somebody_else_ended_is_noticed(client):
    model = await client.start_kernel("python3")
    kernel = await WebsocketKernel.connect(client, model.id, watch_interval=0.1)
    listener = Listener()
    kernel.listen(listener)
    try:
        await client.shutdown(model.id)
        await until(lambda: kernel.state is KernelState.DEAD)
        assert [state for state, _ in listener.states] == [KernelState.DEAD]
    finally:
        await kernel.close()


async def test_a_404_of_a_proxy_is_no_death(server):
    """The port forwarding of a codespace answers 404 while the codespace stops and starts."""
    async with through_proxy(server) as (proxy, _, kernel, listener):
        await run(kernel, listener, "x = 1")
        proxy.answer = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
        proxy.cut()
        await until(lambda: proxy.answered >= 3)
        proxy.answer = b""
        await until(lambda: kernel.state is KernelState.ALIVE)
        assert (await run(kernel, listener, "x")).content_dict()["status"] == "ok"
        assert KernelState.DEAD not in [state for state, _ in listener.states]


async def test_close_leaves_no_task(client):
    before = asyncio.all_tasks()
    async with kernel_of(client) as kernel:
        kernel.send(Channel.SHELL, execute("1"))
    await until(lambda: asyncio.all_tasks() <= before)


async def test_interrupt_of_a_kernel_that_somebody_else_ended(kernel, listener, client):
    await client.shutdown(kernel.kernel_id)
    with pytest.raises(KernelNotFoundError):
        await kernel.interrupt()
    assert listener.states[-1][0] is KernelState.DEAD
    await kernel.shutdown()


async def test_a_server_that_is_away_refuses_an_interrupt_as_a_kernel_error(server):
    async with through_proxy(server) as (proxy, _, kernel, _):
        proxy.refuses = True
        proxy.cut()
        with pytest.raises(KernelError, match="cannot be reached"):
            await kernel.interrupt()
        proxy.refuses = False


async def test_interrupt_and_restart(kernel, listener):
    kernel.send(Channel.SHELL, execute("import time; print('up', flush=True); time.sleep(60)"))
    await until(lambda: "up\n" in output(listener))
    await kernel.interrupt()
    await until(lambda: replies(listener))
    assert replies(listener)[0].content_dict()["ename"] == "KeyboardInterrupt"
    await run(kernel, listener, "x = 1")
    await kernel.restart()
    assert (await run(kernel, listener, "x")).content_dict()["ename"] == "NameError"
    assert [state for state, _ in listener.states] == [KernelState.RESTARTING, KernelState.ALIVE]
    # The probes of a restart are nobody's business.
    assert all(m.parent_dict().get("username") != "codespace-kernels" for _, m in listener.messages)


async def test_the_rate_limit_of_a_stock_server_loses_output_but_not_idle(kernel, listener):
    # The limit is 1 MB a second, which the slowest machine exceeds with this.
    await run(kernel, listener, "for i in range(100): print('x' * 1_000_000, flush=True)")
    shown = output(listener)
    assert 1_000_000 <= shown.count("x") < 100_000_000
    assert "rate exceeded" in shown


async def test_a_server_without_rate_limit_sends_everything(legacy_server):
    client = ServerClient(legacy_server.url)
    try:
        async with kernel_of(client) as kernel:
            listener = Listener()
            kernel.listen(listener)
            await run(kernel, listener, "for i in range(20000): print(i)")
            await until(lambda: output(listener).endswith("19999\n"))
            assert output(listener) == "".join(f"{i}\n" for i in range(20000))
    finally:
        await client.close()


async def test_a_kernel_that_its_server_cannot_restart_is_dead(tmp_path):
    # The kernel destroys what its server would start again.
    spec = tmp_path / "kernels" / "fragile"
    spec.mkdir(parents=True)
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o700)
    argv = [str(program), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Fragile", "language": "python"}))
    with running(tmp_path / "server", JUPYTER_PATH=str(tmp_path)) as server:
        client = ServerClient(server.url)
        model = await client.start_kernel("fragile")
        kernel = await WebsocketKernel.connect(client, model.id)
        listener = Listener()
        kernel.listen(listener)
        try:
            broken = f"import os, pathlib; pathlib.Path({str(program)!r}).unlink(); os._exit(1)"
            kernel.send(Channel.SHELL, execute(broken))
            await until(lambda: listener.states)
            assert kernel.state in (KernelState.RESTARTING, KernelState.DEAD)
            with pytest.raises(KernelError):
                await kernel.restart()
            assert kernel.state is KernelState.DEAD
        finally:
            await kernel.close()
            await client.close()


async def test_closing_lets_the_kernel_live_and_another_session_go_on(client):
    model = await client.start_kernel("python3")
    try:
        first = await WebsocketKernel.connect(client, model.id)
        await first.close()
        await first.close()
        second = await WebsocketKernel.connect(client, model.id, session_id=first.session_id)
        listener = Listener()
        second.listen(listener)
        assert (await run(second, listener, "1")).content_dict()["status"] == "ok"
        await second.close()
    finally:
        await client.shutdown(model.id)
