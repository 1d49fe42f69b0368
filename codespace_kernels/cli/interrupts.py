"""Ctrl-C and what else asks a verb to end: when it counts, and when it has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

INTERRUPTS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and its like off while something is started or cleaned up, which takes bounded time."""
    held: list[int] = []
    with _handled_by(lambda number, frame: held.append(number)):
        yield
    if held:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Clean up as after Ctrl-C when the terminal is closed or the process is told to end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def cancelled() -> Iterator[None]:
    """Have Ctrl-C and its like cancel the current task, once: what it then does to clean up is not disturbed."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    held: list[int] = []

    def cancel(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) == 1:
            loop.call_soon_threadsafe(task.cancel)

    with _handled_by(cancel):
        yield
