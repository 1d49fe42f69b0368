"""The start of a remote kernel: at once where its workspace runs, else behind the bridge's stand-in."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge import WaitingState
from codespace_kernels.broker.kernel_place import May
from codespace_kernels.broker.protocol import as_known_error
from codespace_kernels.errors import (
    CodespaceKernelsError,
    WorkspaceConnectionError,
    WorkspaceNotCreatedError,
    WorkspaceStoppedError,
)
from codespace_kernels.start_steps import LONG_STAGES, StartSteps
from codespace_kernels.target import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from codespace_kernels.bridge import KernelBridge
    from codespace_kernels.progress import ProgressEvent

log = logging.getLogger(__name__)

STAND_IN_AFTER = 10.0
"""Seconds after which a kernel that still starts is stood in for: front ends give up after 60."""


NOT_RUNNING = (WorkspaceStoppedError, WorkspaceNotCreatedError)
"""There is no running workspace, and the attempt was not allowed to change that."""


class KernelStart:
    """Starts one kernel, again and again where it has to be, with one attempt at a time.

    Args:
        bridge: Of the kernel; stands in until the remote kernel is attached to it.
        start_remote: Starts the remote kernel and attaches it; told what it may do to have a running workspace.
        kernel_info: Gives what the stand-in says of the kernel.
        wake: The spec's policy.
        workspace: Gives its name, for people.
        failed: Called with an error that no cell could be told.
    """

    def __init__(
        self,
        bridge: KernelBridge,
        start_remote: Callable[[May], Coroutine[Any, Any, None]],
        kernel_info: Callable[[], Mapping[str, Any]],
        *,
        wake: str,
        workspace: Callable[[], str],
        failed: Callable[[CodespaceKernelsError], None],
    ) -> None:
        self._bridge = bridge
        self._start_remote = start_remote
        self._kernel_info = kernel_info
        self._may_at_run = May.CONNECT if wake == NEVER else May.CREATE
        self._workspace = workspace
        self._failed = failed
        self._attempt: asyncio.Task[None] | None = None
        self._attempt_may = May.CONNECT
        self._not_running = asyncio.Event()
        self._last_step: ProgressEvent | None = None
        self._steps = StartSteps()

    async def launch(self, may: May, *, may_stand_in: bool = True) -> None:
        """Start the remote kernel; return when it runs, or is left to the stand-in, as nobody knows how long it takes.

        Args:
            may: What is done for the workspace without waiting for a run.
            may_stand_in: Whether the stand-in may take over while workspace and kernel start.

        Raises:
            CodespaceKernelsError: The workspace runs or cannot be looked at, and the kernel did not start.
        """
        self._not_running.clear()
        attempt = self._begin(may)
        if not may_stand_in:
            await asyncio.wait({attempt})
        # A workspace that runs may still need minutes, for its first Jupyter server say.
        standing_in = asyncio.get_running_loop().call_later(STAND_IN_AFTER, self._stand_in)
        asleep = asyncio.create_task(self._not_running.wait())
        try:
            await asyncio.wait({attempt, asleep}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asleep.cancel()
            standing_in.cancel()
        if attempt.done() and not isinstance(_error_of(attempt), NOT_RUNNING):
            self._attempt = None
            attempt.result()
        else:
            attempt.add_done_callback(self._ended)
            self._stand_in()

    @property
    def under_way(self) -> bool:
        """Whether the kernel is being started now."""
        return self._attempt is not None

    def wait_for_run(self) -> None:
        """Leave the kernel to the stand-in until a cell is run."""
        self._stand_in()

    def run_waits(self) -> None:
        """Start the kernel for a cell that waits, and its workspace where the spec allows it."""
        # A kernel that is there and has not answered yet needs no other one.
        if self._attempt is None and not self._bridge.is_coming:
            self._begin(self._may_at_run).add_done_callback(self._ended)
        self._tell()

    def progressed(self, event: ProgressEvent) -> bool:
        """Hear of a step; tells whether it is another one than before."""
        if event.stage in LONG_STAGES:
            self._not_running.set()
        if event == self._last_step:
            return False
        self._last_step = event
        self._steps.take(event)
        self._tell()
        return True

    def _tell(self) -> None:
        doing = self._last_step.message if self._last_step else f"Waiting for {self._workspace()}"
        self._bridge.tell_waiting(WaitingState(doing, self._steps.bar, self._steps.outlook))

    def abandon(self) -> asyncio.Task[None] | None:
        """Cancel the attempt that is under way; give it."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        return attempt

    async def close(self) -> None:
        """Give up the attempt that is under way, and what waits for it."""
        self._bridge.forget_waiting()
        await self.give_up()

    async def give_up(self) -> None:
        """Cancel the attempt that is under way, and wait for its end."""
        if (attempt := self.abandon()) is not None:
            await asyncio.gather(attempt, return_exceptions=True)

    def _begin(self, may: May) -> asyncio.Task[None]:
        self._last_step = None
        self._steps = StartSteps()
        self._attempt_may = may
        self._attempt = asyncio.create_task(self._start_remote(may))
        return self._attempt

    def _stand_in(self) -> None:
        self._bridge.stand_in(self._kernel_info())

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        """Tell the waiting cells when the kernel did not start."""
        error = _error_of(attempt)
        if attempt is not self._attempt:
            return
        self._attempt = None
        if error is None:
            return
        asleep = isinstance(error, NOT_RUNNING)
        if asleep and self._attempt_may < self._may_at_run:
            # It was tried without being asked for; a cell may have come to wait meanwhile.
            if self._bridge.has_waiting_runs:
                self.run_waits()
            return
        if not self._bridge.fail_waiting(error) and not asleep:
            self._failed(error)


def _error_of(attempt: asyncio.Task[None]) -> CodespaceKernelsError | None:
    if attempt.cancelled():
        return WorkspaceConnectionError("The connection to the workspace was given up. Run the cell again.")
    error = attempt.exception()
    return None if error is None else as_known_error(error)
