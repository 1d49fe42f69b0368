"""When a workspace is stopped since nothing in it works: counted, and put off by whatever may be somebody's use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.awake import Presence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from codespace_kernels.broker.awake import CaredKernel

GRACE = 300.0
"""Seconds for who has just opened the lid, or for a connection that has just come back, before anything is stopped."""

SLEEP = 60.0
"""Seconds between two rounds, which are three apart, from which on this computer was asleep, or its clock was set."""

SETTLE = 120.0
"""Seconds after a notice of ours within which a moved `last_used_at` is taken for the notice's doing."""


class IdleStop:
    """The clock of one workspace. It does nothing itself: see `due`.

    The workspace is idle while every kernel of it is known to be; who knows nothing waits. It may be stopped where all
    kernels' specs say so, after the longest time of them. When the last kernel has ended, what it said goes on to hold.

    Use by others is seen by what moves between two looks, not by comparing times of several computers.

    Args:
        clock: Gives the Unix time.
        kernels: Gives the kernels of the workspace.
        settle: Seconds; see `SETTLE`.
    """

    def __init__(
        self, clock: Callable[[], float], kernels: Callable[[], Sequence[CaredKernel]], *, settle: float = SETTLE
    ) -> None:
        self.minutes = 0.0
        self._clock = clock
        self._kernels = kernels
        self._settle = settle
        self._since = self._round_at = clock()
        self._not_before = 0.0
        self._idle = False
        self._looked_at = 0.0
        self._last_used_at = ""
        self._models: dict[str, str] | None = None

    @property
    def at(self) -> float | None:
        """Unix time at which the workspace is to be stopped; None where it is not idle, or its specs do not say so."""
        if not self.minutes or not self._idle:
            return None
        return max(self._since + self.minutes * 60, self._not_before)

    @property
    def due(self) -> bool:
        """Whether the time has come."""
        return self.at is not None and self.at <= self._clock()

    @property
    def look_interval(self) -> float | None:
        """Seconds between looks for use by others, where a stop comes nearer; None elsewhere."""
        return None if self.at is None else min(60.0, self.minutes * 15)

    def knows_others(self, ours_at: float) -> bool:
        """Tell whether there was a look since our own last notice or connection that the next can be compared with.

        Args:
            ours_at: Unix time of that.
        """
        return self._looked_at >= ours_at + self._settle

    def used(self) -> None:
        """Hear of somebody's use, or of a kernel's work."""
        self._since = self._clock()

    def round(self, *, connected: bool) -> None:
        """Look at the kernels. To be called every few seconds.

        Args:
            connected: Whether there is a connection, so that kernels can be seen.
        """
        now, before = self._clock(), self._round_at
        self._round_at = now
        self._since = min(self._since, now)
        seen = {kernel: kernel.presence for kernel in self._kernels()}
        present = [kernel for kernel, presence in seen.items() if presence is not Presence.ABSENT]
        if present:
            said = [kernel.request.target.stop_when_idle for kernel in present]
            self.minutes = max(said) if all(said) else 0.0
        if Presence.BUSY in seen.values():
            self.used()
        self._idle = connected and not {Presence.BUSY, Presence.UNKNOWN} & set(seen.values())
        if not self._idle:
            self._models, self._last_used_at, self._looked_at = None, "", 0.0
        if not self._idle or not 0 <= now - before < SLEEP:
            self.wait()

    def wait(self) -> None:
        """Put a stop off a little: something is not known now."""
        grace = min(GRACE, self.minutes * 60)
        self._not_before = self._clock() + grace

    def provider_said(self, last_used_at: str, ours_at: float) -> None:
        """Take what the provider says of the workspace's last use.

        Args:
            last_used_at: In its words; only compared with itself.
            ours_at: Unix time of our last notice or connection.
        """
        moved = self._last_used_at not in ("", last_used_at)
        if moved and self.knows_others(ours_at):
            self.used()
        self._last_used_at, self._looked_at = last_used_at, self._clock()

    def server_said(self, models: Iterable[dict[str, Any]]) -> None:
        """Take what the workspace's Jupyter server says of all its kernels: those of other computers are among them.

        Args:
            models: As its REST gives them.
        """
        before, known = self._models, list(models)
        self._models = {str(model.get("id")): str(model.get("last_activity")) for model in known}
        busy = any(model.get("execution_state") == "busy" for model in known)
        if busy or (before is not None and not self._models.items() <= before.items()):
            self.used()
