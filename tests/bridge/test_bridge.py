"""What the bridge itself promises, with a kernel of whose every message the test knows."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading

import psutil
import pytest
import zmq
from jupyter_client.session import Session

from codespace_kernels.bridge import KernelBridge, Ports
from codespace_kernels.errors import KernelError, SettingsError
from codespace_kernels.messages import DELIMITER, Channel
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.conftest import KEY, connect, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message
from tests.ports import free_ports


def flood(count: int):
    """Answer each execute_request with numbered lines."""

    def answer(kernel: MemoryKernel, channel: Channel, request) -> None:
        kernel.status("busy", request)
        for number in range(count):
            content = {"name": "stdout", "text": f"{number}\n"}
            kernel.emit(Channel.IOPUB, make_message("stream", request.header, content=content))
        kernel.emit(channel, make_message("execute_reply", request.header, request.identities, {"status": "ok"}))
        kernel.status("idle", request)

    return answer


async def test_burst_of_20000_messages_arrives_complete_and_in_order(bridge):
    bridge.attach(MemoryKernel(flood(20_000)))
    async with subscribed(bridge) as client:
        client.execute("flood")
        lines = []
        while True:
            message = await client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream":
                lines.append(int(message["content"]["text"]))
            elif message["content"].get("execution_state") == "idle":
                break
        assert lines == list(range(20_000))


async def test_a_client_that_reads_late_misses_nothing(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    context = zmq.Context()
    late = context.socket(zmq.SUB)
    late.linger = 0
    # Fills its own queue at once, then the network's buffers: the rest must wait in the bridge.
    late.rcvhwm = 1
    late.subscribe(b"t")
    late.connect(f"tcp://127.0.0.1:{bridge.connection_info['iopub_port']}")

    def read() -> None:
        for number in range(10_000):
            assert late.poll(60_000)
            assert f'"{number:05}x'.encode() in late.recv_multipart()[6]

    try:
        await until(lambda: late.poll(0))
        late.recv_multipart()
        for number in range(10_000):
            content = {"name": "stdout", "text": f"{number:05}" + "x" * 4000}
            kernel.emit(Channel.IOPUB, make_message("stream", identities=(b"t",), content=content))
        await asyncio.to_thread(read)
    finally:
        late.close()
        context.term()


async def test_a_request_that_arrives_while_the_bridge_sends_is_seen(bridge):
    """Sending on a ZMQ socket may swallow the event that announces what has arrived on it."""
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        identity = client.session.bsession
        for number in range(1, 11):
            client.execute("1")
            # The request reaches the bridge's socket while its loop does something else, then sends.
            threading.Event().wait(0.02)
            for _ in range(3):
                kernel.emit(Channel.SHELL, make_message("execute_reply", b"{}", (identity,)))
            await until(lambda number=number: len(kernel.received) == number)


async def test_wrong_signature_is_dropped_counted_and_logged_once(bridge, caplog):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    stranger = connect(bridge, key="another key")
    stranger.start_channels(hb=False)
    try:
        for _ in range(3):
            stranger.execute("1")
        await until(lambda: bridge.stats.wrong_signature == 3)
    finally:
        stranger.stop_channels()
    assert kernel.received == []
    assert bridge.stats.dropped == 3
    assert caplog.text.count("signature is wrong") == 1
    assert KEY.decode() not in caplog.text


async def test_a_message_that_comes_twice_is_taken_once(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        frames = client.session.serialize(client.session.msg("execute_request", {"code": "pay()"}))
        for _ in range(2):
            client.shell_channel.socket.send_multipart(frames)
        await until(lambda: bridge.stats.duplicates == 1)
        assert len(kernel.received) == 1


async def test_a_message_of_the_kernel_is_never_delivered_twice(bridge):
    """A jupyter_client session raises at a signature that it knows."""
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        message = make_message("stream", content={"name": "stdout", "text": "once"})
        for _ in range(2):
            kernel.emit(Channel.IOPUB, message)
        kernel.emit(Channel.IOPUB, make_message("stream", content={"name": "stdout", "text": "next"}))
        texts = [(await client.get_iopub_msg(timeout=60))["content"]["text"] for _ in range(2)]
        assert texts == ["once", "next"]
        assert bridge.stats.duplicates == 1


GARBAGE = [
    [b""],
    [b"no delimiter", b"at all"],
    [DELIMITER],
    [DELIMITER, b"", b"{}", b"{}"],
    [DELIMITER, DELIMITER, b"\xff" * 64, b"{}", b"{}", b"{}", b"{}"],
]


@pytest.mark.parametrize("channel", ["shell", "control", "stdin", "iopub"])
async def test_garbage_frames_end_nothing(bridge, channel):
    kernel = MemoryKernel(flood(1))
    bridge.attach(kernel)
    context = zmq.Context()
    bad = context.socket(zmq.XSUB if channel == "iopub" else zmq.DEALER)
    bad.linger = 0
    bad.connect(f"tcp://127.0.0.1:{bridge.connection_info[channel + '_port']}")
    try:
        for frames in GARBAGE:
            bad.send_multipart(frames)
        if channel != "iopub":
            await until(lambda: bridge.stats.dropped == len(GARBAGE))
        async with subscribed(bridge) as client:
            client.execute("1")
            assert (await client.get_shell_msg(timeout=60))["content"]["status"] == "ok"
    finally:
        bad.close()
        context.term()


async def test_a_signed_message_whose_header_is_no_json_is_dropped(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        documents = [b"not json", b"{}", b"{}", b"{}"]
        frames = [DELIMITER, client.session.sign(documents), *documents]
        client.shell_channel.socket.send_multipart(frames)
        await until(lambda: bridge.stats.malformed == 1)
        assert kernel.received == []


async def test_bytes_that_are_not_zmq_end_nothing(bridge):
    bridge.attach(MemoryKernel(flood(1)))
    for port in (bridge.connection_info[f"{name}_port"] for name in Ports._fields):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\n\r\n")
        # VS Code's probe: connect and close.
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    async with subscribed(bridge) as client:
        client.execute("1")
        assert (await client.get_shell_msg(timeout=60))["content"]["status"] == "ok"


async def test_given_ports_are_used_and_free_after_close():
    ports = Ports(*free_ports(5))
    for _ in range(3):
        bridge = await KernelBridge.bind(key=KEY, ports=ports)
        assert Ports.from_connection_info(bridge.connection_info) == ports
        async with subscribed(bridge):
            await bridge.close()
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


async def test_a_taken_port_is_named_and_nothing_stays_bound():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        free = free_ports(4)
        with pytest.raises(SettingsError, match=f"Port {taken} .*control channel.*taken"):
            await KernelBridge.bind(key=KEY, ports=Ports(*free[:3], taken, free[3]))
    bridge = await KernelBridge.bind(key=KEY, ports=Ports(*free[:3], taken, free[3]))
    await bridge.close()


async def test_an_address_that_is_not_ours_is_a_clear_error():
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        await KernelBridge.bind(key=KEY, ip="192.0.2.1")


@pytest.mark.parametrize("kwargs", [{"key": b"k", "signature_scheme": "hmac-rot13"}, {"key": b"\xff"}])
async def test_a_key_or_scheme_that_cannot_be_used_is_a_clear_error(kwargs):
    with pytest.raises(SettingsError):
        await KernelBridge.bind(**kwargs)


@pytest.mark.parametrize("value", [None, "9000", 0, 70000])
def test_connection_file_without_a_usable_port(value):
    info = {f"{name}_port": 9000 for name in Ports._fields}
    with pytest.raises(SettingsError, match="stdin_port"):
        Ports.from_connection_info({**info, "stdin_port": value})


async def test_close_leaves_no_descriptor_and_no_thread(bridge):
    process = psutil.Process()

    async def once() -> None:
        other = await KernelBridge.bind(key=KEY)
        other.attach(MemoryKernel(flood(1)))
        async with subscribed(other) as client:
            await client.execute_interactive("1", timeout=60, output_hook=lambda m: None)
        client.context.destroy(linger=0)
        await other.close()
        await other.close()

    await once()
    before = process.num_fds(), process.num_threads()
    for _ in range(5):
        await once()
    await until(lambda: (process.num_fds(), process.num_threads()) <= before)


async def test_heartbeat_is_answered_while_a_kernel_floods(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    context = zmq.Context()
    beat = context.socket(zmq.REQ)
    beat.linger = 0
    beat.connect(f"tcp://127.0.0.1:{bridge.connection_info['hb_port']}")

    def count() -> None:
        for number in range(20):
            beat.send(b"%d" % number)
            assert beat.poll(60_000)
            assert beat.recv() == b"%d" % number

    try:
        async with subscribed(bridge):
            counting = asyncio.create_task(asyncio.to_thread(count))
            emitted = 0
            while not counting.done():
                # As much as a link hands over in a turn.
                for _ in range(50):
                    kernel.emit(Channel.IOPUB, make_message("stream", content={"name": "stdout", "text": "x" * 1000}))
                emitted += 50
                await asyncio.sleep(0)
            await counting
            assert emitted > 1000
    finally:
        beat.close()
        context.term()


async def test_identities_come_back_with_the_reply(bridge):
    kernel = MemoryKernel(flood(0))
    bridge.attach(kernel)
    async with subscribed(bridge) as one, subscribed(bridge) as two:
        for client in (one, two):
            client.execute("1")
            assert (await client.get_shell_msg(timeout=60))["content"]["status"] == "ok"
        identities = {message.identities for _, message in kernel.received}
        assert identities == {(one.session.bsession,), (two.session.bsession,)}


async def test_a_client_that_comes_back_with_its_identity_takes_over(bridge):
    """A Jupyter server reconnects with the same identity before its old connection is known to be dead."""
    kernel = MemoryKernel(flood(0))
    bridge.attach(kernel)
    context = zmq.Context()
    sockets = [context.socket(zmq.DEALER) for _ in range(2)]
    session = Session(key=KEY)
    try:
        for number, one in enumerate(sockets, 1):
            one.linger = 0
            one.identity = b"the same"
            one.connect(f"tcp://127.0.0.1:{bridge.connection_info['shell_port']}")
            session.send(one, "execute_request", {"code": "1"})
            await until(lambda number=number: len(kernel.received) == number)
            await until(lambda one=one: one.poll(0))
            one.recv_multipart()
    finally:
        for one in sockets:
            one.close()
        context.term()


async def test_a_reply_to_a_client_that_is_gone_harms_nobody(bridge):
    kernel = MemoryKernel(flood(0))
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        kernel.emit(Channel.SHELL, make_message("execute_reply", b"{}", (b"nobody",), {"status": "ok"}))
        kernel.emit(Channel.SHELL, make_message("execute_reply", b"{}", (client.session.bsession,), {"status": "ok"}))
        assert (await client.get_shell_msg(timeout=60))["content"]["status"] == "ok"


async def test_topic_frame_reaches_a_subscriber_of_that_topic_only(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    context = zmq.Context()
    subscriber = context.socket(zmq.SUB)
    subscriber.linger = 0
    subscriber.subscribe(b"wanted")
    subscriber.connect(f"tcp://127.0.0.1:{bridge.connection_info['iopub_port']}")
    session = Session(key=KEY)

    def next_message() -> tuple[list[bytes], dict]:
        identities, frames = session.feed_identities(subscriber.recv_multipart())
        return identities, session.deserialize(frames)

    try:
        await until(lambda: subscriber.poll(0))
        identities, welcome = next_message()
        assert (identities, welcome["msg_type"]) == ([b"wanted"], "iopub_welcome")
        kernel.emit(Channel.IOPUB, make_message("stream", identities=(b"other",)))
        kernel.emit(Channel.IOPUB, make_message("display_data", identities=(b"wanted.one",)))
        await until(lambda: subscriber.poll(0))
        identities, message = next_message()
        assert (identities, message["msg_type"]) == ([b"wanted.one"], "display_data")
    finally:
        subscriber.close()
        context.term()


async def control_request(client, kind: str, content: dict, channel: str = "control") -> tuple[dict, list[str]]:
    """Send a request; give its reply and the iopub messages that it is the parent of."""
    request = client.session.msg(kind, content)
    client.session.send(getattr(client, f"{channel}_channel").socket, request)
    reply = await getattr(client, f"get_{channel}_msg")(timeout=60)
    assert reply["parent_header"]["msg_id"] == request["header"]["msg_id"]
    published = []
    while published[-1:] != ["idle"]:
        message = await client.get_iopub_msg(timeout=60)
        assert message["parent_header"]["msg_id"] == request["header"]["msg_id"]
        published.append(message["content"].get("execution_state", message["msg_type"]))
    return reply, published


@pytest.mark.parametrize("channel", ["control", "shell"])
async def test_interrupt_is_answered_on_the_channel_it_came_on(bridge, channel):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        reply, published = await control_request(client, "interrupt_request", {}, channel)
        assert (reply["msg_type"], reply["content"]) == ("interrupt_reply", {"status": "ok"})
        assert published == ["busy", "idle"]
        assert kernel.interrupts == 1
        assert kernel.received == []


async def test_interrupt_that_fails_says_why(bridge):
    kernel = MemoryKernel()
    kernel.interrupt_error = KernelError("The kernel ended.")
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        reply, published = await control_request(client, "interrupt_request", {})
        assert reply["content"]["status"] == "error"
        assert (reply["content"]["ename"], reply["content"]["evalue"]) == ("KernelError", "The kernel ended.")
        assert published == ["busy", "idle"]


async def test_interrupt_without_a_kernel_is_answered_at_once(bridge):
    async with subscribed(bridge) as client:
        reply, _ = await control_request(client, "interrupt_request", {})
        assert reply["content"]["status"] == "error"
        assert bridge.stats.queued_requests == 0


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("channel", ["control", "shell"])
async def test_shutdown_is_answered_and_passed_to_the_owner(bridge, owner, restart, channel):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        reply, published = await control_request(client, "shutdown_request", {"restart": restart}, channel)
        assert reply["content"] == {"status": "ok", "restart": restart}
        assert published == ["busy", "shutdown_reply", "idle"]
    assert owner.shutdowns == [restart]
    assert kernel.received == []


@pytest.mark.parametrize("state", ["restarting", "dead"])
async def test_a_servers_own_status_messages_do_not_reach_clients(bridge, state):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        kernel.emit(Channel.IOPUB, make_message("status", content={"execution_state": state}))
        kernel.emit(Channel.IOPUB, make_message("status", content={"execution_state": "idle"}))
        assert (await client.get_iopub_msg(timeout=60))["content"] == {"execution_state": "idle"}


async def test_states_are_told_to_the_owner(bridge, owner):
    kernel = MemoryKernel(flood(0))
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        client.execute("1")
        await client.get_shell_msg(timeout=60)
        assert owner.execution_states == ["busy", "idle"]
        for state in (KernelState.RECONNECTING, KernelState.ALIVE, KernelState.RESTARTING, KernelState.ALIVE):
            kernel.change(state, "why")
        assert owner.execution_states == ["busy", "idle", "starting"]
        assert [state for state, _ in owner.kernel_states][:2] == [KernelState.RECONNECTING, KernelState.ALIVE]
        assert owner.kernel_states[0][1] == "why"
        assert not await client.iopub_channel.msg_ready() or (await client.get_iopub_msg())["msg_type"] == "status"


async def test_a_request_on_control_that_ends_leaves_the_cell_running(bridge, owner):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    cell, debugger = make_message("execute_request"), make_message("debug_request")
    for state, request in (("busy", cell), ("busy", debugger), ("idle", debugger)):
        kernel.status(state, request)
    assert bridge.stats.execution_state == "busy"
    kernel.status("idle", cell)
    assert owner.execution_states == ["busy", "idle"]


@pytest.mark.parametrize(
    ("asked", "works"),
    [("execute_request", True), ("comm_msg", True), ("usage_request", False), ("kernel_info_request", False)],
)
async def test_what_front_ends_ask_by_themselves_is_no_work(bridge, asked, works):
    """A page that is left open asks a kernel for its memory, say, all night: that must keep no codespace awake."""
    kernel = MemoryKernel()
    bridge.attach(kernel)
    request = make_message(asked)
    kernel.status("busy", request)
    assert (bridge.stats.execution_state, bridge.at_work) == ("busy", works)
    kernel.status("idle", request)
    assert not bridge.at_work


@pytest.mark.parametrize("running", [True, False])
async def test_a_gap_is_told_in_the_cell(bridge, running):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        msg_id = client.execute("long()")
        await until(lambda: kernel.received)
        if running:
            kernel.status("busy", kernel.received[0][1])
        kernel.listener.output_may_be_missing("The link broke.")
        while (message := await client.get_iopub_msg(timeout=60))["msg_type"] != "stream":
            pass
        assert message["parent_header"]["msg_id"] == msg_id
        assert message["content"]["name"] == "stderr"
        assert "The link broke." in message["content"]["text"]
        assert bridge.stats.gaps == 1


async def test_a_lost_idle_is_made_up_for_after_the_reply():
    bridge = await KernelBridge.bind(key=KEY, idle_grace=0.2)
    kernel = MemoryKernel()
    bridge.attach(kernel)
    try:
        async with subscribed(bridge) as client:
            client.execute("print()")
            await until(lambda: kernel.received)
            request = kernel.received[0][1]
            kernel.change(KernelState.RECONNECTING)
            kernel.status("busy", request)
            kernel.emit(Channel.SHELL, make_message("execute_reply", request.header, request.identities))
            assert (await client.get_iopub_msg(timeout=60))["content"] == {"execution_state": "busy"}
            await asyncio.sleep(0.5)
            # Nothing is known while the way to the kernel is broken.
            assert bridge.stats.execution_state == "busy"
            kernel.change(KernelState.ALIVE)
            told = await client.get_iopub_msg(timeout=60)
            assert "Output may be missing" in told["content"]["text"]
            idle = await client.get_iopub_msg(timeout=60)
            assert idle["content"] == {"execution_state": "idle"}
            assert idle["parent_header"]["msg_id"] == request.header_dict()["msg_id"]
            assert (bridge.stats.execution_state, bridge.stats.gaps) == ("idle", 1)
    finally:
        await bridge.close()


async def test_no_idle_is_made_up_while_a_large_message_comes():
    """A reply overtakes what was published before it, and on a slow line that may take minutes."""
    bridge = await KernelBridge.bind(key=KEY, idle_grace=0.05)
    kernel = MemoryKernel()
    bridge.attach(kernel)
    try:
        async with subscribed(bridge) as client:
            client.execute("display()")
            await until(lambda: kernel.received)
            request = kernel.received[0][1]
            kernel.status("busy", request)
            kernel.is_receiving = True
            kernel.emit(Channel.SHELL, make_message("execute_reply", request.header, request.identities))
            await asyncio.sleep(0.3)
            assert (bridge.stats.execution_state, bridge.stats.gaps) == ("busy", 0)
            kernel.is_receiving = False
            await until(lambda: bridge.stats.execution_state == "idle")
            assert bridge.stats.gaps == 1
    finally:
        await bridge.close()


async def test_a_cell_that_was_answered_and_never_began_is_told_and_ended():
    bridge = await KernelBridge.bind(key=KEY, idle_grace=0.2)
    kernel = MemoryKernel()
    bridge.attach(kernel)
    try:
        async with subscribed(bridge) as client:
            client.complete("x")
            msg_id = client.execute("print()")
            await until(lambda: len(kernel.received) == 2)
            for _, request in kernel.received:
                kind = request.header_dict()["msg_type"].replace("request", "reply")
                kernel.emit(Channel.SHELL, make_message(kind, request.header, request.identities))
            messages = [await client.get_iopub_msg(timeout=60) for _ in range(2)]
            assert [message["msg_type"] for message in messages] == ["stream", "status"]
            assert {message["parent_header"]["msg_id"] for message in messages} == {msg_id}
    finally:
        await bridge.close()


async def test_nothing_is_made_up_for_a_request_without_a_reply():
    bridge = await KernelBridge.bind(key=KEY, idle_grace=0.05)
    kernel = MemoryKernel()
    bridge.attach(kernel)
    try:
        kernel.status("busy", make_message("execute_request"))
        await asyncio.sleep(0.3)
        assert bridge.stats.execution_state == "busy"
    finally:
        await bridge.close()


async def test_nan_of_a_kernel_becomes_json(bridge):
    """VS Code never reads a channel again after a document that JSON.parse refuses."""
    kernel = MemoryKernel()
    bridge.attach(kernel)
    context = zmq.Context()
    subscriber = context.socket(zmq.SUB)
    subscriber.linger = 0
    subscriber.subscribe(b"t")
    subscriber.connect(f"tcp://127.0.0.1:{bridge.connection_info['iopub_port']}")
    try:
        await until(lambda: subscriber.poll(0))
        subscriber.recv_multipart()
        loose = b'{"a": NaN, "b": [1,-Infinity], "text": "x: NaN", "c": "\\u00e9"}'
        kernel.emit(Channel.IOPUB, make_message("display_data", identities=(b"t",))._replace(content=loose))
        await until(lambda: subscriber.poll(0))
        content = subscriber.recv_multipart()[6]

        def refuse(word: str) -> None:
            raise AssertionError(word)

        value = json.loads(content, parse_constant=refuse)
        assert value == {"a": None, "b": [1, None], "text": "x: NaN", "c": "é"}
    finally:
        subscriber.close()
        context.term()


async def test_requests_of_a_full_queue_are_dropped_and_counted(bridge, caplog):
    async with subscribed(bridge) as client:
        # Not on the loop: the client's own queue is full after a thousand.
        await asyncio.to_thread(lambda: [client.execute(str(number)) for number in range(10_050)])
        await until(lambda: bridge.stats.overflowed == 50)
        assert bridge.stats.queued_requests == 10_000
        assert bridge.stats.pending_requests == 10_000
        assert caplog.text.count("is full") == 1
        kernel = MemoryKernel()
        bridge.attach(kernel)
        codes = [message.content_dict()["code"] for _, message in kernel.received]
        assert codes == [str(number) for number in range(10_000)]


async def test_detached_requests_wait_for_the_next_kernel(bridge):
    first, second = MemoryKernel(), MemoryKernel(flood(0))
    bridge.attach(first)
    async with subscribed(bridge) as client:
        bridge.detach()
        bridge.detach()
        assert first.listener is None
        client.execute("1")
        await until(lambda: bridge.stats.queued_requests == 1)
        bridge.attach(second)
        assert (await client.get_shell_msg(timeout=60))["content"]["status"] == "ok"
        assert first.received == []


async def test_a_flood_on_shell_does_not_hold_up_control(bridge):
    kernel = MemoryKernel()
    async with subscribed(bridge) as client:
        for _ in range(5000):
            client.execute("1")
        client.session.send(client.control_channel.socket, client.session.msg("debug_request", {}))
        # Let the I/O threads bring everything before the loop reads any of it.
        threading.Event().wait(0.5)
        bridge.attach(kernel)
        await until(lambda: any(channel is Channel.CONTROL for channel, _ in kernel.received))
        assert len(kernel.received) < 1000


async def test_a_client_with_a_large_message_is_served(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    data = os.urandom(20_000_000)
    async with subscribed(bridge) as client:
        message = client.session.msg("comm_msg", {"comm_id": "c", "data": {}})
        client.session.send(client.shell_channel.socket, message, buffers=[data])
        await until(lambda: kernel.received)
        assert bytes(kernel.received[0][1].buffers[0]) == data
        kernel.emit(Channel.IOPUB, make_message("comm_msg", buffers=(data, b"tail")))
        answer = await client.get_iopub_msg(timeout=60)
        assert [bytes(buffer) for buffer in answer["buffers"]] == [data, b"tail"]


async def test_nothing_shows_the_key(bridge):
    assert KEY.decode() not in repr(bridge) + str(bridge.stats.to_json())
