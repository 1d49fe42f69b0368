"""Who watches the broker's status: told at once of what changed, and of the rest now and then."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

PAUSE = 1.0
"""Seconds between two documents, at least."""

HEARTBEAT = 15.0
"""Seconds between two documents, at most: what grows steadily (cost, counts) is not told sooner."""

_STEADY = {
    "workspaces": ("round_trip", "round_trip_ms"),
    "usage": ("session_dollars", "month_dollars", "month_hours"),
    "kernels": ("messages",),
}
"""What is no news by itself, by the part of the document that has it."""


class Watchers:
    """Gives each watcher the newest status at its own speed: a slow one misses states and holds nobody up.

    Args:
        status: Gives the document.
        pause: Seconds; see `PAUSE`.
        heartbeat: Seconds; see `HEARTBEAT`.
    """

    def __init__(
        self, status: Callable[[], dict[str, Any]], *, pause: float = PAUSE, heartbeat: float = HEARTBEAT
    ) -> None:
        self._status = status
        self._pause = pause
        self._heartbeat = heartbeat
        self._count = 0
        self._news = asyncio.Event()
        self._closed = asyncio.Event()

    def __len__(self) -> int:
        return self._count

    def changed(self) -> None:
        """Note that the status may have changed. Cheap: it is looked at when a watcher is ready for it."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def documents(self) -> AsyncGenerator[dict[str, Any]]:
        """Give the status now, and again whenever it has changed, until `close`."""
        self._count += 1
        try:
            async for document in self._documents():
                yield document
        finally:
            self._count -= 1

    async def _documents(self) -> AsyncGenerator[dict[str, Any]]:
        shown: Any = None
        while not self._closed.is_set():
            news, document = self._news, self._status()
            # What is given away may be late by the time it was written, so that the clock begins before.
            due = time.monotonic() + self._heartbeat
            shown = _news_of(document)
            yield document
            await self._wait(asyncio.sleep(self._pause))
            while not self._closed.is_set() and time.monotonic() < due:
                await self._wait(news.wait(), due - time.monotonic())
                news = self._news
                if _news_of(self._status()) != shown:
                    break

    async def _wait(self, event: Any, seconds: float | None = None) -> None:
        """Wait for something, for a time, or for `close`."""
        waits = [asyncio.ensure_future(event), asyncio.ensure_future(self._closed.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def close(self) -> None:
        """End every watcher's documents."""
        self._closed.set()


def _news_of(document: dict[str, Any]) -> Any:
    """Give the part of a status whose change is told at once."""
    workspaces = [
        {**_without(entry, "workspaces"), "usage": _without(entry["usage"], "usage")}
        for entry in document["workspaces"]
    ]
    return workspaces, [_without(entry, "kernels") for entry in document["kernels"]]


def _without(entry: dict[str, Any], part: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _STEADY[part]}
