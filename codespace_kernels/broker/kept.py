"""Kernels that no front end holds: kept for a time, since their spec says so, and given back to the same notebook."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.awake import Presence
from codespace_kernels.broker.network import elapsed
from codespace_kernels.broker.state import SavedKernel, saved_remote, without_tokens
from codespace_kernels.errors import CodespaceKernelsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codespace_kernels.bridge import UnattendedKernel
    from codespace_kernels.broker.protocol import KernelRequest
    from codespace_kernels.broker.workspaces import WorkspaceSession
    from codespace_kernels.target import Target

log = logging.getLogger(__name__)

RESTART_SECONDS = 2.0
"""A launcher that the same program starts so soon after the end of another is a restart: VS Code takes 20 ms."""

LOOK_SECONDS = 60.0
"""Between looks at a kernel that may be kept no longer."""


def is_same_notebook(one: str, other: str) -> bool:
    """Tell whether two paths, which two programs may spell differently, name one notebook; a missing one names none."""
    return bool(one and other) and os.path.normcase(os.path.normpath(one)) == os.path.normcase(os.path.normpath(other))


class KeptKernel:
    """A kernel without a front end.

    Args:
        kernel_id: What the broker called it while it was held.
        request: Of the front end that held it.
        session: Of its workspace.
        notebook: Path of its notebook.
        unattended: The kernel, and what it wrote.

    Attributes:
        since: Unix time at which its front end went.
    """

    def __init__(
        self,
        kernel_id: str,
        request: KernelRequest,
        session: WorkspaceSession,
        notebook: str,
        unattended: UnattendedKernel,
    ) -> None:
        self.kernel_id = kernel_id
        self.request = request
        self.session = session
        self.notebook = notebook
        self.unattended = unattended
        self.since = time.time()
        self._quiet_since = elapsed()
        unattended.changed = self._changed

    @property
    def busy(self) -> bool:
        """Whether the kernel is executing something."""
        return self.unattended.busy

    @property
    def alive(self) -> bool:
        """Whether it is one, as far as is known."""
        return self.unattended.alive

    @property
    def held(self) -> bool:
        """Not by any front end."""
        return False

    @property
    def presence(self) -> Presence:
        """What it is to its workspace now."""
        if not self.unattended.alive:
            return Presence.ABSENT
        known = {"idle": Presence.IDLE, "busy": Presence.BUSY} if self.unattended.within_reach else {}
        return known.get(self.unattended.activity.state, Presence.UNKNOWN)

    def tell(self, text: str) -> None:
        """Nobody is there to be told."""

    @property
    def until(self) -> float | None:
        """Unix time at which it will be ended, to the second; None while it works."""
        left = self.seconds_left
        return None if left is None else float(round(time.time() + left))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it will be ended, whatever this computer's clock is set to meanwhile; None while it works."""
        return None if self.busy else self._quiet_since + self.request.target.keep_hours * 3600 - elapsed()

    def is_for(self, target: Target, notebook: str) -> bool:
        """Tell whether this notebook on this spec may have it back."""
        return self.request.target == target and is_same_notebook(self.notebook, notebook)

    def is_replaced_by(self, request: KernelRequest) -> bool:
        """Tell whether a request is what a restart looks like to programs that start launchers."""
        same = bool(request.parent) and request.parent == self.request.parent
        return same and request.started - self.since < RESTART_SECONDS

    def saved(self) -> SavedKernel:
        """Give what the next broker needs to go on with it."""
        return SavedKernel(
            self.kernel_id,
            without_tokens(self.request, {}),
            self.session.name,
            self.notebook,
            kept=True,
            dead=not self.unattended.alive,
            since=self.since,
            remote=saved_remote(self.unattended.kernel),
        )

    def workspace_lost(self, reason: str) -> None:
        """Hear that the way to the workspace is gone for good."""
        if self.unattended.alive:
            self.unattended.alive, self.unattended.reason = False, reason
            self._changed()

    async def end(self) -> None:
        """End the kernel."""
        self.unattended.close()
        if self.unattended.alive:
            await self._shut_down()
        await self.unattended.kernel.close()

    async def suspend(self, reason: str) -> None:
        """End the kernel, and keep what it wrote for its notebook, which is told why."""
        self.unattended.close()
        self.workspace_lost(reason)
        await self._shut_down()

    async def _shut_down(self) -> None:
        try:
            await self.unattended.kernel.shutdown()
        except CodespaceKernelsError as error:
            log.warning("kept kernel %s: not ended in %s: %s", self.kernel_id, self.session.name, error)

    def _changed(self) -> None:
        self._quiet_since = elapsed()
        self.session.changed()

    def to_json(self) -> dict[str, Any]:
        """Give what `kernels` and `status` show; no key, no credentials."""
        state = self.unattended.activity.state if self.unattended.alive else "dead"
        return {
            "id": self.kernel_id,
            **self.session.place_json(),
            "recipe": self.request.target.recipe.title if self.request.target.recipe is not None else "",
            "kernel": self.request.target.kernel,
            "state": state,
            "since": self.since,
            "session": self.notebook,
            "owner": "",
            "kept": True,
            "until": self.until,
            "reason": self.unattended.reason,
            "unseen_outputs": len(self.unattended.output),
            "messages": {},
        }


class KeptKernels:
    """All of them, by id, and their clocks.

    Args:
        ended: Called when one is gone.
    """

    def __init__(self, ended: Callable[[KeptKernel], None]) -> None:
        self._kernels: dict[str, KeptKernel] = {}
        self._clocks: dict[str, asyncio.TimerHandle] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._ended = ended

    def __iter__(self) -> Iterator[KeptKernel]:
        return iter(list(self._kernels.values()))

    def __len__(self) -> int:
        return len(self._kernels)

    def get(self, kernel_id: str) -> KeptKernel | None:
        """Give the one of an id."""
        return self._kernels.get(kernel_id)

    def add(self, kernel: KeptKernel) -> None:
        """Keep one until its time is over."""
        self._kernels[kernel.kernel_id] = kernel
        log.info("kernel %s in %s is kept for %s", kernel.kernel_id, kernel.session.name, kernel.notebook)
        self._look(kernel)

    def find(self, target: Target, notebook: str) -> KeptKernel | None:
        """Give the one that this notebook on this spec may have back."""
        return next((kernel for kernel in self if kernel.is_for(target, notebook)), None)

    def has(self, target: Target) -> bool:
        """Tell whether one of this spec is kept, for whatever notebook."""
        return any(kernel.request.target == target for kernel in self)

    def take(self, kernel: KeptKernel) -> None:
        """Take one out: a front end has it again, or it is about to be ended."""
        self._kernels.pop(kernel.kernel_id, None)
        clock = self._clocks.pop(kernel.kernel_id, None)
        if clock is not None:
            clock.cancel()

    async def end(self, kernel: KeptKernel) -> None:
        """End one."""
        self.take(kernel)
        try:
            await kernel.end()
        finally:
            self._ended(kernel)

    async def close(self) -> None:
        """End all."""
        await asyncio.gather(*(self.end(kernel) for kernel in self), *self._endings, return_exceptions=True)

    def _look(self, kernel: KeptKernel) -> None:
        left = kernel.seconds_left
        if left is not None and left <= 0:
            log.info("kernel %s in %s was kept long enough", kernel.kernel_id, kernel.session.name)
            ending = asyncio.create_task(self.end(kernel))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            return
        # Not only once: a laptop that sleeps stops the loop's clock, and the kernel may work again.
        delay = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
        self._clocks[kernel.kernel_id] = asyncio.get_running_loop().call_later(delay, self._look, kernel)
