"""What a broker makes of another process at the other end, which knows nothing of what was there before."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from codespace_kernels.link import commands, frames
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.session import MessageReceived, Session
from codespace_kernels.messages import Signer
from tests.remote.recorder import Recorder, make

KEY = {"key": "k", "signature_scheme": "hmac-sha256"}


class Successor:
    """A process that carries messages, and the stream to it; with each answer to a command comes a kernel's output."""

    def __init__(self, *outputs: str) -> None:
        self._outputs = outputs
        self._session: Session | None = None
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self, max_bytes: int = 262144) -> bytes:
        return await self._out.get()

    async def write(self, data: bytes) -> None:
        if self._session is None:
            (hello, *_) = frames.FrameDecoder().feed(data)
            self._session = Session(hello.session)
            self._session.attach()
        for event in self._session.receive_data(data, time.monotonic()):
            if isinstance(event, MessageReceived) and event.kernel == commands.KERNEL:
                self._answer(self._session, commands.decode(event.parts)[0])
        if data := self._session.data_to_send(time.monotonic()):
            self._out.put_nowait(data)

    def close(self) -> None:
        self._out.put_nowait(b"")

    def _answer(self, session: Session, request: dict[str, Any]) -> None:
        if "number" in request:
            session.send(commands.KERNEL, commands.CHANNEL, commands.encode({"id": request["id"], "ok": KEY}))
            for text in self._outputs:
                message = make("stream", {"name": "stdout", "text": text}, (b"stream",))
                session.send(request["number"], 2, Signer(b"k").pack(message))


class InOrder(Recorder):
    """Notes a gap between the messages."""

    def output_may_be_missing(self, reason: str) -> None:
        super().output_may_be_missing(reason)
        self.messages.append((None, reason))


@pytest.fixture
async def client() -> AsyncIterator[LinkClient]:
    client = LinkClient()
    yield client
    await client.close()


async def test_a_gap_is_told_before_anything_that_comes_after_it(client: LinkClient) -> None:
    """The end of a cell that comes along with the kernel would else leave nobody to tell it to."""
    first = Successor("before")
    await client.attach(first)
    recorder = InOrder(await client.attach_kernel("kernel"))
    await recorder.until(lambda: recorder.messages)
    first.close()
    await client.wait_detached()
    await client.attach(Successor("after 1", "after 2"))
    await recorder.until(lambda: len(recorder.messages) == 4)
    said = [what if channel is None else json.loads(what.content)["text"] for channel, what in recorder.messages]
    assert [*said[:1], *said[2:]] == ["before", "after 1", "after 2"]
    assert "was replaced" in said[1]
