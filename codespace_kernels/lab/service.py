"""What the handlers share: the jobs, and the document that pages show and are told of whenever it changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.lab.jobs import Jobs

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.1
"""Changes that come so soon after each other are told as one."""

RETRY_SECONDS = 30.0
"""Before the broker is watched again after an error that nobody foresaw."""

NO_BROKER: dict[str, Any] = {"broker": None, "workspaces": [], "kernels": []}


class LabService:
    """The state of the panel of one Jupyter server.

    Args:
        emit: Called with the document after changes, on the event loop.
    """

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self.jobs = Jobs(self.changed)
        self._emit = emit
        self._status = NO_BROKER
        # Not from 0: pages outlive the server, and take what has the higher number.
        self._number = int(time.time() * 1000)
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    def document(self) -> dict[str, Any]:
        """Give what pages show: `number`, `status` (the broker's) and `jobs`.

        The number grows with each change, and from one server to the next.
        """
        return {"number": self._number, "status": self._status, "jobs": self.jobs.to_json()}

    def changed(self) -> None:
        """Hear that the document is another one; pages are told soon."""
        self._number += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._emit(self.document())

    def watch(self) -> None:
        """Begin to follow the broker, once there is a page that wants to know."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async for status in BrokerClient().watch():
                    self._status = status
                    # An equal one, too: a page that was cut off for a while then has it at last.
                    self.changed()
            except CodespaceKernelsError as error:
                log.info("The broker is not watched: %s", error)
            except Exception:
                log.exception("The broker is not watched")
            self._status = NO_BROKER
            self.changed()
            await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Stop everything; what was begun at GitHub goes on there."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self.jobs.close()
