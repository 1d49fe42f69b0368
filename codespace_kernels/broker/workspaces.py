"""One workspace as the broker holds it: a connection, the server behind it, and the mending of both."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import (
    CodespaceKernelsError,
    GitHubUnavailableError,
    RateLimitError,
    WaitTimeoutError,
    WorkspaceConnectionError,
    WorkspaceStoppedError,
)
from codespace_kernels.progress import Progress, ProgressEvent
from codespace_kernels.providers.base import WorkspaceState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from codespace_kernels.broker.hosts import KernelHost
    from codespace_kernels.broker.usage import UsageMeter
    from codespace_kernels.providers.base import Provider, Workspace
    from codespace_kernels.target import Account

log = logging.getLogger(__name__)

RECONNECT_DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds before each try to mend a connection; the last one repeats."""

PASSING = (WorkspaceConnectionError, GitHubUnavailableError, RateLimitError, WaitTimeoutError)
"""Failures that another try may not meet; with any other one the kernels are given up."""

RECONNECT_WAIT = 60.0
"""Seconds that a new kernel waits for a connection that is being mended."""

START_TIMEOUT = 300.0
"""Seconds that a workspace may take to start where somebody waits at a command line."""

PATIENT_START_TIMEOUT = 12 * 3600.0
"""The same where a cell waits: a first build takes as long as it takes, and a person can interrupt the cell."""

ACTIVITY_INTERVAL = 60.0
"""Seconds between activity notices while a kernel is busy: `gh` sends one a minute, and none is known to need more."""


_STATES = {
    "stop": WorkspaceState.STOPPING,
    "busy": WorkspaceState.BUSY,
    "queue": WorkspaceState.STARTING,
    "build": WorkspaceState.STARTING,
    "start": WorkspaceState.STARTING,
}
"""What a workspace is doing, by the stage of a start."""

_STARTS = frozenset({"stop", "queue", "build"})
"""Stages in which a workspace does not run yet; `start` and `busy` may be those of one that does."""


class SessionState(enum.Enum):
    """What a workspace session is doing."""

    IDLE = "not connected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"


class WorkspaceSession:
    """One workspace: connected once, shared by all kernels and front ends.

    Attributes:
        repository: `host/owner/name` of what it is a clone of, empty where there is none or while it is not known.

    Args:
        account: Whose workspace.
        name: The provider's name of the workspace.
        meter: Of its use.
        busy: Tells whether a kernel of this workspace is busy now.
        lost: Called with a sentence when the way to the workspace is gone for good.
        changed: Called when what `to_json` gives may have changed.
        activity_interval: Seconds between activity notices while a kernel is busy.
    """

    def __init__(
        self,
        account: Account,
        name: str,
        meter: UsageMeter,
        *,
        busy: Callable[[], bool],
        lost: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        activity_interval: float = ACTIVITY_INTERVAL,
    ) -> None:
        self.account = account
        self.name = name
        self.meter = meter
        self.repository = ""
        self.state = SessionState.IDLE
        self.progress: ProgressEvent | None = None
        self.since = time.time()
        self.changed = changed
        self.provider: Provider | None = None
        self.host: KernelHost | None = None
        self._busy = busy
        self._lost = lost
        self._activity_interval = activity_interval
        self._listeners: set[Progress] = set()
        self._attempt: asyncio.Task[KernelHost] | None = None
        self._attempt_starts = False
        self._waiting = 0
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_seen = False
        self._worked = False
        self._era: str | None = None

    async def connected(
        self, provider: Provider, progress: Progress, *, start: bool = True, timeout: float = START_TIMEOUT
    ) -> KernelHost:
        """Give the host of the workspace's kernels, connecting first where that is needed.

        Callers that come meanwhile share one attempt; it is cancelled when the last of them has gone.

        Args:
            provider: Of the account.
            progress: Hears of the steps.
            start: Whether a stopped workspace is started.
            timeout: Seconds that the workspace may take to start.

        Raises:
            WorkspaceStoppedError: It is stopped, and `start` is false.
            CodespaceKernelsError: The workspace cannot be had; says why.
        """
        while True:
            if self.host is not None and self.state is SessionState.CONNECTED:
                return self.host
            if self._attempt is None or self._attempt.done():
                self._attempt = asyncio.create_task(self._connect(provider, start=start, timeout=timeout))
                self._attempt_starts = start
            may_start = self._attempt_starts
            try:
                return await self._share(self._attempt, progress)
            except WorkspaceStoppedError:
                # That attempt was another caller's, who would not have it started.
                if may_start or not start:
                    raise

    async def _share(self, attempt: asyncio.Task[KernelHost], progress: Progress) -> KernelHost:
        self._listeners.add(progress)
        self._waiting += 1
        try:
            return await asyncio.shield(attempt)
        finally:
            self._listeners.discard(progress)
            self._waiting -= 1
            if self._waiting == 0 and not attempt.done():
                attempt.cancel()
                # Whoever comes while it ends makes an attempt of their own.
                self._attempt = None

    async def _connect(self, provider: Provider, *, start: bool, timeout: float) -> KernelHost:
        if self.host is not None:
            mended = await self._reconnected()
            if mended is not None:
                return mended
        self.provider = provider
        self._become(SessionState.CONNECTING)
        try:
            running = await self._running(provider, start=start, timeout=timeout)
            self.repository = f"{provider.git_host}/{running.repository}" if running.repository else ""
            # Imported here: a broker must answer before SSH and gRPC are loaded.
            from codespace_kernels.broker.hosts import open_host

            self.host = await open_host(provider, self.name, self._report)
        except BaseException:
            self._become(SessionState.IDLE)
            raise
        self._become(SessionState.CONNECTED)
        self.run_in_background(self._look_after(self.host, provider))
        return self.host

    async def _running(self, provider: Provider, *, start: bool, timeout: float = START_TIMEOUT) -> Workspace:
        """Wait until the workspace runs, and note whether it was seen to start."""
        self._start_seen = False
        running = await provider.ensure_running(self.name, self._report, start=start, timeout=timeout)
        self.meter.learn(running, started=self._start_seen)
        return running

    async def _reconnected(self) -> KernelHost | None:
        """Wait for the mending that is under way; None where it was given up, for a workspace that was stopped say."""
        self._report(ProgressEvent("reconnect", f"Waiting for the connection to {self.name} to come back"))
        try:
            await asyncio.wait_for(self._settled.wait(), RECONNECT_WAIT)
        except TimeoutError:
            raise WaitTimeoutError.after(
                f"the connection to {self.name} to come back", RECONNECT_WAIT, "Look at `codespace-kernels status`."
            ) from None
        return self.host

    async def _look_after(self, host: KernelHost, provider: Provider) -> None:
        """Mend the connection each time it breaks, until the workspace is gone or nobody needs it."""
        notices = asyncio.create_task(self._send_activity(provider))
        try:
            while True:
                self.meter.notified()  # Each way to a workspace begins with such a notice.
                self.run_in_background(self._recognise(host))
                reason = await host.disconnected()
                log.warning("%s: connection lost: %s", self.name, reason)
                self._become(SessionState.RECONNECTING)
                if not await self._mend(host, provider):
                    return
                self._become(SessionState.CONNECTED)
        finally:
            notices.cancel()

    async def _recognise(self, host: KernelHost) -> None:
        """Find out whether the workspace has run on since it was seen last."""
        self._era = None
        try:
            self._era = await host.era()
        except CodespaceKernelsError as error:
            log.info("%s: not known whether it ran on: %s", self.name, error)
            self._era = ""
        self.sighted()
        self.changed()

    def sighted(self) -> None:
        """Note the workspace's last sign of life, if there is one over this connection."""
        if self.host is not None and self._era is not None and self.host.heard_at is not None:
            self.meter.heard(self.host.heard_at, self._era)

    async def _mend(self, host: KernelHost, provider: Provider) -> bool:
        for attempt in range(10_000):
            await asyncio.sleep(RECONNECT_DELAYS[min(attempt, len(RECONNECT_DELAYS) - 1)])
            try:
                await self._running(provider, start=False)
                await host.reconnect(provider, self.name, self._report)
            except PASSING as error:
                log.info("%s: still not reachable: %s", self.name, error)
            except WorkspaceStoppedError:
                self.meter.stopped()
                await self.drop(f"Codespace {self.name} was stopped; its kernels ended with it. Restart the kernel.")
                return False
            except CodespaceKernelsError as error:
                await self.drop(str(error))
                return False
            else:
                return True
        return False

    def worked(self) -> None:
        """Hear that a kernel of this workspace has begun to execute something."""
        self._worked = True

    async def _send_activity(self, provider: Provider) -> None:
        while True:
            await asyncio.sleep(self._activity_interval)
            # Who runs one short cell after the other works, too, though the kernel is idle at most looks.
            worked, self._worked = self._worked or self._busy(), False
            if worked and self.state is SessionState.CONNECTED:
                try:
                    await provider.notify_activity(self.name)
                    self.meter.notified()
                    self.changed()
                except CodespaceKernelsError as error:
                    log.warning("%s: activity notice failed: %s", self.name, error)

    async def drop(self, reason: str) -> None:
        """Give the connection up; kernels of this workspace hear `reason`."""
        host, self.host = self.host, None
        self._become(SessionState.IDLE)
        self._lost(reason)
        if host is not None:
            await host.close()

    async def close(self) -> None:
        """Close the connection and stop mending it."""
        if self._attempt is not None:
            self._attempt.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        host, self.host = self.host, None
        self._become(SessionState.IDLE)
        if host is not None:
            await host.close()

    def place_json(self) -> dict[str, Any]:
        """Give what `status` shows of a kernel's place."""
        return {"workspace": self.name, "api_url": self.account.api_url, "account": dataclasses.asdict(self.account)}

    def to_json(self) -> dict[str, Any]:
        """Give what `status` shows."""
        round_trip = self.host.round_trip if self.host else None
        return {
            "name": self.name,
            "api_url": self.account.api_url,
            "state": self.state.value,
            "doing": self.progress.message if self.progress else "",
            "progress": self.progress.to_json() if self.progress else None,
            "since": self.since,
            "connection": self.host.description if self.host else "",
            "round_trip": round_trip,
            "round_trip_ms": None if round_trip is None else round(round_trip * 1000, 1),
            "codespace_state": self._workspace_state(),
            "codespace": self.meter.workspace.to_json() if self.meter.workspace else None,
            "usage": self.meter.to_json(busy=self._busy()),
        }

    def _workspace_state(self) -> str | None:
        """Give what the workspace is doing: what is seen of it says more than what the provider said last."""
        state = self.meter.state
        if self.state is SessionState.CONNECTED:
            state = WorkspaceState.RUNNING
        elif self.state is SessionState.CONNECTING and self.progress is not None:
            state = _STATES.get(self.progress.stage, state)
        return state.value if state else None

    def _become(self, state: SessionState) -> None:
        if state is not self.state:
            self.state, self.since = state, time.time()
        self.progress = None
        self.changed()
        if state is SessionState.RECONNECTING:
            self._settled.clear()
        else:
            self._settled.set()

    def _report(self, event: ProgressEvent) -> None:
        self._start_seen |= event.stage in _STARTS
        self.progress = event
        self.changed()
        for listener in list(self._listeners):
            with contextlib.suppress(Exception):
                listener(event)

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that outlives its kernel; the end of the session cancels it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
