"""Moves bytes between a session and one stream, and notices when the stream is dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from codespace_kernels import __version__
from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.link.session import Failed, PongReceived

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from codespace_kernels.connection import Stream
    from codespace_kernels.link.session import Session

log = logging.getLogger(__name__)


_SLICE = 32 * 1024
_TURN_SECONDS = 0.002
"""A stream that has much hands over so many bytes, or for so long, before others of this loop have their turn."""


_LOOK_SECONDS = 0.5
"""Between looks at whether something is to be asked or an answer is overdue, where the intervals are longer."""

_STALL_SECONDS = 2.0
"""A look that is later than this by so much was held up: this process was stopped, the computer slept or is slow."""

_WATCHFUL_SECONDS = 10.0
"""For so long after a probe it is asked as often as while busy: what came first may have been sent long before."""

_ROUND_TRIPS = 4.0
"""So many times the slowest of the last round trips an answer may take, where that is more than the limit."""

_LONGEST_LIMIT = 30.0


class StreamCarrier:
    """Three tasks around one stream: read, write, ask for signs of life.

    Args:
        stream: Closed by `stop` and `finish`.
        session: Attached to this stream by the caller.
        take: Called with each event of the session but `Failed`.
        lost: Called once with this object and a sentence, when the stream is of no more use; not after `stop`.
        intervals: Seconds between pings while idle, while busy, and of silence that is tolerated once it was asked.

    Attributes:
        broken: Whether one of the ends broke the protocol.
    """

    def __init__(
        self,
        stream: Stream,
        session: Session,
        take: Callable[[Any], None],
        lost: Callable[[StreamCarrier, str], None],
        intervals: tuple[float, float, float],
    ) -> None:
        self._stream = stream
        self._session = session
        self._take = take
        self._lost = lost
        self._idle_interval, self._busy_interval, self._silence_limit = intervals
        self._wake = asyncio.Event()
        self._looks_at = float("-inf")
        self._asked_at: float | None = None
        self._urgent_limit: float | None = None
        self._watchful_until = float("-inf")
        self._probed = asyncio.Event()
        self._heard = asyncio.Event()
        self._round_trips: deque[float] = deque(maxlen=5)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False
        self.broken = False

    def start(self, is_busy: Callable[[], bool]) -> None:
        """Begin; `is_busy` tells whether an answer is waited for beyond what the session knows."""
        self._tasks = [
            asyncio.create_task(self._guard(self._read)),
            asyncio.create_task(self._guard(self._write)),
            asyncio.create_task(self._guard(lambda: self._ask(is_busy))),
        ]

    def wake(self) -> None:
        """Look for something to send, if there is something, or will be before it is looked for anyway."""
        if not self._session.has_to_send:
            deadline = self._session.next_deadline()
            if deadline is None or deadline >= self._looks_at:
                return
        self._wake.set()

    def probe(self, limit: float) -> None:
        """Ask for a sign of life now, and give the stream up if none comes within so many seconds."""
        self._asked_at, self._urgent_limit = None, limit
        self._watchful_until = time.monotonic() + _WATCHFUL_SECONDS
        self._probed.set()

    def stop(self) -> None:
        """End at once and close the stream."""
        self._stopped = True
        self._stream.close()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def finish(self, timeout: float) -> None:
        """Send what the session has to send now, at most `timeout` seconds long, then end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(timeout):
                await self._write_all()
        except (CodespaceKernelsError, TimeoutError, OSError):
            pass  # The other end will notice that the stream ended.
        self.stop()

    async def _guard(self, work: Callable[[], Awaitable[str]]) -> None:
        try:
            reason = await work()
        except CodespaceKernelsError as error:
            reason = str(error)
        except OSError as error:
            reason = f"The stream to the workspace broke: {error}"
        if not self._stopped:
            self._lost(self, reason)

    async def _read(self) -> str:
        turn_ends = time.monotonic() + _TURN_SECONDS
        while True:
            data = await self._stream.read()
            if not data:
                return "The stream to the workspace ended."
            self._asked_at = self._urgent_limit = None
            self._heard.set()
            for start in range(0, len(data), _SLICE):
                failed = self._receive(data[start : start + _SLICE])
                if failed is not None:
                    self.broken = failed.version is None
                    await self._write_all()
                    return _describe(failed)
                if self._stopped:
                    return ""
                # A stream that always has something would leave the loop to nobody else. Between slices only: what the
                # session has taken must be given, also where this task is cancelled.
                if time.monotonic() >= turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = time.monotonic() + _TURN_SECONDS

    def _receive(self, data: bytes) -> Failed | None:
        """Hand on what some bytes bring; give the event after which the stream is of no more use."""
        for event in self._session.receive_data(data, time.monotonic()):
            if isinstance(event, Failed):
                return event
            self._give(event)
            if self._stopped:
                break
        self.wake()
        return None

    def _give(self, event: Any) -> None:
        if isinstance(event, PongReceived):
            self._round_trips.append(event.rtt)
        try:
            self._take(event)
        except Exception:
            # A listener's fault must not stop what the link carries for all other kernels.
            log.exception("an event of the link was not taken")

    async def _write(self) -> str:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self._looks_at = float("-inf")
            await self._write_all()
            deadline = self._session.next_deadline()
            if deadline is None:
                self._looks_at = float("inf")
                await self._wake.wait()
                continue
            self._looks_at = deadline
            timer = loop.call_later(max(0.0, deadline - time.monotonic()), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _write_all(self) -> None:
        while data := self._session.data_to_send(time.monotonic()):
            await self._stream.write(data)

    async def _ask(self, is_busy: Callable[[], bool]) -> str:
        """Ping; give the stream up when an answer is due for too long and nothing at all arrives."""
        # A process that is being started there is slower than one that runs: who attaches says how long it may take.
        await self._heard.wait()
        pause = min(_LOOK_SECONDS, self._busy_interval)
        looked_at, asked_last = time.monotonic(), float("-inf")
        while True:
            now = time.monotonic()
            if now - looked_at > pause + _STALL_SECONDS:
                # What came meanwhile has not been read yet.
                self._asked_at = None
            looked_at = now
            if self._asked_at is not None and now - self._asked_at > self._limit:
                return f"The workspace gave no sign of life for {now - self._asked_at:.0f} s."
            busy = self._session.kept_bytes or is_busy() or now < self._watchful_until
            interval = self._busy_interval if busy else self._idle_interval
            if self._probed.is_set() or now - asked_last >= interval:
                self._probed.clear()
                asked_last = now
                self._asked_at = self._asked_at or now
                self._session.ping(now)
                self._wake.set()
            await self._until_probed(pause)

    async def _until_probed(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._probed.wait()

    @property
    def _limit(self) -> float:
        """Seconds of silence that are tolerated now: a line that is slow, or full, answers late."""
        limit = self._silence_limit if self._urgent_limit is None else self._urgent_limit
        slow = min(_ROUND_TRIPS * max(self._round_trips, default=0.0), _LONGEST_LIMIT)
        return max(limit, slow)


def _describe(failed: Failed) -> str:
    """Say for a person why a stream is of no more use."""
    if failed.version is None:
        return f"The link's protocol was broken: {failed.reason}."
    theirs = f"codespace-kernels {failed.version.software}"
    if failed.version.peer_is_newer:
        return (
            f"The codespace's server was started by {theirs}, which is too new for this one ({__version__}). "
            "Update codespace-kernels on this machine: pip install --upgrade codespace-kernels."
        )
    return (
        f"The codespace's server was started by {theirs}, which is too old for this one ({__version__}). Use that "
        "version, or stop the codespace with `codespace-kernels stop`, which ends its kernels: its next start brings "
        "a new server."
    )
