"""The broker's end of the link: one session to one workspace, carried by one stream after the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import statistics
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels import __version__
from codespace_kernels.errors import (
    CodespaceKernelsError,
    LinkError,
    WaitTimeoutError,
    error_from_json,
)
from codespace_kernels.link import commands, frames
from codespace_kernels.link.carrier import StreamCarrier
from codespace_kernels.link.durable import DurableSession
from codespace_kernels.link.kernel import LinkKernel
from codespace_kernels.link.kernelspecs import read_kernelspecs
from codespace_kernels.link.session import ClosedByPeer, Connected, MessageReceived, PongReceived, Session
from codespace_kernels.remote_kernel import KernelState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from codespace_kernels.connection import Stream
    from codespace_kernels.remote_kernel import RemoteKernelSpec, Token

log = logging.getLogger(__name__)

ROUND_TRIPS = 5
"""Measurements of which the median is told."""

UNKNOWN_NUMBERS = 1000
"""How many kernels another process may have opened in this session since it wrote down which ones it had."""

_HARMLESS = frozenset({"start", "attach", "shutdown", "kernels", "kernelspecs", "server_info", "shutdown_server"})
"""Commands that may be done twice, so that they may be sent to the successor of a child whose server is an old one."""


_MALFORMED = (AttributeError, KeyError, TypeError, ValueError, StopIteration)
"""What reading JSON raises that is not as it should be."""


class _Pending(NamedTuple):
    request: dict[str, Any]
    answer: asyncio.Future[tuple[dict[str, Any], list[bytes]]]


class _Delivery:
    """Says, when it is called, that a message is where it belongs."""

    __slots__ = ("_delivered", "_message", "_session")

    def __init__(
        self, delivered: Callable[[MessageReceived], None], message: MessageReceived, session: Session
    ) -> None:
        self._delivered = delivered
        self._message = message
        self._session = session

    def __call__(self) -> None:
        self._delivered(self._message)

    @property
    def token(self) -> Token | None:
        """See `remote_kernel.Token`."""
        token: Token | None = self._session.token(self._message)
        return token


class LinkClient:
    """A session with the server extension of one workspace; all its kernels and commands.

    It lives from the first `attach` to `close`, over any number of streams. While it has none, messages and commands
    wait; who owns the connection makes a new one and calls `attach` again, and nothing is lost or doubled.

    Args:
        session: That it goes on with; by default a new one that goes with this process.
        on_detached: Called with a sentence for a person each time an attached stream is lost (not by `close`, and not
            when `attach` itself fails).
        command_timeout: Seconds that a command may take, the wait for a stream included.
        ping_interval: Seconds between questions for a sign of life while nothing is outstanding.
        busy_ping_interval: The same while something is unacknowledged, unanswered or running.
        silence_limit: Seconds without any byte from the workspace after which the stream is given up, counted only
            while an answer to something is due.

    Attributes:
        is_running: Tells whether something runs in a kernel, so that a dead stream must be found soon.
    """

    def __init__(
        self,
        *,
        session: Session | None = None,
        on_detached: Callable[[str], None] | None = None,
        command_timeout: float = 90.0,
        ping_interval: float = 15.0,
        busy_ping_interval: float = 2.0,
        silence_limit: float = 6.0,
    ) -> None:
        self.is_running: Callable[[], bool] = lambda: False
        self._on_detached = on_detached
        self._command_timeout = command_timeout
        self._intervals = (ping_interval, busy_ping_interval, silence_limit)
        self._session = session or Session(secrets.token_hex(16), software=__version__)
        self._is_restored = self._unproven = isinstance(session, DurableSession) and session.is_restored
        self._strays: set[int] = set()
        self._carrier: StreamCarrier | None = None
        self._connected = asyncio.Event()
        self._detached = asyncio.Event()
        self._detached.set()
        self._reason = "The broker was started anew." if self._unproven else "The link was not attached yet."
        self._kernels: dict[int, LinkKernel] = {}
        # Above all that another process may have opened in this session.
        self._last_number = UNKNOWN_NUMBERS if self._is_restored else 0
        self._pending: dict[int, _Pending] = {}
        # Above all that another process has used in this session: the server remembers what it answered.
        self._last_id = time.time_ns() // 1_000_000
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._heard_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- the stream ---------------------------------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether a stream carries the link now."""
        return self._carrier is not None and self._connected.is_set()

    @property
    def rtt(self) -> float | None:
        """Seconds to the workspace and back, median of the last pings; None before the first answer over a stream.

        A ping is sent at least every `ping_interval` seconds. It passes the messages that wait to be sent, not those
        that are on their way, so that a single one may be late by a large message.
        """
        return statistics.median(self._round_trips) if self._round_trips else None

    @property
    def heard_at(self) -> float | None:
        """Unix time of the last answer to a ping; None before the first one."""
        return self._heard_at

    @property
    def kept_bytes(self) -> int:
        """Bytes that wait here: sent but not acknowledged, or not sent."""
        return self._session.kept_bytes + self._session.queued_bytes

    def greeting(self) -> bytes:
        """Give what `attach` will write first; of a session that was never attached, and only until it is."""
        self._session.attach()
        greeting = self._session.data_to_send(time.monotonic())
        self._session.detach()
        return greeting

    async def attach(self, stream: Stream, *, timeout: float = 20.0) -> None:
        """Carry the link over this stream from now on; an earlier one is closed.

        Args:
            stream: From `RemoteServer.open_link`.
            timeout: Seconds for the workspace's hello.

        Raises:
            LinkError: The link was closed, the stream ended, or the other end does not speak this protocol.
            WaitTimeoutError: No hello in time.
        """
        if self._closed:
            stream.close()
            raise LinkError("The link to the workspace was closed.")
        if self._carrier is not None:
            self._carrier.stop()
        self._connected.clear()
        self._detached.clear()
        self._round_trips.clear()
        self._session.attach()
        carrier = self._carrier = StreamCarrier(stream, self._session, self._take, self._lost, self._intervals)
        carrier.start(lambda: bool(self._pending) or self.is_running())
        await self._wait_for_hello(carrier, timeout)

    async def _wait_for_hello(self, carrier: StreamCarrier, timeout: float) -> None:
        waits = [asyncio.ensure_future(self._connected.wait()), asyncio.ensure_future(self._detached.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._carrier is not carrier:
            raise LinkError(f"The link to the workspace was not established: {self._reason}")
        if not self._connected.is_set():
            self._lost(carrier, "The workspace did not answer.")
            raise WaitTimeoutError.after("the link process in the workspace to answer", timeout)

    def probe(self, limit: float) -> None:
        """Find out now whether the stream is alive: without a sign of life within so many seconds it is given up."""
        if self._carrier is not None and self._connected.is_set():
            self._carrier.probe(limit)

    async def wait_detached(self) -> str:
        """Wait until no stream carries the link; give the reason, a sentence for a person."""
        await self._detached.wait()
        return self._reason

    def _lost(self, carrier: StreamCarrier, reason: str) -> None:
        if carrier is not self._carrier:
            return
        carrier.stop()
        self._carrier = None
        self._round_trips.clear()
        self._session.detach()
        was_connected = self._connected.is_set()
        self._connected.clear()
        self._reason = reason
        self._detached.set()
        for kernel in list(self._kernels.values()):
            kernel.link_lost(reason)
        if carrier.broken and self._unproven:
            self._renew()
        if self._on_detached is not None and was_connected and not self._closed:
            self._on_detached(reason)

    def _renew(self) -> None:
        """Begin another session: what was restored does not fit its peer, for want of what a power cut took."""
        log.warning("a link that was restored does not fit the other end; it begins anew")
        old, self._unproven = self._session, False
        self._session = old.renewed() if isinstance(old, DurableSession) else old
        self._begin_anew(frames.MIN_MINOR)

    def begin_anew(self) -> None:
        """Open the kernels that were restored again: their session is another one."""
        self._begin_anew(frames.MIN_MINOR)

    def forget(self) -> None:
        """End a session that was restored and that nobody needs; the workspace forgets it in time."""
        self._closed = True
        self._session.close()

    async def leave(self) -> None:
        """Let go of the stream and of this process's part in the session; another process goes on with it."""
        self._closed = True
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            await carrier.finish(1.0)
        if isinstance(self._session, DurableSession):
            self._session.leave()
        await self._end("The broker hands its kernels over.")

    async def close(self) -> None:
        """End the session for good; kernels go on running. Closing twice is no error."""
        if self._closed:
            return
        self._closed = True
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            self._session.say_bye("closed")
            await carrier.finish(2.0)
        self._session.close()
        await self._end("The link to the workspace was closed.")

    async def _end(self, reason: str) -> None:
        self._reason = reason
        self._detached.set()
        self._fail_commands(self._reason)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- events -------------------------------------------------------------------------------------------------------

    def _take(self, event: Any) -> None:
        if isinstance(event, MessageReceived):
            self._unproven = False
            if event.kernel == commands.KERNEL:
                self._take_command(event.parts)
                self._delivered(event)
            elif event.kernel in self._kernels:
                done = _Delivery(self._delivered, event, self._session)
                self._kernels[event.kernel].message_received(event.channel, event.parts, done)
            else:
                self._delivered(event)
                self._close_stray(event.kernel)
        elif isinstance(event, PongReceived):
            self._round_trips.append(event.rtt)
            self._heard_at = time.time()
        elif isinstance(event, Connected):
            self._take_connected(event)
        elif isinstance(event, ClosedByPeer) and self._carrier is not None:
            self._lost(self._carrier, f"The workspace closed the link: {event.reason}")

    def _close_stray(self, number: int) -> None:
        """Close at the other end what the process before this one opened, and died before it wrote that down."""
        if self._is_restored and number not in self._strays:
            self._detach(number)

    def _delivered(self, message: MessageReceived) -> None:
        if not self._closed:
            self._session.delivered(message)
            if self._carrier is not None:
                self._carrier.wake()

    def _take_connected(self, event: Connected) -> None:
        log.debug("link connected, peer %s, %s", event.software, "new" if event.lost else "as before")
        self._connected.set()
        if event.lost:
            self._begin_anew(event.minor)
        else:
            for kernel in list(self._kernels.values()):
                kernel.link_restored()

    def _begin_anew(self, minor: int) -> None:
        """Open everything again at a peer that knows nothing of us; its server knows what it has done for us."""
        for pending in list(self._pending.values()):
            if minor >= frames.REPEATABLE_COMMANDS or pending.request["do"] in _HARMLESS:
                self._send_command(pending.request)
            elif not pending.answer.done():
                text = "The link process in the workspace was replaced; the command may or may not have been done."
                pending.answer.set_exception(LinkError(text))
        for kernel in list(self._kernels.values()):
            kernel.hold()
            self._spawn(self._attach_again(kernel))

    async def _attach_again(self, kernel: LinkKernel) -> None:
        try:
            # Without a limit: while there is no connection, nothing is known of the kernel.
            answer, _ = await self._run("attach", None, kernel_id=kernel.kernel_id, number=kernel.number)
        except LinkError:
            return  # Closed meanwhile.
        except CodespaceKernelsError as error:
            kernel.refused(error)
        else:
            kernel.gap("The process in the workspace that carries its messages was replaced.")
            with contextlib.suppress(LinkError), _understanding("attach"):
                kernel.attached(answer)
        finally:
            kernel.go_on()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_command(self, parts: Sequence[bytes]) -> None:
        try:
            document, raw = commands.decode(parts)
        except frames.ProtocolError as error:
            log.warning("dropped: %s", error)
            return
        if "event" in document:
            self._take_event(document)
            return
        number, ok = document.get("id"), document.get("ok")
        pending = self._pending.pop(number, None) if isinstance(number, int) else None
        if pending is None or pending.answer.done():
            return
        if "error" in document:
            pending.answer.set_exception(error_from_json(document["error"]))
        elif isinstance(ok, dict):
            pending.answer.set_result((ok, raw))
        else:
            pending.answer.set_exception(_not_understood(pending.request["do"]))

    def _take_event(self, event: dict[str, Any]) -> None:
        for kernel in list(self._kernels.values()):
            if kernel.kernel_id == event.get("kernel_id"):
                try:
                    kernel.event_received(event)
                except _MALFORMED as error:
                    log.warning("dropped an event of kernel %s: %r", kernel.kernel_id, error)

    # -- commands -----------------------------------------------------------------------------------------------------

    async def command(self, do: str, *, timeout: float | None = None, **fields: Any) -> dict[str, Any]:
        """Have the server do something, and give its answer. Waits for a stream where there is none.

        Args:
            do: The command.
            timeout: Seconds that it may take, where that is less than `command_timeout`.
            fields: Of the command.

        Raises:
            CodespaceKernelsError: What the server says, as the class that it names; `LinkError` where the link was
                closed or the command's fate is not known.
            WaitTimeoutError: No answer in time.
        """
        limit = self._command_timeout if timeout is None else min(timeout, self._command_timeout)
        answer, _ = await self._run(do, limit, **fields)
        return answer

    async def _run(self, do: str, timeout: float | None, **fields: Any) -> tuple[dict[str, Any], list[bytes]]:
        if self._closed:
            raise LinkError("The link to the workspace was closed.")
        self._last_id += 1
        number = self._last_id
        request = {"id": number, "do": do, **fields}
        answer: asyncio.Future[tuple[dict[str, Any], list[bytes]]] = asyncio.get_running_loop().create_future()
        self._pending[number] = _Pending(request, answer)
        self._send_command(request)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise self._too_late(do, timeout or 0) from None
        finally:
            self._pending.pop(number, None)

    def _too_late(self, do: str, timeout: float) -> WaitTimeoutError:
        if not self.attached:
            return WaitTimeoutError.after(f"the workspace to do {do!r} (no connection: {self._reason})", timeout)
        # The process that carries messages answers pings, else there would be no stream any more.
        return WaitTimeoutError.after(
            f"the workspace's Jupyter server to do {do!r}",
            timeout,
            "The connection works and running cells go on, but that server is stuck or has too much to do. If it stays "
            "so, stop the codespace and start it again.",
        )

    def _send_command(self, request: Mapping[str, Any]) -> None:
        self.send(commands.KERNEL, commands.CHANNEL, commands.encode(dict(request)))

    def _fail_commands(self, reason: str) -> None:
        for pending in list(self._pending.values()):
            if not pending.answer.done():
                pending.answer.set_exception(LinkError(reason))

    def send(self, number: int, channel: int, parts: Sequence[bytes]) -> None:
        """Queue a raw message for a kernel of this link.

        Raises:
            ValueError: It is larger than the link carries.
        """
        self._session.send(number, channel, parts)
        if self._carrier is not None:
            self._carrier.wake()

    def is_receiving(self, number: int) -> bool:
        """Tell whether a message of a kernel has begun to come and is not whole yet."""
        return self._session.is_receiving(number)

    # -- what the server offers ---------------------------------------------------------------------------------------

    async def kernelspecs(self) -> dict[str, RemoteKernelSpec]:
        """Give the workspace's kernelspecs by name. Raises as `command`."""
        answer = await self._run("kernelspecs", self._command_timeout)
        with _understanding("kernelspecs"):
            return read_kernelspecs(*answer)

    async def kernels(self) -> list[dict[str, Any]]:
        """Give the models of all kernels of the server, as its REST has them. Raises as `command`."""
        answer = await self.command("kernels")
        with _understanding("kernels"):
            return [dict(model) for model in answer["kernels"]]

    async def server_info(self) -> dict[str, Any]:
        """Give versions, process ids, `port`, `base_url` and `token` of the server. Raises as `command`."""
        return await self.command("server_info")

    async def shutdown_server(self) -> None:
        """End the server and with it all kernels of the workspace. Raises as `command`."""
        await self.command("shutdown_server")

    async def start_kernel(
        self,
        name: str,
        *,
        kernel_id: str | None = None,
        cwd: str = "",
        folder: str = "",
        env: Mapping[str, str] | None = None,
    ) -> LinkKernel:
        """Start a kernel and open its channels, in one round trip.

        Args:
            name: Of the kernelspec.
            kernel_id: Its id; a new one where None. A kernel that has it already is taken as it is, so that a repeated
                start does no harm.
            cwd: Folder in the workspace, absolute, `~/…` or relative to the server's folder.
            folder: Wished for where no `cwd` is given, relative to the server's folder; that is taken if it is missing.
            env: Variables on top of the server's.

        Raises:
            KernelNotFoundError: The workspace has no such kernelspec.
            KernelStartError: The process did not start.
            LinkError: The link was closed.
            WaitTimeoutError: No answer in time.
        """
        kernel = self._make_kernel(kernel_id or str(uuid.uuid4()))
        await self._open(kernel, "start", name=name, cwd=cwd, folder=folder, env=dict(env or {}))
        return kernel

    async def attach_kernel(self, kernel_id: str) -> LinkKernel:
        """Open the channels of a kernel that runs already.

        Raises:
            KernelNotFoundError: There is none with this id.
            LinkError: The link was closed.
            WaitTimeoutError: No answer in time.
        """
        kernel = self._make_kernel(kernel_id)
        await self._open(kernel, "attach")
        return kernel

    def restore_kernel(self, number: int, kernel_id: str, signing: Mapping[str, str]) -> LinkKernel:
        """Go on with a kernel that another process has opened in this session.

        Raises:
            ValueError: It cannot have signed so.
        """
        kernel = LinkKernel(self, number, kernel_id, KernelState.RECONNECTING)
        kernel.restored(signing)
        self._last_number = max(self._last_number, number + UNKNOWN_NUMBERS)
        self._kernels[number] = kernel
        if isinstance(self._session, DurableSession) and number in self._session.gaps:
            kernel.gap("The broker died while the front end read slowly.")
        return kernel

    @property
    def session_id(self) -> str:
        """Id of the session; its journal bears this name."""
        return self._session.session_id

    def _make_kernel(self, kernel_id: str) -> LinkKernel:
        self._last_number += 1
        return LinkKernel(self, self._last_number, kernel_id)

    async def _open(self, kernel: LinkKernel, do: str, **fields: Any) -> None:
        # Known before the answer: the kernel's first messages come right behind it.
        self._kernels[kernel.number] = kernel
        try:
            answer = await self.command(do, kernel_id=kernel.kernel_id, number=kernel.number, **fields)
            with _understanding(do):
                kernel.attached(answer)
        except BaseException:
            self.release(kernel)
            raise

    def release(self, kernel: LinkKernel) -> None:
        """Close a kernel's channels at the other end; the kernel goes on."""
        if self._kernels.pop(kernel.number, None) is None or self._closed:
            return
        if isinstance(self._session, DurableSession):
            self._session.forget_kernel(kernel.number)
        else:
            self._session.discard(kernel.number)
        self._detach(kernel.number)

    def _detach(self, number: int) -> None:
        self._strays.add(number)
        with contextlib.suppress(ValueError):
            self._send_command({"do": "detach", "number": number})


def _not_understood(do: str) -> LinkError:
    return LinkError(f"The workspace's answer to {do!r} cannot be understood. Stop the codespace and start it again.")


@contextlib.contextmanager
def _understanding(do: str) -> Iterator[None]:
    """Say of an answer that is not as it should be what it was the answer to."""
    try:
        yield
    except _MALFORMED as error:
        log.warning("the answer to %s cannot be understood: %r", do, error)
        raise _not_understood(do) from None
