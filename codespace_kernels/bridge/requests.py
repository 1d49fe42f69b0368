"""What becomes of a client's request before it reaches the kernel: answered here, or kept until there is a kernel."""

from __future__ import annotations

import asyncio
import collections
import logging
from typing import TYPE_CHECKING, Any, Protocol

from codespace_kernels.errors import CodespaceKernelsError, KernelError
from codespace_kernels.messages import Channel, MalformedMessageError, Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from codespace_kernels.bridge.local_messages import LocalMessages

_log = logging.getLogger(__name__)

MAX_QUEUED_MESSAGES = 10_000
MAX_QUEUED_BYTES = 256 * 1024 * 1024


class RequestHandler(Protocol):
    """Sees every message of local clients before it is passed on."""

    def handle(self, channel: Channel, request: Message, msg_type: str) -> bool:
        """Take the message; false lets the next handler, and at last the kernel, have it."""


class RequestQueue:
    """Keeps messages in the order they came, over all channels, while no kernel is attached.

    At most `MAX_QUEUED_MESSAGES` and `MAX_QUEUED_BYTES`; what comes beyond is dropped, counted and logged once.

    Attributes:
        overflowed: How many messages were dropped.
        changed: Called when a message was taken or given.
    """

    def __init__(self) -> None:
        self._messages: collections.deque[tuple[Channel, Message]] = collections.deque()
        self._size = 0
        self.overflowed = 0
        self.changed: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, channel: Channel, message: Message) -> bool:
        """Keep a message; false where the queue is full and the message was dropped."""
        size = _size(message)
        if len(self._messages) >= MAX_QUEUED_MESSAGES or self._size + size > MAX_QUEUED_BYTES:
            if not self.overflowed:
                _log.warning(
                    "the queue for a kernel that is not there yet is full (%d messages, %d bytes), newer ones are lost",
                    len(self._messages),
                    self._size,
                )
            self.overflowed += 1
            return False
        self._messages.append((channel, message))
        self._size += size
        self.changed()
        return True

    def __iter__(self) -> Iterator[tuple[Channel, Message]]:
        return iter(list(self._messages))

    def take_all(self) -> Iterator[tuple[Channel, Message]]:
        """Give and forget the messages, oldest first."""
        while self._messages:
            channel, message = self._messages.popleft()
            self._size -= _size(message)
            self.changed()
            yield channel, message

    def take(self, msg_ids: Collection[str]) -> list[tuple[Channel, Message]]:
        """Give and forget the requests of these ids, oldest first; the others stay in their order."""
        taken = []
        for channel, message in list(self.take_all()):
            if message.header_dict().get("msg_id") in msg_ids:
                taken.append((channel, message))
            else:
                self.put(channel, message)
        return taken


def _size(message: Message) -> int:
    return sum(map(len, message[1:5])) + sum(map(len, message.buffers))


class LifecycleRequests:
    """Answers `interrupt_request` and `shutdown_request`, on control and, as old clients have it, on shell.

    The server in the workspace owns the kernel's process: only it can interrupt a kernel that hears signals alone, and
    a kernel that ended itself on a raw `shutdown_request` would be restarted by it.

    Args:
        messages: Makes the answers.
        send: Sends a message to local clients.
        interrupt: Interrupts the kernel, however the carrier does that.
        shutdown_requested: Told the `restart` flag of a `shutdown_request` and the session that sent it, once its
            reply was sent.
    """

    def __init__(
        self,
        messages: LocalMessages,
        send: Callable[[Channel, Message], None],
        interrupt: Callable[[], Awaitable[None]],
        shutdown_requested: Callable[[bool, str], None],
    ) -> None:
        self._messages = messages
        self._send = send
        self._interrupt = interrupt
        self._shutdown_requested = shutdown_requested
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, channel: Channel, request: Message, msg_type: str) -> bool:
        """Answer the two lifecycle requests; see `RequestHandler`."""
        if channel is Channel.STDIN or msg_type not in ("interrupt_request", "shutdown_request"):
            return False
        if msg_type == "interrupt_request":
            task = asyncio.get_running_loop().create_task(self._answer_interrupt(channel, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._answer_shutdown(channel, request)
        return True

    async def close(self) -> None:
        """Give up interrupts that are under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer_interrupt(self, channel: Channel, request: Message) -> None:
        self._status("busy", request)
        try:
            await self._interrupt()
        except CodespaceKernelsError as error:
            _log.warning("interrupt failed: %s", error)
            content: dict[str, Any] = {"status": "error", "ename": type(error).__name__, "evalue": str(error)}
            content["traceback"] = []
        else:
            content = {"status": "ok"}
        self._send(channel, self._messages.reply(request, "interrupt_request", content))
        # VS Code waits for the reply and for this.
        self._status("idle", request)

    def _answer_shutdown(self, channel: Channel, request: Message) -> None:
        content = {"status": "ok", "restart": _restart_flag(request)}
        self._status("busy", request)
        self._send(channel, self._messages.reply(request, "shutdown_request", content))
        # Tells the kernel's other clients, as ipykernel does.
        self._send(Channel.IOPUB, self._messages.published("shutdown_reply", request.header, content))
        self._status("idle", request)
        self._shutdown_requested(bool(content["restart"]), str(request.header_dict().get("session", "")))

    def _status(self, state: str, request: Message) -> None:
        self._send(Channel.IOPUB, self._messages.status(state, request.header))


def _restart_flag(request: Message) -> bool:
    try:
        return bool(request.content_dict().get("restart", False))
    except MalformedMessageError:
        return False


def no_kernel() -> KernelError:
    """Make the error of an interrupt that has nothing to interrupt."""
    return KernelError("There is no kernel to interrupt yet: it is still being started.")
