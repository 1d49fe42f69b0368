"""What a running workspace costs and when it will stop, as far as this computer saw it run."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.providers.base import WorkspaceState
from codespace_kernels.providers.prices import PRICES_DATE, PRICES_SOURCE, dollars_per_hour

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codespace_kernels.broker.ledger import Ledger
    from codespace_kernels.providers.base import Workspace

SESSION_HOURS = 12
"""GitHub stops a codespace that has run so long, even one that is in use (GitHub's documentation of its limits)."""

STOP_SECONDS = 120.0
"""How long a workspace may take to stop; what takes longer is looked at as rarely as any other."""

OVERDUE = 300.0
"""Seconds after which an idle stop that did not come is not expected any more: somebody else uses the workspace."""

NO_CARE = {"keep_awake": None, "awake_until": None, "stop_when_idle_minutes": None, "stop_when_idle_at": None}
"""What is told of the care for a workspace that the broker does not know; see `care.Care.to_json`."""


class Cap(NamedTuple):
    """When the provider stops even a workspace that is in use.

    Attributes:
        at: Unix time.
        exact: Whether its start was seen; if not, it comes sooner.
    """

    at: float
    exact: bool


_DOWN = frozenset({WorkspaceState.STOPPED, WorkspaceState.STOPPING, WorkspaceState.FAILED})


class UsageMeter:
    """Follows one workspace.

    Args:
        ledger: Where it is written down when the workspace ran.
        key: Of the workspace there.

    Attributes:
        workspace: As the provider described it last; None before.
        asked_at: Unix time at which the provider was asked, or told something unasked; 0 where it should be asked now.
    """

    def __init__(self, ledger: Ledger, key: str) -> None:
        self.workspace: Workspace | None = None
        self.asked_at = 0.0
        self._ledger = ledger
        self._key = key
        self._active_at = 0.0
        self._heard_at = 0.0
        self._stop_expected_at: float | None = None

    @property
    def now(self) -> float:
        """Unix time, by the ledger's clock."""
        return self._ledger.clock()

    @property
    def stops_soon(self) -> bool:
        """Whether it is stopping, so that somebody waits to hear that it has stopped."""
        at, down = self._stop_expected_at, self.workspace is None or self.workspace.state is WorkspaceState.STOPPED
        return at is not None and not down and 0 <= self.now - at < STOP_SECONDS

    @property
    def was_stopped(self) -> bool:
        """Whether it is known to be down, or on its way."""
        return self.stops_soon or (self.workspace is not None and self.workspace.state in _DOWN)

    @property
    def state(self) -> WorkspaceState | None:
        """What the workspace is doing, as far as it is known."""
        state = self.workspace.state if self.workspace else None
        # It was said to run, and was not seen since.
        doubtful = state is WorkspaceState.RUNNING and self._ledger.session(self._key) is None
        return None if doubtful else state

    def learn(self, workspace: Workspace, *, started: bool = False) -> None:
        """Take the provider's description, and what it says about whether the workspace runs.

        Args:
            workspace: The description.
            started: Whether the workspace was seen to start just now.
        """
        self.workspace, self.asked_at = workspace, self.now
        if workspace.state is WorkspaceState.STOPPING and not self.stops_soon:
            self._stop_expected_at = self.now
        if workspace.state is WorkspaceState.RUNNING and (started or not self.stops_soon):
            self._stop_expected_at = None
            self._ledger.seen_running(self._key, cores=workspace.cores, started=started)
        elif workspace.state in _DOWN:
            self._ledger.seen_stopped(self._key)

    def is_gone(self) -> None:
        """Hear that the provider knows no such workspace any more."""
        self.workspace, self.asked_at = None, self.now
        self._ledger.seen_stopped(self._key)

    def heard(self, at: float, era: str) -> None:
        """Hear that the workspace itself gave a sign of life.

        Args:
            at: Unix time.
            era: See `ledger.Interval.era`.
        """
        if at <= self._heard_at:
            return
        self._heard_at, self._stop_expected_at = at, None
        cores = self.workspace.cores if self.workspace else None
        self._ledger.seen_running(self._key, at=at, cores=cores, era=era)

    def stopped(self) -> None:
        """Hear that it was stopped just now; the provider may say otherwise for a moment."""
        self.asked_at, self._stop_expected_at = 0.0, self.now
        self._ledger.seen_stopped(self._key)

    def notified(self) -> None:
        """Hear that the provider was told just now that the workspace is in use."""
        self._active_at = self.now

    @property
    def active_at(self) -> float:
        """Unix time of the last such notice; 0 before."""
        return self._active_at

    @property
    def cap(self) -> Cap | None:
        """The end of its longest session; None where it is not known to run."""
        session = self._ledger.session(self._key)
        return None if session is None else Cap(session.begin + SESSION_HOURS * 3600, session.exact)

    def to_json(self, *, busy: bool, care: Mapping[str, Any] = NO_CARE) -> dict[str, Any]:
        """Give the usage; see docs/command-line.md for its fields.

        Args:
            busy: Whether the workspace is kept awake now.
            care: What is told of the care for it; see `care.Care.to_json`.
        """
        session, month, workspace = self._ledger.session(self._key), self._ledger.month(self._key), self.workspace
        cores = (session and session.cores) or (workspace and workspace.cores) or None
        spent = session.dollars(session.hours(session.begin, session.end)) if session else None
        cap = self.cap
        return {
            "running_since": iso(session.begin) if session else None,
            "running_since_exact": bool(session and session.exact),
            "capped_at": iso(cap.at) if cap and cap.exact else None,
            "capped_before": iso(cap.at) if cap and not cap.exact else None,
            "idle_stops_at": iso(self._idle_stop()) if session and not busy else None,
            "idle_timeout_minutes": workspace.idle_timeout_minutes if workspace else None,
            **care,
            "machine": workspace.machine if workspace else "",
            "cores": cores,
            "dollars_per_hour": dollars_per_hour(cores),
            "session_dollars": _rounded(spent),
            "month_dollars": _rounded(month.dollars),
            "month_hours": round(month.hours, 6),
            "prices_source": PRICES_SOURCE,
            "prices_date": PRICES_DATE,
        }

    def _idle_stop(self) -> float | None:
        """Give the Unix time at which the provider stops the workspace unless it hears of activity before."""
        workspace = self.workspace
        if workspace is None or workspace.idle_timeout_minutes is None:
            return None
        last = max(self._active_at, unix_time(workspace.last_used_at) or 0.0)
        stop = last + workspace.idle_timeout_minutes * 60
        return stop if last and self.now - stop < OVERDUE else None


def iso(moment: float | None) -> str | None:
    """Give a Unix time in ISO 8601, UTC, to the second, as GitHub writes it."""
    if moment is None:
        return None
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_time(text: str) -> float | None:
    """Read an ISO 8601 time that names its zone; None for any other text."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def _rounded(dollars: float | None) -> float | None:
    return None if dollars is None else round(dollars, 6)
