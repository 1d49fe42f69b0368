"""What the end-to-end tests do with a kernel, through jupyter_client as every front end does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import time
from typing import TYPE_CHECKING, Any

import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session
from traitlets.config import Config

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.process import log_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jupyter_client.asynchronous.client import AsyncKernelClient

WAIT = 60.0


class UnlimitedContext(zmq.asyncio.Context):
    """Sockets without a high-water mark: jupyter_client's own default of 1000 drops messages of a burst."""

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        socket = super().socket(*args, **kwargs)
        socket.hwm = 0
        return socket


@contextlib.asynccontextmanager
async def running_kernel(
    name: str, *, config: dict[str, Any] | None = None, **kwargs: Any
) -> AsyncIterator[tuple[AsyncKernelManager, AsyncKernelClient]]:
    """Start a kernel, with what else is told the kernel manager, and a client of it; end both."""
    manager = AsyncKernelManager(kernel_name=name, context=UnlimitedContext(), config=Config(config or {}))
    await manager.start_kernel(**kwargs)
    try:
        async with connected(manager) as client:
            yield manager, client
    finally:
        await manager.shutdown_kernel(now=True)


@contextlib.asynccontextmanager
async def connected(manager: AsyncKernelManager, **kwargs: Any) -> AsyncIterator[AsyncKernelClient]:
    """Give a client of a running kernel that is ready, made with what else is told it."""
    # A session of its own: clients that share one share a routing identity, and the later one gets no replies.
    client = manager.client(session=Session(key=manager.session.key), **kwargs)
    client.start_channels()
    try:
        try:
            await client.wait_for_ready(timeout=WAIT)
        except RuntimeError as error:
            error.add_note(await asyncio.to_thread(what_the_broker_knows))
            raise
        yield client
    finally:
        client.stop_channels()


def what_the_broker_knows() -> str:
    """Its status and the end of its log: what a kernel that does not answer cannot tell."""
    broker = BrokerClient()
    status = json.dumps(broker.call("GET", "status"), indent=1) if broker.running() else "no broker runs"
    log = log_path()
    return status + "\n" + (log.read_text()[-20_000:] if log.exists() else "")


async def execute(client: AsyncKernelClient, code: str, timeout: float = WAIT, **kwargs: Any) -> list[dict[str, Any]]:
    """Run code; give all iopub messages of it, the closing idle last, after checking that the reply came."""
    msg_id = client.execute(code, **kwargs)
    messages = await until_idle(client, msg_id, timeout)
    reply = await reply_to(client, msg_id, timeout)
    messages.append(reply)
    return messages


async def until_idle(client: AsyncKernelClient, msg_id: str, timeout: float = WAIT) -> list[dict[str, Any]]:
    """Collect the iopub messages of a request up to its idle."""
    messages = []
    deadline = time.monotonic() + timeout
    while True:
        try:
            message = await client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty as error:
            error.add_note(f"of {msg_id}: {messages}\n{await asyncio.to_thread(what_the_broker_knows)}")
            raise
        if message["parent_header"].get("msg_id") != msg_id:
            continue
        messages.append(message)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return messages


async def reply_to(client: AsyncKernelClient, msg_id: str, timeout: float = WAIT) -> dict[str, Any]:
    """Wait for a request's reply on the shell channel."""
    deadline = time.monotonic() + timeout
    while True:
        message = await client.get_shell_msg(timeout=max(0.01, deadline - time.monotonic()))
        if message["parent_header"].get("msg_id") == msg_id:
            return message


def text_of(messages: list[dict[str, Any]]) -> str:
    """Join what was printed."""
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


async def soon(condition: Any, what: str, seconds: float = WAIT) -> Any:
    """Wait for a condition without blocking the loop."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        # Many a condition looks at every process of this machine.
        await asyncio.sleep(0.05)
    return value
