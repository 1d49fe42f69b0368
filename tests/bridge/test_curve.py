"""CurveZMQ on a kernel's ports, with clients of jupyter_client and of libzmq."""

from __future__ import annotations

import os

import pytest
import zmq
import zmq.asyncio

from codespace_kernels.bridge import KernelBridge
from codespace_kernels.bridge.sockets import LocalSockets
from codespace_kernels.messages import Channel
from codespace_kernels.zmtp.curve import CurveKeys
from tests.bridge.conftest import KEY, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message


@pytest.fixture
async def bridge():
    bridge = await KernelBridge.bind(key=KEY, curve=CurveKeys.generate())
    yield bridge
    await bridge.close()


async def test_a_client_with_the_connection_file_is_served_on_every_channel(bridge):
    def answer(kernel: MemoryKernel, channel: Channel, request) -> None:
        if request.header_dict()["msg_type"] == "execute_request":
            kernel.emit(Channel.STDIN, make_message("input_request", request.header, request.identities))
        kernel.emit(channel, make_message("execute_reply", request.header, request.identities, {"status": "ok"}))

    kernel = MemoryKernel(answer)
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        client.execute("1")
        assert (await client.get_shell_msg(timeout=60))["content"]["status"] == "ok"
        assert (await client.get_stdin_msg(timeout=60))["msg_type"] == "input_request"
        client.session.send(client.control_channel.socket, client.session.msg("debug_request", {}))
        assert (await client.get_control_msg(timeout=60))["content"]["status"] == "ok"
        data = os.urandom(5_000_000)
        kernel.emit(Channel.IOPUB, make_message("display_data", buffers=(data, b"", b"tail")))
        while (message := await client.get_iopub_msg(timeout=60))["msg_type"] != "display_data":
            pass
        assert [bytes(buffer) for buffer in message["buffers"]] == [data, b"", b"tail"]
        client.hb_channel.start()
        await until(client.hb_channel.is_beating)


async def test_who_lacks_the_keys_is_turned_away(bridge, caplog):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    info = bridge.connection_info
    public, secret = CurveKeys.generate().to_text()
    others = [{"curve_publickey": ""}, {"curve_publickey": public, "curve_secretkey": secret}]
    context = zmq.Context()
    try:
        for changed in others:
            keys = {**info, **changed}
            stranger = context.socket(zmq.DEALER)
            stranger.linger = 0
            if keys["curve_publickey"]:
                stranger.curve_publickey = stranger.curve_serverkey = keys["curve_publickey"].encode()
                stranger.curve_secretkey = keys["curve_secretkey"].encode()
            stranger.connect(f"tcp://127.0.0.1:{info['shell_port']}")
            stranger.send(b"hello")
        # The plain one turns away by itself when it is greeted.
        await until(lambda: "not made with this kernel's key" in caplog.text)
    finally:
        context.destroy(linger=0)
    assert bridge.stats.dropped == 0
    assert info["curve_secretkey"] not in caplog.text
    assert info["curve_publickey"] not in caplog.text
    async with subscribed(bridge) as client:
        client.execute("1")
        await until(lambda: kernel.received)


async def test_subscriptions_come_and_go_and_pings_are_answered():
    keys = CurveKeys.generate()
    topics: list[bytes] = []
    sockets = LocalSockets("127.0.0.1", None, keys)
    sockets.start(lambda _channel, _frames: True, topics.append)
    context = zmq.asyncio.Context()
    sub = context.socket(zmq.SUB)
    sub.curve_publickey, sub.curve_secretkey = zmq.curve_keypair()
    sub.curve_serverkey = keys.to_text()[0].encode()
    sub.rcvhwm = 1
    sub.heartbeat_ivl, sub.heartbeat_timeout = 20, 10_000
    monitor = sub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        for topic in (b"", b"other"):
            sub.subscribe(topic)
        sub.connect(f"tcp://127.0.0.1:{sockets.ports.iopub}")
        await until(lambda: sorted(topics) == [b"", b"other"])
        sub.unsubscribe(b"")
        await until(lambda: list(sockets._publisher._prefixes.values()) == [(b"other",)])
        assert not await monitor.poll(200)
        done = []
        for number in range(40):
            sockets.send(Channel.IOPUB, [b"other", b"%d" % number, bytes(500_000)], lambda: done.append(1))
        assert sockets.waiting
        for number in range(40):
            assert (await sub.recv_multipart())[1] == b"%d" % number
        await until(lambda: len(done) == 40)
        assert not sockets.waiting
    finally:
        context.destroy(linger=0)
        sockets.close()
