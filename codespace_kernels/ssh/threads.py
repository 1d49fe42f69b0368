"""Blocking work beside an event loop, in daemon threads.

`asyncio.to_thread` is not used: its pool's threads are joined when the interpreter ends, so that one hanging TCP
connect would keep a finished program alive.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from codespace_kernels.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Schedule a callback from any thread; a loop that is closed already no longer wants it."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def run_blocking(what: str, timeout: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a daemon thread of its own.

    The thread is not ended when the wait is: the function must have a bound of its own, or be woken by the caller.

    Args:
        what: What the function waits for, for the error's text.
        timeout: Seconds.
        function: Called with the rest of the arguments.
        args: For the function.
        kwargs: For the function.

    Raises:
        WaitTimeoutError: No result in time.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T allows it

    def work() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            call_in_loop(loop, settle, None, error)
        else:
            call_in_loop(loop, settle, result, None)

    threading.Thread(target=work, name=f"codespace-kernels {what}", daemon=True).start()
    try:
        async with asyncio.timeout(timeout):
            return await future
    except TimeoutError:
        if future.done() and not future.cancelled():
            raise
        raise WaitTimeoutError.after(what, timeout) from None
