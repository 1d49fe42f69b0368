"""A kernel of a Jupyter server that is not ours, over the standard websocket."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import random
import uuid
from typing import TYPE_CHECKING

from codespace_kernels.errors import (
    AuthError,
    CodespaceKernelsError,
    KernelError,
    KernelNotFoundError,
    RemoteServerError,
    WaitTimeoutError,
)
from codespace_kernels.jupyter.channel_socket import ChannelSocket
from codespace_kernels.jupyter.mailbox import Mailbox
from codespace_kernels.jupyter.probe import Probe
from codespace_kernels.jupyter.routes import Routes
from codespace_kernels.messages import Channel, MalformedMessageError, Message
from codespace_kernels.remote_kernel import KernelState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codespace_kernels.jupyter.rest import ServerClient
    from codespace_kernels.remote_kernel import RemoteKernelListener

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 15.0
_READY_SECONDS = 30.0
_PROBE_SECONDS = 0.5
_PROBES_PER_CONNECTION = 10
_STOCK_LIMIT = 10 * 1024 * 1024
"""Bytes; tornado's `websocket_max_message_size`. A larger request ends the connection."""


class WebsocketKernel:
    """One kernel of a foreign server; a `RemoteKernel`, made by `connect`.

    Its promise is weaker than the link's, since the protocol has neither numbers nor acknowledgements:

    - A message is sent at most once. What was written just before a connection broke may be lost; it is not sent again,
      because running a cell twice is worse. What was not written yet is sent after the reconnect.
    - The server keeps messages for a reconnect only when it saw the old connection close and no other client was
      connected. In all other cases `output_may_be_missing` is called.
    - The server drops output above its rate limits (1000 messages or 1 MB of text a second) and says so in the cell.
    - Requests above 10 MiB end the connection of a server with stock settings.
    - A kernel that was ended by somebody else is noticed within 15 seconds.
    """

    def __init__(
        self, client: ServerClient, kernel_id: str, session_id: str, socket: ChannelSocket, watch_interval: float
    ) -> None:
        self._client = client
        self._kernel_id = kernel_id
        self._session_id = session_id
        self._socket = socket
        self._watch_interval = watch_interval
        self._state = KernelState.ALIVE
        self._reason = ""
        self._ended = False
        self._mailbox = Mailbox()
        self._outbox: collections.deque[tuple[Channel, Message, str]] = collections.deque()
        self._outbox_filled = asyncio.Event()
        self._routes = Routes()
        self._probe = Probe()
        loop = asyncio.get_running_loop()
        self._tasks = {loop.create_task(self._carry()), loop.create_task(self._watch())}

    @classmethod
    async def connect(
        cls, client: ServerClient, kernel_id: str, *, session_id: str = "", watch_interval: float = 15.0
    ) -> WebsocketKernel:
        """Connect to a running kernel.

        Args:
            client: The server.
            kernel_id: Its id there.
            session_id: That of an earlier connection, to be given what the server kept for it; empty for a new one.
            watch_interval: Seconds between looks whether somebody else ended the kernel.

        Raises:
            KernelNotFoundError: The server has no such kernel.
            AuthError: The credentials are refused.
            RemoteServerError: The server cannot be reached.
            WaitTimeoutError: No answer in time.
        """
        session_id = session_id or uuid.uuid4().hex
        socket = await ChannelSocket.open(client, kernel_id, session_id)
        return cls(client, kernel_id, session_id, socket, watch_interval)

    def __repr__(self) -> str:
        return f"<WebsocketKernel {self._kernel_id} at {self._client.base_url} {self._state.value}>"

    @property
    def kernel_id(self) -> str:
        """Its id at the server."""
        return self._kernel_id

    @property
    def session_id(self) -> str:
        """The same over all reconnects; whoever connects with it later is given what the server kept."""
        return self._session_id

    @property
    def state(self) -> KernelState:
        """What is known of the kernel."""
        return self._state

    @property
    def is_receiving(self) -> bool:
        """See `RemoteKernel`; a websocket gives whole messages only."""
        return False

    def listen(self, listener: RemoteKernelListener | None) -> None:
        """Set who hears of this kernel; see `RemoteKernel`."""
        self._mailbox.listen(listener)

    def send(self, channel: Channel, message: Message) -> None:
        """Queue a message; sent at most once, see the class. What is sent to a dead kernel is dropped."""
        if self._state is KernelState.DEAD:
            _log.debug("dropped a message to the dead kernel %s", self._kernel_id)
            return
        try:
            # An answer to input() has no answer of its own.
            msg_id = "" if channel is Channel.STDIN else self._routes.add(message)
        except MalformedMessageError as error:
            _log.warning("dropped a message to kernel %s: %s", self._kernel_id, error)
            return
        self._enqueue(channel, message, msg_id)

    async def interrupt(self) -> None:
        """Interrupt the kernel; see `RemoteKernel`."""
        with self._as_kernel_errors():
            await self._client.interrupt(self._kernel_id)

    async def restart(self) -> None:
        """Replace the kernel's process; see `RemoteKernel`."""
        self._change(KernelState.RESTARTING, "")
        self._routes.clear()
        try:
            with self._as_kernel_errors():
                await self._client.restart(self._kernel_id)
        except KernelNotFoundError:
            raise
        except KernelError as error:
            self._change(KernelState.DEAD, str(error))
            raise
        try:
            await asyncio.wait_for(asyncio.shield(self._start_probing()), _READY_SECONDS)
        except TimeoutError:
            raise WaitTimeoutError.after("the restarted kernel to answer", _READY_SECONDS) from None

    async def shutdown(self) -> None:
        """End the kernel; see `RemoteKernel`."""
        with self._as_kernel_errors():
            await self._client.shutdown(self._kernel_id)
        self._gone("")

    async def close(self) -> None:
        """Let go of the kernel without ending it. Closing twice is no error."""
        self._mailbox.close()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._socket.close()

    # The connection.

    async def _carry(self) -> None:
        try:
            while not self._ended:
                await self._serve()
                self._change(
                    KernelState.RECONNECTING, "The connection to the Jupyter server was lost; connecting again."
                )
                await self._reconnect()
        except Exception:
            # Nobody waits for this task: without a word the notebook would hang.
            _log.exception("kernel %s can no longer be reached", self._kernel_id)
            self._gone("The connection to the kernel failed inside codespace-kernels; its log says more.")

    async def _serve(self) -> None:
        """Carry messages until the connection ends."""
        writer = asyncio.get_running_loop().create_task(self._write(self._socket))
        try:
            while True:
                self._received(*await self._socket.receive())
        except ConnectionError as error:
            _log.info("websocket of kernel %s ended: %s", self._kernel_id, error)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, socket: ChannelSocket) -> None:
        while True:
            await self._outbox_filled.wait()
            while self._outbox:
                if not socket.is_open:
                    return
                channel, message, msg_id = self._outbox.popleft()
                self._routes.sent(msg_id)
                await socket.send(channel, message)
            self._outbox_filled.clear()

    def _enqueue(self, channel: Channel, message: Message, msg_id: str = "") -> None:
        self._outbox.append((channel, message, msg_id))
        self._outbox_filled.set()

    async def _reconnect(self) -> None:
        """Connect again under the same session id, for as long as it takes, unless the kernel is gone."""
        for pause in _pauses():
            if self._ended:
                return
            await asyncio.sleep(pause)
            try:
                kept = await self._server_keeps_messages()
                socket = await ChannelSocket.open(self._client, self._kernel_id, self._session_id)
            except KernelNotFoundError as error:
                self._gone(str(error))
                return
            except CodespaceKernelsError as error:
                self._change(KernelState.RECONNECTING, str(error))
                continue
            break
        gap = self._gap(kept)
        self._socket = socket
        self._change(KernelState.ALIVE, "")
        if gap:
            self._mailbox.output_may_be_missing(gap)

    async def _server_keeps_messages(self) -> bool:
        """Whether the server saw the old connection close, and no other client kept it from storing messages."""
        connections = 0
        for _ in range(5):
            connections = (await self._client.kernel(self._kernel_id)).connections
            if connections == 0 or not self._socket.closed_cleanly:
                break
            # The server counts our old connection for a moment after its goodbye.
            await asyncio.sleep(0.1)
        return self._socket.closed_cleanly and connections == 0

    def _gap(self, kept: bool) -> str:
        """Say what may be lost, for a person; empty for nothing."""
        sentences = []
        if not kept:
            sentences.append(
                "The connection to the Jupyter server broke, and the server may have kept nothing meanwhile."
            )
        if unseen := self._routes.unseen():
            sentences.append(
                f"{unseen} request(s) sent just before may not have arrived: run them again if nothing happens."
            )
        if self._socket.largest_sent > _STOCK_LIMIT:
            megabytes = self._socket.largest_sent / 1024 / 1024
            sentences.append(
                f"A request had {megabytes:.0f} MB; servers take 10 MB unless they are configured otherwise."
            )
        return " ".join(sentences)

    # What comes from the server.

    def _received(self, channel: Channel, message: Message) -> None:
        if self._probe.takes(channel, message):
            return
        try:
            routed = self._published(message) if channel is Channel.IOPUB else self._answered(channel, message)
        except MalformedMessageError as error:
            _log.warning("dropped a message of kernel %s: %s", self._kernel_id, error)
            return
        if routed is not None:
            self._mailbox.message_received(channel, routed)

    def _answered(self, channel: Channel, message: Message) -> Message | None:
        msg_id = str(message.parent_dict().get("msg_id", ""))
        identities = self._routes.find(msg_id) if channel is Channel.STDIN else self._routes.replied(msg_id)
        if identities is None:
            _log.debug("dropped an answer to nobody's request %s", msg_id)
            return None
        return message._replace(identities=identities)

    def _published(self, message: Message) -> Message | None:
        kind = str(message.header_dict().get("msg_type", ""))
        if kind == "status" and not self._is_kernels_status(message):
            return None
        return message._replace(identities=(f"kernel.{self._kernel_id}.{kind}".encode(),))

    def _is_kernels_status(self, message: Message) -> bool:
        """Follow the kernel; false for the two states that only servers tell, see `on_kernel_restarted` there."""
        state = message.content_dict().get("execution_state")
        msg_id = str(message.parent_dict().get("msg_id", ""))
        if state == "restarting":
            self._restarted_by_server()
        elif state == "dead":
            self._died()
        elif state == "idle":
            self._routes.done(msg_id)
        else:
            self._routes.find(msg_id)
        return state not in ("restarting", "dead")

    # The kernel's life.

    def _restarted_by_server(self) -> None:
        self._routes.clear()
        self._change(KernelState.RESTARTING, "The kernel died, and its server restarts it; its variables are lost.")
        self._start_probing()

    def _start_probing(self) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._until_ready())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _until_ready(self) -> None:
        """Ask until the new process answers on all channels."""
        self._probe.reset()
        for number in itertools.count(1):
            for channel in (Channel.SHELL, Channel.CONTROL):
                self._enqueue(channel, self._probe.request())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._probe.ready.wait(), _PROBE_SECONDS)
                break
            if number % _PROBES_PER_CONNECTION == 0:
                # A kernel restarted on other ports is reached by new connections of its server only.
                await self._socket.close()
        if self._state is KernelState.RESTARTING:
            self._change(KernelState.ALIVE, "")

    async def _watch(self) -> None:
        """Notice a kernel that somebody else ended: the websocket says nothing of it."""
        while not self._ended:
            await asyncio.sleep(self._watch_interval)
            try:
                model = await self._client.kernel(self._kernel_id)
                if model.execution_state == "dead":
                    self._died()
            except KernelNotFoundError as error:
                self._gone(str(error))
            except CodespaceKernelsError as error:
                _log.debug("cannot look at kernel %s: %s", self._kernel_id, error)

    def _died(self) -> None:
        self._routes.clear()
        self._change(KernelState.DEAD, "The kernel died, and its server could not restart it.")

    def _gone(self, reason: str) -> None:
        """Note that the server has no such kernel any more; nothing can bring it back."""
        self._ended = True
        self._routes.clear()
        self._outbox.clear()
        self._change(KernelState.DEAD, reason)

    def _change(self, state: KernelState, reason: str) -> None:
        revives = state is KernelState.RESTARTING
        if (self._state, self._reason) == (state, reason) or (self._state is KernelState.DEAD and not revives):
            return
        self._state, self._reason = state, reason
        self._mailbox.state_changed(state, reason)

    @contextlib.contextmanager
    def _as_kernel_errors(self) -> Iterator[None]:
        try:
            yield
        except KernelNotFoundError as error:
            self._gone(str(error))
            raise
        except (AuthError, RemoteServerError) as error:
            raise KernelError(str(error)) from None


def _pauses() -> Iterator[float]:
    """Give seconds to wait before each attempt: at once, then longer and longer, a little at random."""
    yield 0.0
    pause = 0.25
    while True:
        yield pause * random.uniform(0.8, 1.2)  # noqa: S311  (spreads clients, hides nothing)
        pause = min(2 * pause, _LONGEST_PAUSE)
