"""A front end that reads more slowly than its kernel prints: memory is bounded, and what is missing is said."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator

import pytest
import zmq
import zmq.asyncio

from codespace_kernels.bridge import KernelBridge, backlog
from codespace_kernels.messages import Channel, Message, Signer

KEY = b"key"
REQUEST = b'{"msg_id": "run", "msg_type": "execute_request"}'


@pytest.fixture
async def bridge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KernelBridge]:
    monkeypatch.setattr(backlog, "LIMIT", 8 << 20)
    bridge = await KernelBridge.bind(key=KEY)
    yield bridge
    await bridge.close()


@pytest.fixture
async def front_end(bridge: KernelBridge) -> AsyncIterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.SUB)
    socket.rcvhwm, socket.rcvbuf = 1, 65536
    socket.subscribe(b"")
    socket.connect(f"tcp://127.0.0.1:{bridge.connection_info['iopub_port']}")
    await received(socket)  # its welcome
    yield socket
    socket.close(linger=0)
    context.term()


async def received(socket: zmq.asyncio.Socket) -> Message:
    return Signer(KEY).unpack(await asyncio.wait_for(socket.recv_multipart(), 60))


def publish(bridge: KernelBridge, kind: str, **content: object) -> None:
    header = json.dumps({"msg_id": uuid.uuid4().hex, "msg_type": kind}).encode()
    message = Message((kind.encode(),), header, REQUEST, b"{}", json.dumps(content).encode())
    bridge.message_received(Channel.IOPUB, message)


async def test_the_newest_outputs_are_missing_and_their_cell_says_so(
    bridge: KernelBridge, front_end: zmq.asyncio.Socket
) -> None:
    publish(bridge, "status", execution_state="busy")
    for index in range(1000):
        publish(bridge, "stream", name="stdout", text=f"{index} {'x' * 100_000}")
    assert bridge._sockets.waiting <= (8 << 20) + 200_000
    publish(bridge, "status", execution_state="idle")
    messages = [await received(front_end)]
    while messages[-1].content_dict().get("execution_state") != "idle":
        messages.append(await received(front_end))
    _, *outputs, note, idle = messages
    assert [int(one.content_dict()["text"].split()[0]) for one in outputs] == list(range(len(outputs)))
    assert 60 < len(outputs) < 1000
    assert note.content_dict()["name"] == "stderr"
    assert f"Here {1000 - len(outputs)} messages of output" in note.content_dict()["text"]
    assert note.parent == idle.parent == REQUEST


async def test_a_front_end_that_has_caught_up_misses_nothing_more(
    bridge: KernelBridge, front_end: zmq.asyncio.Socket
) -> None:
    for _ in range(300):
        publish(bridge, "stream", name="stdout", text="x" * 100_000)
    async with asyncio.timeout(60):
        while bridge._sockets.waiting:
            await received(front_end)
    publish(bridge, "stream", name="stdout", text="after")
    while (text := (await received(front_end)).content_dict()["text"]) != "after":
        assert text.startswith(("xxx", "[codespace-kernels] Here"))


async def test_without_a_front_end_nothing_waits(bridge: KernelBridge) -> None:
    for _ in range(300):
        publish(bridge, "stream", name="stdout", text="x" * 100_000)
    assert not bridge._sockets.waiting
    assert not bridge._backlog._gaps
