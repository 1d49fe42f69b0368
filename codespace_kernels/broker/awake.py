"""Whether a workspace is kept awake, and until when: what its kernels' specs say, and when a person was there last."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from codespace_kernels.target import ALWAYS, BUSY, NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codespace_kernels.broker.protocol import KernelRequest
    from codespace_kernels.target import Target

WARNING = 1800.0
"""Seconds before its end at which a person is told that a workspace is kept awake no longer."""


class Presence(enum.Enum):
    """What a kernel is to its workspace."""

    ABSENT = "absent"
    """It has no process there, and is not about to have one."""
    IDLE = "idle"
    BUSY = "busy"
    UNKNOWN = "unknown"
    """It is starting, restarting, or out of reach."""


class CaredKernel(Protocol):
    """A kernel of a workspace, held or kept."""

    @property
    def kernel_id(self) -> str:
        """What the broker calls it."""

    @property
    def request(self) -> KernelRequest:
        """What its front end wants, or wanted."""

    @property
    def held(self) -> bool:
        """Whether a front end holds it."""

    @property
    def presence(self) -> Presence:
        """What it is to its workspace now."""

    def tell(self, text: str) -> None:
        """Say something in the cell that runs, and to the front end."""


class Awake:
    """Decides about the activity notices of one workspace. The kernel that wishes most has its way.

    Args:
        clock: Gives seconds; nobody sets it, and it goes on while the computer sleeps.
        kernels: Gives the kernels of the workspace.

    Attributes:
        used_at: When a person did something there last, by that clock.
    """

    def __init__(self, clock: Callable[[], float], kernels: Callable[[], Sequence[CaredKernel]]) -> None:
        self.used_at = clock()
        self._clock = clock
        self._kernels = kernels
        self._worked: dict[tuple[str, float], Target] = {}

    def used(self) -> None:
        """Hear that a person did something."""
        self.used_at = self._clock()

    def worked(self, target: Target) -> None:
        """Hear that a kernel has begun to execute something: it may be done before anybody looks."""
        self._worked[target.keep_awake, target.keep_awake_hours] = target

    def take_wish(self) -> bool:
        """Tell whether a notice is due for what was done since this was asked last."""
        worked, self._worked = self._worked.values(), {}
        until = max(map(self._until, [target for target in worked if target.keep_awake != NEVER]), default=0.0)
        return max(until, self.until or 0.0) > self._clock()

    @property
    def policy(self) -> str | None:
        """What the spec of the kernel that wishes most says; None where there is no kernel."""
        said = {kernel.request.target.keep_awake for kernel in self._kernels() if kernel.presence != Presence.ABSENT}
        return next((policy for policy in (ALWAYS, BUSY, NEVER) if policy in said), None)

    @property
    def until(self) -> float | None:
        """When the notices end, or ended, unless a person does something; None where none is wished."""
        return max((self._until(kernel.request.target) for kernel in self._wishing()), default=None)

    def _until(self, target: Target) -> float:
        return self.used_at + target.keep_awake_hours * 3600

    def _wishing(self) -> list[CaredKernel]:
        return [kernel for kernel in self._kernels() if _wishes(kernel)]

    def remark(self, name: str, idle_timeout: int | None) -> str:
        """Say that the notices end soon, or ended; empty where there is nothing to say.

        Args:
            name: Of the workspace.
            idle_timeout: Minutes; None where it is not known.
        """
        wishing, until = self._wishing(), self.until
        if until is None:
            return ""
        left, hours = until - self._clock(), max(kernel.request.target.keep_awake_hours for kernel in wishing)
        if left > min(WARNING, hours * 1800):
            return ""
        since = (
            f"Nobody has used codespace {name} for {hours:g} hours" if left <= 0 else f"Nobody uses codespace {name}"
        )
        then = f"{idle_timeout} minutes" if idle_timeout else "one idle timeout"
        what = f"it is kept awake no longer{'' if left <= 0 else f' in {minutes(left)}'}"
        return (
            f"{since}: {what} (keep_awake_hours is {hours:g}), and GitHub stops it {then} after that, though a kernel "
            "is wanted there. Run a cell, or line one up behind the cell that runs, to go on."
        )

    @property
    def over(self) -> bool:
        """Whether notices are wished, but a person has not been there for too long."""
        return self.until is not None and self.until <= self._clock()


def _wishes(kernel: CaredKernel) -> bool:
    target, presence = kernel.request.target, kernel.presence
    if target.keep_awake == NEVER or presence is Presence.ABSENT:
        return False
    return presence is Presence.BUSY or (target.keep_awake == ALWAYS and kernel.held)


def minutes(seconds: float) -> str:
    """Give a time in whole minutes, at least one."""
    count = max(1, round(seconds / 60))
    return f"{count} minute{'s' if count > 1 else ''}"
