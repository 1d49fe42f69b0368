"""Blocking work beside an event loop, in daemon threads.

`asyncio.to_thread` is not used: its pool's threads are joined when the interpreter ends, so that one hanging TCP
connect would keep a finished program alive.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple, Unpack

from codespace_kernels.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Schedule a callback from any thread; a loop that is closed already no longer wants it."""
    try:
        if _is_running_here(loop):
            loop.call_soon(callback, *args)
        else:
            loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def call_here(loop: asyncio.AbstractEventLoop, here: Callable[[], object], elsewhere: Callable[[], object]) -> None:
    """Call one in the loop's own thread, the other in any other thread."""
    (here if _is_running_here(loop) else elsewhere)()


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether that is this thread's loop, which need not be woken: that takes two system calls."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class _Outcome(Generic[T]):
    def __init__(self, loop: asyncio.AbstractEventLoop, discard: Callable[[T], object] | None) -> None:
        self.future: asyncio.Future[T] = loop.create_future()
        self._discard = discard

    def succeed(self, result: T) -> None:
        if not self.future.done():
            self.future.set_result(result)
        elif self._discard is not None:
            self._discard(result)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


async def run_blocking(
    what: str,
    timeout: float,
    function: Callable[[Unpack[Ts]], T],
    *args: *Ts,
    discard: Callable[[T], object] | None = None,
) -> T:
    """Run a blocking function in a daemon thread of its own.

    The thread is not ended when the wait is: the function must have a bound of its own, or be woken by the caller.

    Args:
        what: What the function waits for, for the error's text.
        timeout: Seconds.
        function: Called with the rest of the arguments.
        args: For the function.
        discard: Frees a result that comes when nobody waits for it any more; called on the loop.

    Raises:
        WaitTimeoutError: No result in time.
    """
    loop = asyncio.get_running_loop()
    outcome = _Outcome(loop, discard)

    def work() -> None:
        try:
            result = function(*args)
        except BaseException as error:
            call_in_loop(loop, outcome.fail, error)
        else:
            call_in_loop(loop, outcome.succeed, result)

    threading.Thread(target=work, name=f"codespace-kernels {what}", daemon=True).start()
    try:
        async with asyncio.timeout(timeout) as limit:
            return await outcome.future
    except TimeoutError:
        # The function may have raised one of its own.
        if not limit.expired():
            raise
        raise WaitTimeoutError.after(what, timeout) from None
