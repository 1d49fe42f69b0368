"""Notices what happens to kernels without our doing.

Only a death that the server's own restarter handles is called back; a kernel that was deleted over REST, culled or
restarted by another front end is told to nobody, on any version. So a timer compares.
"""

from __future__ import annotations

import logging
from typing import Any, Awaitable, Callable, Dict, Optional, Set

from .kernels import CommandError, Kernels

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between looks; asking whether a child process lives costs microseconds."""


class KernelWatch:
    """Watches the kernels that clients have open.

    Args:
        kernels: The lifecycle.
        tell: Called with an event (`died`, `ended`, `restarted`) and, for the last, the connection info.
        start_again: Called with a kernel that may be started anew; raises `CommandError` where that fails.
    """

    def __init__(
        self,
        kernels: Kernels,
        tell: Callable[[Dict[str, Any], Optional[Dict[str, Any]]], None],
        start_again: Callable[[str], Awaitable[None]],
    ) -> None:
        self._kernels = kernels
        self._tell = tell
        self._start_again = start_again
        self._processes: Dict[str, Optional[int]] = {}
        self._dead: Set[str] = set()
        self._ours: Set[str] = set()

    def add(self, kernel_id: str) -> None:
        """Begin to watch a kernel."""
        if kernel_id not in self._processes:
            self._processes[kernel_id] = self._kernels.process_of(kernel_id)

    def remove(self, kernel_id: str) -> None:
        """Watch it no more."""
        self._processes.pop(kernel_id, None)
        self._dead.discard(kernel_id)

    def begin_change(self, kernel_id: str) -> None:
        """Look away: we restart or end the kernel ourselves."""
        self._ours.add(kernel_id)

    def end_change(self, kernel_id: str) -> None:
        """Look again; what is there now is as it should be."""
        self._ours.discard(kernel_id)
        if kernel_id in self._processes and kernel_id in self._kernels:
            self._processes[kernel_id] = self._kernels.process_of(kernel_id)
            self._dead.discard(kernel_id)

    async def look(self) -> None:
        """Compare each kernel with what it was."""
        for kernel_id in list(self._processes):
            if kernel_id in self._ours:
                continue
            if kernel_id not in self._kernels:
                self.remove(kernel_id)
                self._say("ended", kernel_id, "The kernel was shut down by somebody else in the workspace.")
            elif not self._kernels.in_transition(kernel_id):
                await self._look_at(kernel_id)

    async def _look_at(self, kernel_id: str) -> None:
        if not await self._kernels.is_alive(kernel_id):
            if kernel_id not in self._dead and not await self._revived(kernel_id):
                self._dead.add(kernel_id)
                self._kernels.set_state(kernel_id, "dead")
                reason = await self._kernels.describe_end(kernel_id)
                log.warning("kernel %s: %s", kernel_id, reason)
                self._say("died", kernel_id, reason)
        elif self._kernels.process_of(kernel_id) != self._processes.get(kernel_id):
            self.end_change(kernel_id)
            self._kernels.take_over_activity(kernel_id)
            info = self._kernels.connection_info(kernel_id)
            self._say("restarted", kernel_id, "The kernel was restarted by somebody else in the workspace.", info)

    async def _revived(self, kernel_id: str) -> bool:
        if not self._kernels.may_start_again(kernel_id):
            return False
        log.warning("kernel %s, just started: %s", kernel_id, await self._kernels.describe_end(kernel_id))
        try:
            await self._start_again(kernel_id)
        except CommandError as error:
            log.warning("kernel %s could not be started again: %s", kernel_id, error)
            return False
        return True

    def _say(self, event: str, kernel_id: str, reason: str, info: Optional[Dict[str, Any]] = None) -> None:
        self._tell({"event": event, "kernel_id": kernel_id, "reason": reason}, info)
