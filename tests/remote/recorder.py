"""A listener that keeps what it hears, and requests as a Jupyter client makes them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from codespace_kernels.link.kernel import LinkKernel
from codespace_kernels.messages import Channel, Message
from codespace_kernels.remote_kernel import KernelState, no_receipt


class Recorder:
    """Hears of one kernel."""

    def __init__(self, kernel: LinkKernel) -> None:
        self.kernel = kernel
        self.messages: list[tuple[Channel, Message]] = []
        self.states: list[tuple[KernelState, str]] = []
        self.gaps: list[str] = []
        self._by_request: dict[str, list[tuple[Channel, Message]]] = defaultdict(list)
        self._changed = asyncio.Event()
        kernel.listen(self)

    def message_received(self, channel: Channel, message: Message, done: Callable[[], None] = no_receipt) -> None:
        self.messages.append((channel, message))
        self._by_request[message.parent_dict().get("msg_id", "")].append((channel, message))
        self._changed.set()

    def state_changed(self, state: KernelState, reason: str) -> None:
        self.states.append((state, reason))
        self._changed.set()

    def output_may_be_missing(self, reason: str) -> None:
        self.gaps.append(reason)
        self._changed.set()

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until `condition` gives something true, and give it."""
        async with asyncio.timeout(seconds):
            while not (result := condition()):
                self._changed.clear()
                await self._changed.wait()
        return result

    def of_request(self, request: Message, channel: Channel | None = None) -> list[Message]:
        """The messages that answer a request."""
        found = self._by_request[request.header_dict()["msg_id"]]
        return [message for c, message in found if channel in (None, c)]

    def is_idle(self, request: Message) -> bool:
        found = self._by_request[request.header_dict()["msg_id"]]
        last = next((message for channel, message in reversed(found) if channel is Channel.IOPUB), None)
        return last is not None and last.content_dict().get("execution_state") == "idle"

    def text(self, request: Message) -> str:
        """What a request printed."""
        found = [m for m in self.of_request(request, Channel.IOPUB) if m.header_dict()["msg_type"] == "stream"]
        return "".join(m.content_dict()["text"] for m in found if m.content_dict()["name"] == "stdout")

    async def state(self, wanted: KernelState, seconds: float = 60.0) -> str:
        """Wait for a state; give its reason."""
        await self.until(lambda: wanted in [state for state, _ in self.states], seconds)
        return [reason for state, reason in self.states if state is wanted][-1]

    def request(self, code: str, identities: tuple[bytes, ...] = (b"client",), **content: Any) -> Message:
        """Send an execute request."""
        message = execute(code, identities, **content)
        self.kernel.send(Channel.SHELL, message)
        return message

    async def run(self, code: str, seconds: float = 60.0) -> Message:
        """Execute, wait for reply and idle; give the request."""
        request = self.request(code)
        await self.until(lambda: self.of_request(request, Channel.SHELL) and self.is_idle(request), seconds)
        return request


def make(msg_type: str, content: dict[str, Any], identities: tuple[bytes, ...] = (b"client",)) -> Message:
    """Make a message."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "session": "tests",
        "username": "",
        "date": "2026-01-01T00:00:00.000000Z",
        "version": "5.3",
    }
    return Message(identities, json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode())


def execute(code: str, identities: tuple[bytes, ...] = (b"client",), **content: Any) -> Message:
    """Make an execute request."""
    fixed = {"silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True, "stop_on_error": True}
    return make("execute_request", {"code": code, **fixed, **content}, identities)
