"""A way to a workspace that is lost: it is tried to have another one, without end while a kernel waits for it."""

from __future__ import annotations

import asyncio
import logging
import random
import textwrap
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.errors import (
    AuthError,
    CodespaceKernelsError,
    GitHubError,
    RemoteServerError,
    WaitTimeoutError,
    WorkspaceConnectionError,
    WorkspaceFailedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_LONGEST_REASON = 160
"""Characters that are shown in a cell."""

_random = random.SystemRandom()

_PASSING = (WorkspaceConnectionError, GitHubError, WaitTimeoutError, AuthError)
"""Failures that another try may not meet, be it that a person signs in again meanwhile."""


class Patience(NamedTuple):
    """How often and for how long it is tried.

    Attributes:
        delays: Seconds before each try; the last one repeats. Each has jitter of a quarter up or down.
        unused: Seconds after which it is given up where no kernel waits for it.
        server_failures: Tries in a row in which the workspace can be reached, but its Jupyter server cannot be had,
            after which it is given up: a disk that is full, say, which no waiting mends.
        fresh: Seconds for which a try counts as just begun, so that news of the network do not begin it again.
    """

    delays: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
    unused: float = 600.0
    server_failures: int = 8
    fresh: float = 1.0


class Mending:
    """The time from the loss of one way to the next.

    Args:
        attempt: Tries once.
        is_needed: Tells whether anybody waits for it.
        changed: Called when what `describe` gives has changed.
        reason: Why the way was lost, a sentence.
        patience: See there.

    Attributes:
        tries: How many were made, the one that is under way included.
        reason: Why there is no way yet, a sentence.
    """

    def __init__(
        self,
        attempt: Callable[[], Awaitable[None]],
        is_needed: Callable[[], bool],
        changed: Callable[[], None],
        reason: str,
        patience: Patience = Patience(),  # noqa: B008  (frozen)
    ) -> None:
        self.tries = 0
        self.reason = reason
        self._attempt = attempt
        self._is_needed = is_needed
        self._changed = changed
        self._patience = patience
        self._failures = 0
        self._server_failures = 0
        self._needed_at = time.monotonic()
        self._hurried = asyncio.Event()
        self._stale = asyncio.Event()

    def describe(self) -> str:
        """Tell which try it is and why it is not mended, for a person."""
        reason = textwrap.shorten(self.reason, _LONGEST_REASON, placeholder=" …")
        return f"try {self.tries}: {reason}" if self.tries else reason

    def to_json(self) -> dict[str, Any]:
        """Give what `status` shows."""
        return {"tries": self.tries, "reason": self.reason}

    def hurry(self) -> None:
        """Try now, and with short pauses again: somebody waits."""
        self._failures = 0
        self._hurried.set()

    def start_over(self) -> None:
        """Do as `hurry`, and give up a try that is under way: it may wait for what is sent over another network."""
        self.hurry()
        self._stale.set()

    async def run(self) -> bool:
        """Try until it is mended; false where it was given up, since nobody needs it.

        Raises:
            CodespaceKernelsError: No further try will help.
        """
        while True:
            await self._pause()
            if not self._is_waited_for():
                return False
            self.tries += 1
            self._changed()
            try:
                if await self._try():
                    return True
            except CodespaceKernelsError as error:
                self._failed(error)
            except Exception as error:
                log.exception("an attempt to reconnect failed inside")
                self._failed(WorkspaceConnectionError(f"It failed inside codespace-kernels: {error!r}."))

    def _is_waited_for(self) -> bool:
        now = time.monotonic()
        if self._is_needed():
            self._needed_at = now
        return now - self._needed_at < self._patience.unused

    async def _pause(self) -> None:
        delays = self._patience.delays
        seconds = delays[min(self._failures, len(delays) - 1)] * _random.uniform(0.75, 1.25)
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            pass
        self._hurried.clear()
        self._stale.clear()

    async def _try(self) -> bool:
        """Try once; false where it was given up, as the news came that things have changed."""
        begun = time.monotonic()
        attempt = asyncio.ensure_future(self._attempt())
        try:
            while not attempt.done():
                stale = asyncio.ensure_future(self._stale.wait())
                await asyncio.wait({attempt, stale}, return_when=asyncio.FIRST_COMPLETED)
                stale.cancel()
                if self._stale.is_set() and time.monotonic() - begun >= self._patience.fresh:
                    break
                self._stale.clear()
            if not attempt.done():
                return False
            attempt.result()
            return True
        finally:
            attempt.cancel()
            await asyncio.wait({attempt})

    def _failed(self, error: CodespaceKernelsError) -> None:
        """Take note of a failure.

        Raises:
            CodespaceKernelsError: This one, where no further try will help.
        """
        of_server = isinstance(error, RemoteServerError)
        self._server_failures = self._server_failures + 1 if of_server else 0
        if not self._may_pass(error):
            raise error
        self._failures += 1
        self.reason = str(error)
        log.info("still no connection after try %d: %s", self.tries, error)
        self._changed()

    def _may_pass(self, error: CodespaceKernelsError) -> bool:
        if isinstance(error, WorkspaceFailedError):
            return error.may_pass
        if isinstance(error, RemoteServerError):
            return self._server_failures < self._patience.server_failures
        return isinstance(error, _PASSING)
