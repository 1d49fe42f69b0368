"""One workspace as the broker holds it: a connection, the server behind it, and the mending of both."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.answering import AnswerWatch
from codespace_kernels.broker.mending import Mending
from codespace_kernels.broker.state import SavedWorkspace
from codespace_kernels.errors import (
    AuthError,
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

    from codespace_kernels.broker.care import Care
    from codespace_kernels.broker.hosts import KernelHost
    from codespace_kernels.broker.usage import UsageMeter
    from codespace_kernels.providers.base import Provider, Workspace
    from codespace_kernels.target import Account

log = logging.getLogger(__name__)

API_SECONDS = 10.0
"""For the provider to say anything about a workspace; after that its last known way is tried without it."""

CAUSE_SECONDS = 5.0
"""For the provider to say why a workspace was stopped."""

PROBE_SECONDS = 3.0
"""For a sign of life over a connection that may have died while the computer slept or changed its network."""

RECONNECT_WAIT = 60.0
"""Seconds for which somebody at a command line waits for a connection that is being mended."""

START_TIMEOUT = 300.0
"""Seconds that a workspace may take to start where somebody waits at a command line."""

PATIENT_START_TIMEOUT = 12 * 3600.0
"""The same where a cell waits: a first build takes as long as it takes, and a person can interrupt the cell."""

LEND_SECONDS = 1.0
"""How long a workspace that another broker had waits for a front end with credentials, before others are looked for."""

ACTIVITY_INTERVAL = 60.0
"""Seconds between activity notices while it is kept awake: `gh` sends one a minute, and none is known to need more."""


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
        mending: While the way to the workspace is lost.

    Args:
        account: Whose workspace.
        name: The provider's name of the workspace.
        meter: Of its use.
        care: For it.
        needed: Tells whether there is a kernel of this workspace, held or kept.
        lost: Called with a sentence when the way to the workspace is gone for good.
        changed: Called when what `to_json` gives may have changed.
        activity_interval: Seconds between activity notices while it is kept awake.
    """

    def __init__(
        self,
        account: Account,
        name: str,
        meter: UsageMeter,
        *,
        care: Care,
        needed: Callable[[], bool] = lambda: False,
        lost: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        activity_interval: float = ACTIVITY_INTERVAL,
    ) -> None:
        self.account = account
        self.name = name
        self.meter = meter
        self.care = care
        self.repository = ""
        self.state = SessionState.IDLE
        self.progress: ProgressEvent | None = None
        self.since = time.time()
        self.changed = changed
        self.provider: Provider | None = None
        self.host: KernelHost | None = None
        self.mending: Mending | None = None
        self._needed = needed
        self._lost = lost
        self._activity_interval = activity_interval
        self._listeners: set[Progress] = set()
        self._attempt: asyncio.Task[KernelHost] | None = None
        self._attempt_starts = False
        self._waiting = 0
        self._settled = asyncio.Event()
        self._api = AnswerWatch(API_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_seen = False
        self._era: str | None = None
        self._lent = asyncio.Event()

    def go_on(self, host: KernelHost, repository: str) -> None:
        """Go on with what another broker had, as after a connection that broke."""
        self.host, self.repository = host, repository
        host.watch_closely(lambda: self.care.busy)
        self._become(SessionState.RECONNECTING)
        self.run_in_background(self._go_on(host))

    def lend(self, provider: Provider) -> None:
        """Give a provider with the credentials of a front end that is there."""
        if self.provider is None or not self._lent.is_set():
            self.provider = provider
        self._lent.set()

    async def _go_on(self, host: KernelHost) -> None:
        assert self.provider is not None
        try:
            async with asyncio.timeout(LEND_SECONDS):
                await self._lent.wait()
        except TimeoutError:
            await self._until_signed_in(self.provider)
        await self._look_after(host, self.provider)

    async def _until_signed_in(self, provider: Provider) -> None:
        """Wait until it is known who may reach the workspace: the file of the other broker has no tokens."""
        try:
            await provider.resolve(self.name)
        except AuthError as error:
            self._report(ProgressEvent("reconnect", f"Waiting for a front end that is signed in: {error}"))
            await self._lent.wait()
        except CodespaceKernelsError as error:
            log.info("%s: not looked up: %s", self.name, error)

    @property
    def title(self) -> str:
        """What a person calls it: its repository where that is known, else its name."""
        return self.repository.partition("/")[2] or self.name

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
            mended = await self._reconnected(timeout if timeout > START_TIMEOUT else RECONNECT_WAIT)
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
            self.host.watch_closely(lambda: self.care.busy)
        except BaseException:
            self._become(SessionState.IDLE)
            raise
        self._become(SessionState.CONNECTED)
        self.run_in_background(self._look_after(self.host, provider))
        return self.host

    async def _running(self, provider: Provider, *, start: bool, timeout: float = START_TIMEOUT) -> Workspace:
        """Wait until the workspace runs, and note whether it was seen to start."""
        self._start_seen = False
        provider.prepare(self.name)
        running = await provider.ensure_running(self.name, self._report, start=start, timeout=timeout)
        self.meter.learn(running, started=self._start_seen)
        return running

    async def _reconnected(self, seconds: float) -> KernelHost | None:
        """Wait for the mending that is under way; None where it was given up, for a workspace that was stopped say."""
        self.hurry()
        self._tell_mending()
        try:
            await asyncio.wait_for(self._settled.wait(), seconds)
        except TimeoutError:
            raise WaitTimeoutError.after(
                f"the connection to {self.name} to come back", seconds, "Look at `codespace-kernels status`."
            ) from None
        return self.host

    def hurry(self) -> None:
        """Hear that somebody waits: where the way is lost, it is tried at once to have another one."""
        if self.mending is not None:
            self.mending.hurry()

    def look_again(self) -> None:
        """Hear that connections may be dead, and that they may be had anew: the network is another one, say."""
        if self.mending is not None:
            self.mending.start_over()
        elif self.host is not None:
            self.host.probe(PROBE_SECONDS)

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
                if not await self._mend(host, provider, reason):
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

    async def _mend(self, host: KernelHost, provider: Provider, reason: str) -> bool:
        """Have another way; false where that was given up, and kernels were told why."""
        self.mending = Mending(
            lambda: self._try_again(host, provider),
            lambda: self._needed() or self._waiting > 0,
            self._tell_mending,
            reason,
        )
        try:
            if await self.mending.run():
                return True
            given_up = f"The connection to {self.name} was lost, and nothing needed it."
        except WorkspaceStoppedError:
            self.meter.stopped()
            notice = await self._stop_notice(provider)
            given_up = f"Codespace {self.name} was stopped; its kernels ended with it. {notice}Restart the kernel."
        except CodespaceKernelsError as error:
            given_up = str(error)
        finally:
            self.mending = None
        await self.drop(given_up)
        return False

    async def _try_again(self, host: KernelHost, provider: Provider) -> None:
        """Try once to have another way; without the provider's API, where that is down.

        Raises:
            CodespaceKernelsError: It cannot be had; says why.
        """
        unavailable: CodespaceKernelsError | None = None
        try:
            await self._api.run(self._running(provider, start=False), f"say how {self.name} fares")
        except (GitHubUnavailableError, RateLimitError) as error:
            unavailable = error
        try:
            await host.reconnect(provider, self.name, self._report, api_down=unavailable is not None)
        except WorkspaceConnectionError:
            if unavailable is not None:
                raise unavailable from None
            raise

    async def _stop_notice(self, provider: Provider) -> str:
        """Give what the provider says of why the workspace was stopped, as a sentence and a space; or nothing."""
        try:
            async with asyncio.timeout(CAUSE_SECONDS):
                notice = (await provider.resolve(self.name)).stop_notice
        except (CodespaceKernelsError, TimeoutError) as error:
            log.info("%s: not known why it was stopped: %r", self.name, error)
            return ""
        return f"GitHub says: {notice} " if notice else ""

    def _tell_mending(self) -> None:
        if self.mending is not None:
            text = f"Waiting for the connection to {self.name} to come back ({self.mending.describe()})"
            self._report(ProgressEvent("reconnect", text))

    async def _send_activity(self, provider: Provider) -> None:
        while True:
            await asyncio.sleep(self._activity_interval)
            if self.care.awake.take_wish() and self.state is SessionState.CONNECTED:
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

    async def leave(self) -> None:
        """Stop everything, for another broker to go on with it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.host is not None:
            await self.host.leave()

    def saved(self) -> SavedWorkspace | None:
        """Give what the next broker needs to go on with it; None where there is no link."""
        link = self.host.link_session if self.host is not None else ""
        return SavedWorkspace(self.account, self.name, self.repository, link) if link else None

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
            "promise": self.host.promise if self.host else None,
            "reconnecting": self.mending.to_json() if self.mending else None,
            "round_trip": round_trip,
            "round_trip_ms": None if round_trip is None else round(round_trip * 1000, 1),
            "codespace_state": self._workspace_state(),
            "codespace": self.meter.workspace.to_json() if self.meter.workspace else None,
            "usage": self.meter.to_json(busy=self.care.keeps_awake, care=self.care.to_json()),
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
        self._api.heard()
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
