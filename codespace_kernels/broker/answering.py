"""A wait for a provider that tells of each answer of its API: however long the wait, an API that is silent ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import GitHubUnavailableError

if TYPE_CHECKING:
    from collections.abc import Coroutine


class AnswerWatch:
    """Ends waits in which nothing is heard at all.

    Args:
        seconds: For the first answer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._heard = asyncio.Event()

    def heard(self) -> None:
        """Hear of an answer."""
        self._heard.set()

    async def run(self, work: Coroutine[Any, Any, object], what: str) -> None:
        """Await work that calls `heard` with each answer.

        Args:
            work: The wait.
            what: What is asked for, an infinitive.

        Raises:
            GitHubUnavailableError: There was no answer in time, good or bad.
        """
        self._heard.clear()
        task, heard = asyncio.ensure_future(work), asyncio.ensure_future(self._heard.wait())
        try:
            await asyncio.wait({task, heard}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not heard.done():
                raise GitHubUnavailableError(f"GitHub did not {what} within {self._seconds:g} s.")
            await task
        finally:
            heard.cancel()
            task.cancel()
            await asyncio.gather(task, heard, return_exceptions=True)
