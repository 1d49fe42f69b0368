"""A workspace that answers nonsense: the command fails with one of our errors, and the next one works."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from codespace_kernels.errors import CodespaceKernelsError, KernelError, LinkError
from codespace_kernels.link import commands, frames
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.session import MessageReceived, Session


class Workspace:
    """The other end of a `LinkClient`: what it says to each command stands in `answers`."""

    def __init__(self, session_id: str) -> None:
        self.session = Session(session_id)
        self.session.attach()
        self.answers: dict[str, bytes | dict[str, Any]] = {}
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        for event in self.session.receive_data(data, time.monotonic()):
            if isinstance(event, MessageReceived) and event.kernel == commands.KERNEL:
                request = json.loads(event.parts[0])
                if "id" not in request:
                    continue
                answer = self.answers.get(request["do"], {"ok": {}})
                said = answer if isinstance(answer, bytes) else json.dumps({"id": request["id"], **answer}).encode()
                self.session.send(0, 0, [said])
        self.flush()

    def flush(self) -> None:
        self._out.put_nowait(self.session.data_to_send(time.monotonic() + 1))

    async def read(self, max_bytes: int = 262144) -> bytes:
        while not (data := await self._out.get()):
            pass
        return data

    def close(self) -> None:
        self._out.put_nowait(b"")


@pytest.fixture
async def workspace():
    client = LinkClient(command_timeout=10.0)
    workspace = Workspace(client._session.session_id)
    await client.attach(workspace)
    workspace.client = client  # type: ignore[attr-defined]
    yield workspace
    await client.close()


@pytest.mark.parametrize(
    "answer", [{}, {"ok": None}, {"ok": {}}, {"ok": {"key": 1, "signature_scheme": "hmac-sha256"}},
               {"ok": {"key": "k", "signature_scheme": "rot13"}}, {"error": None}, {"error": {"type": ["x"]}}],
)  # fmt: skip
async def test_an_answer_that_is_none(workspace: Any, answer: dict[str, Any]) -> None:
    workspace.answers["start"] = answer
    with pytest.raises(CodespaceKernelsError):
        await workspace.client.start_kernel("python3")
    workspace.answers["start"] = {"ok": {"key": "k", "signature_scheme": "hmac-sha256"}}
    await workspace.client.start_kernel("python3")


@pytest.mark.parametrize("specs", [None, 1, {"p": None}, {"p": {"resources": ["logo.png"]}}, {"p": {"resources": 1}}])
async def test_kernelspecs_that_are_none(workspace: Any, specs: object) -> None:
    workspace.answers["kernelspecs"] = {"ok": {"kernelspecs": specs}}
    with pytest.raises(LinkError, match="'kernelspecs' cannot be understood"):
        await workspace.client.kernelspecs()


async def test_kernelspecs_that_are_code(workspace: Any) -> None:
    spec = {"display_name": "P", "language": "python", "metadata": {"kernel_provisioner": 1}, "resources": []}
    offered = dict.fromkeys(("${GH_TOKEN}", "../p", "", "..", "p" * 101, "good.name-1"), spec)
    workspace.answers["kernelspecs"] = {"ok": {"kernelspecs": offered}}
    assert [*await workspace.client.kernelspecs()] == ["good.name-1"]


@pytest.mark.parametrize(
    "bomb", [b'{"id":' * 100_000, b"{}" + b" " * commands.MAX_DOCUMENT, b'{"id":[]}', b'{"event":{}}']
)
async def test_a_bomb_is_dropped(workspace: Any, bomb: bytes) -> None:
    workspace.session.send(0, 0, [bomb])
    workspace.flush()
    workspace.answers["kernels"] = {"error": {"type": "KernelError", "message": "still here"}}
    with pytest.raises(KernelError, match="still here"):
        await workspace.client.kernels()


async def test_an_event_that_is_none_is_dropped(workspace: Any) -> None:
    workspace.answers["start"] = {"ok": {"key": "k", "signature_scheme": "hmac-sha256"}}
    kernel = await workspace.client.start_kernel("python3")
    for event in ({"event": "restarted"}, {"event": "restarted", "key": 1, "signature_scheme": "x"}, {"event": None}):
        workspace.session.send(0, 0, commands.encode({**event, "kernel_id": kernel.kernel_id}))
    workspace.flush()
    await workspace.client.command("interrupt")
    assert kernel.state.value == "alive"


class Flood:
    """A workspace that sends small messages without a pause, and cares for no window: each read has some hundreds."""

    def __init__(self, session_id: str, reads: int) -> None:
        self.session = Session(session_id)
        self.session.attach()
        self.left = reads
        self.number = 0

    async def write(self, data: bytes) -> None:
        self.session.receive_data(data, time.monotonic())

    async def read(self, max_bytes: int = 262144) -> bytes:
        while not self.session.connected:
            if data := self.session.data_to_send(time.monotonic()):
                return data
            await asyncio.sleep(0)
        self.left -= 1
        return b"".join(self.frame() for _ in range(500)) if self.left > 0 else b""

    def frame(self) -> bytes:
        self.number += 1
        body = frames.encode_message([b"id", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"])
        return frames.encode_data_header(self.number, 1, 2, False, len(body)) + body

    def close(self) -> None: ...


async def test_a_workspace_that_floods_leaves_the_loop_to_others(workspace: Any) -> None:
    flooded = LinkClient()
    await flooded.attach(Flood(flooded._session.session_id, 200))
    workspace.answers["kernels"] = {"ok": {"kernels": []}}
    commands_done = 0
    async with asyncio.timeout(60):
        while flooded.attached:
            await workspace.client.kernels()
            commands_done += 1
    assert commands_done > 20
    await flooded.close()
