"""A `RemoteKernel` without a process: tests say what it sends, and look at what it got."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

from codespace_kernels.messages import Channel, Message
from codespace_kernels.remote_kernel import KernelState, RemoteKernelListener

_numbers = itertools.count()


def make_message(msg_type: str, parent: bytes = b"{}", identities=(b"topic",), content=None, buffers=()) -> Message:
    header = {"msg_id": f"k{next(_numbers)}", "msg_type": msg_type, "session": "kernel", "username": "k",
              "date": "2026-01-01T00:00:00Z", "version": "5.4"}  # fmt: skip
    encoded = json.dumps(content or {}).encode()
    return Message(tuple(identities), json.dumps(header).encode(), parent, b"{}", encoded, tuple(buffers))


class MemoryKernel:
    kernel_id = "memory"

    def __init__(self, answer: Callable[[MemoryKernel, Channel, Message], None] | None = None) -> None:
        self.received: list[tuple[Channel, Message]] = []
        self.interrupts = 0
        self.interrupt_error: Exception | None = None
        self.listener: RemoteKernelListener | None = None
        self.is_receiving = False
        self._answer = answer

    def listen(self, listener: RemoteKernelListener | None) -> None:
        self.listener = listener

    def send(self, channel: Channel, message: Message) -> None:
        self.received.append((channel, message))
        if self._answer is not None:
            self._answer(self, channel, message)

    def emit(self, channel: Channel, message: Message) -> None:
        assert self.listener is not None
        self.listener.message_received(channel, message)

    def status(self, state: str, request: Message) -> None:
        self.emit(Channel.IOPUB, make_message("status", request.header, content={"execution_state": state}))

    def change(self, state: KernelState, reason: str = "") -> None:
        assert self.listener is not None
        self.listener.state_changed(state, reason)

    async def interrupt(self) -> None:
        self.interrupts += 1
        if self.interrupt_error is not None:
            raise self.interrupt_error

    async def restart(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def close(self) -> None: ...
