"""Looks after the workspaces that are connected or watched: sightings for the ledger, and what the provider says."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.workspaces import SessionState
from codespace_kernels.errors import CodespaceKernelsError, WorkspaceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from codespace_kernels.broker.ledger import Ledger
    from codespace_kernels.broker.workspaces import WorkspaceSession

log = logging.getLogger(__name__)

TICK = 3.0
"""Seconds between two rounds."""

LOOK_INTERVAL = 60.0
"""Seconds between two questions to the provider about a workspace, unless it is about to stop. An answer that did not
change costs no quota."""

SAVE_INTERVAL = 60.0
"""Seconds between two writings of the ledger, unless a run began or ended; a broker that is killed loses no more."""

_LOOK_SECONDS = 60.0


class Lookout:
    """Works in rounds, and never holds anybody up.

    Args:
        ledger: Is written now and then.
        sessions: Gives the sessions of now.
        watched: Tells whether somebody watches.
        stop_idle: Stops a workspace whose time has come; see `care.Care.may_stop`.
        tick: Seconds; see `TICK`.
    """

    def __init__(
        self,
        ledger: Ledger,
        sessions: Callable[[], Iterable[WorkspaceSession]],
        watched: Callable[[], bool],
        stop_idle: Callable[[WorkspaceSession], Coroutine[Any, Any, None]],
        *,
        tick: float = TICK,
    ) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._watched = watched
        self._stop_idle = stop_idle
        self._tick = tick
        self._looks: dict[WorkspaceSession, asyncio.Task[None]] = {}
        self._stops: dict[WorkspaceSession, asyncio.Task[None]] = {}
        self._saved_at = time.monotonic()

    async def run(self) -> None:
        """Go round and round. Never returns."""
        try:
            while True:
                await self._round()
                await asyncio.sleep(self._tick)
        finally:
            for task in (*self._looks.values(), *self._stops.values()):
                task.cancel()

    async def _round(self) -> None:
        sessions = [session for session in self._sessions() if session.provider is not None]
        for session in sessions:
            session.sighted()
            self._take_care(session)
            if (session.state is not SessionState.IDLE or self._watched()) and self._is_due(session):
                self._look(session)
        if self._ledger.runs_changed or time.monotonic() - self._saved_at >= SAVE_INTERVAL:
            await self.save()

    def _take_care(self, session: WorkspaceSession) -> None:
        before = session.care.to_json()
        session.care.round(connected=session.state is SessionState.CONNECTED)
        if session.care.may_stop and session not in self._stops:
            task = self._stops[session] = asyncio.create_task(self._stop_idle(session))
            task.add_done_callback(lambda done: self._stopped(session, done))
        if session.care.to_json() != before:
            session.changed()

    def _stopped(self, session: WorkspaceSession, done: asyncio.Task[None]) -> None:
        self._stops.pop(session, None)
        if not done.cancelled() and done.exception() is not None:
            log.error("%s: the stop failed inside", session.name, exc_info=done.exception())

    def _is_due(self, session: WorkspaceSession) -> bool:
        if session in self._looks:
            return False
        meter = session.meter
        # Either way: a clock that was set back must not put the next look off for ever.
        interval = session.care.idle_stop.look_interval or LOOK_INTERVAL
        return meter.stops_soon or abs(meter.now - meter.asked_at) >= interval

    def _look(self, session: WorkspaceSession) -> None:
        task = self._looks[session] = asyncio.create_task(_learn(session))
        task.add_done_callback(lambda _: self._looks.pop(session, None))

    async def save(self) -> None:
        """Write the ledger now, if there is something to write."""
        if self._ledger.unsaved:
            self._ledger.unsaved = self._ledger.runs_changed = False
            self._saved_at = time.monotonic()
            await asyncio.to_thread(self._ledger.save, self._ledger.to_text())


async def _learn(session: WorkspaceSession) -> None:
    """Ask the provider once; what was known stays known where it does not answer, or where newer is known by then."""
    assert session.provider is not None
    asked = session.meter.asked_at = session.meter.now
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            workspace = await session.provider.resolve(session.name)
        if session.meter.asked_at == asked:
            session.meter.learn(workspace)
            await session.care.look(session.host if session.state is SessionState.CONNECTED else None)
    except WorkspaceNotFoundError:
        session.meter.is_gone()
    except (CodespaceKernelsError, TimeoutError) as error:
        log.info("%s: the provider was not heard: %s", session.name, error)
    session.changed()
