"""What a workspace costs is looked after: whether it is kept awake, when it is stopped, and who is told beforehand."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.awake import WARNING, Awake, CaredKernel, Presence, minutes
from codespace_kernels.broker.idle_stop import SETTLE, IdleStop
from codespace_kernels.broker.network import elapsed
from codespace_kernels.broker.usage import SESSION_HOURS, iso
from codespace_kernels.errors import CodespaceKernelsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from codespace_kernels.broker.hosts import KernelHost
    from codespace_kernels.broker.usage import Cap, UsageMeter
    from codespace_kernels.target import Target

log = logging.getLogger(__name__)


class Care:
    """Looks after one workspace, by the policies of its kernels' specs. Stops nothing itself: see `IdleStop.due`.

    Args:
        name: Of the workspace.
        meter: Of its use.
        kernels: Gives its kernels.
        settle: Seconds; see `idle_stop.SETTLE`.
        clock: One that nobody sets: a computer whose clock jumps must not let a workspace fall asleep under a kernel.
    """

    def __init__(
        self,
        name: str,
        meter: UsageMeter,
        kernels: Callable[[], Sequence[CaredKernel]] = tuple,
        *,
        settle: float = SETTLE,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self.awake = Awake(clock, kernels)
        self._clock = clock
        self.idle_stop = IdleStop(lambda: meter.now, kernels, settle=settle)
        self._name = name
        self._meter = meter
        self._kernels = kernels
        self._let_go_of = 0.0
        self._last_cap: Cap | None = None
        self._told: set[tuple[Any, ...]] = set()

    @property
    def keeps_awake(self) -> bool:
        """Whether notices go out now."""
        return self.awake.until is not None and not self.awake.over

    @property
    def busy(self) -> bool:
        """Whether a kernel of the workspace is busy now."""
        return any(kernel.presence is Presence.BUSY for kernel in self._kernels())

    def used(self) -> None:
        """Hear that a person did something there."""
        self.awake.used()
        self.idle_stop.used()

    def worked(self, target: Target) -> None:
        """Hear that a kernel has begun to execute something."""
        self.awake.worked(target)
        self.idle_stop.used()

    def round(self, *, connected: bool) -> None:
        """Look at the clocks and tell in cells what is to be told. To be called every few seconds.

        Args:
            connected: Whether there is a connection, so that kernels can be seen.
        """
        self.idle_stop.round(connected=connected)
        self._last_cap = self._meter.cap or self._last_cap
        if self.awake.over:
            self._let_go_of = self.awake.used_at
        known = {kernel.kernel_id for kernel in self._kernels()}
        self._told = {key for key in self._told if key[0] in known}
        for kernel, about, text in list(self._remarks()):
            key = (kernel.kernel_id, *about)
            if key not in self._told:
                self._told.add(key)
                log.info("kernel %s is told: %s", kernel.kernel_id, text)
                kernel.tell(text)

    async def look(self, host: KernelHost | None) -> None:
        """See whether others use the workspace, after the provider was asked about it.

        Args:
            host: Of its kernels; None where there is no connection.
        """
        ours_at, workspace = self._meter.active_at, self._meter.workspace
        if host is None or workspace is None or self.idle_stop.at is None:
            return
        try:
            self.idle_stop.server_said(await host.kernels())
        except (CodespaceKernelsError, TimeoutError) as error:
            log.info("%s: its kernels cannot be seen: %s", self._name, error)
            self.idle_stop.wait()
        else:
            self.idle_stop.provider_said(workspace.last_used_at, ours_at)

    @property
    def may_stop(self) -> bool:
        """Whether the time to stop the workspace has come, and use by others would have been seen."""
        return self.idle_stop.due and self.idle_stop.knows_others(self._meter.active_at)

    def why_stopped(self) -> str:
        """Say, of a workspace that was just found stopped, what is known to stop it; empty where nothing is."""
        cap = self._last_cap
        if cap is not None and abs(cap.at - self._meter.now) < WARNING / 2:
            return f"GitHub stops every codespace after {SESSION_HOURS} hours."
        if self._let_go_of == self.awake.used_at:
            return "It was kept awake no longer: nobody had used it for the time that keep_awake_hours says."
        return ""

    def _remarks(self) -> Iterator[tuple[CaredKernel, tuple[Any, ...], str]]:
        """Give what kernels are to be told, and what tells one remark from the next of its kind."""
        cap, awake = self._cap_remark(), self._awake_remark()
        for kernel in self._kernels():
            presence = kernel.presence
            if cap and presence is Presence.BUSY:
                yield kernel, ("cap", self._meter.cap), cap
            if awake and presence is not Presence.ABSENT:
                yield kernel, ("awake", self.awake.over, self.awake.used_at), awake

    def _cap_remark(self) -> str:
        cap = self._meter.cap
        left = None if cap is None else cap.at - self._meter.now
        if cap is None or left is None or not 0 < left < WARNING:
            return ""
        when = f"in {minutes(left)}" if cap.exact else f"in {minutes(left)} at the latest"
        return (
            f"GitHub stops codespace {self._name} {when}: no session there lasts more than {SESSION_HOURS} hours. Its "
            "kernels end with it, files stay; save what this one has. Started again, it begins a new session."
        )

    def _awake_remark(self) -> str:
        workspace = self._meter.workspace
        return self.awake.remark(self._name, workspace.idle_timeout_minutes if workspace else None)

    def to_json(self) -> dict[str, Any]:
        """Give what belongs to a workspace's usage; see docs/command-line.md."""
        return {
            "keep_awake": self.awake.policy,
            "awake_until": iso(self._awake_until()),
            "stop_when_idle_minutes": self.idle_stop.minutes or None,
            "stop_when_idle_at": iso(self.idle_stop.at),
        }

    def _awake_until(self) -> float | None:
        """Unix time, to the second, at which it is kept awake no longer."""
        until = self.awake.until
        return None if until is None else float(round(self._meter.now + until - self._clock()))
