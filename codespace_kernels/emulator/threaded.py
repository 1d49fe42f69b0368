"""An emulator for code that has no event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

from codespace_kernels.emulator.server import Emulator
from codespace_kernels.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from codespace_kernels.emulator.account import Account
    from codespace_kernels.emulator.faults import FaultBoard

T = TypeVar("T")

_START_SECONDS = 30.0
_CLOSE_SECONDS = 30.0


class ThreadedEmulator:
    """Runs an `Emulator` on an event loop in a thread of its own; a context manager.

    Args:
        emulator: What to run; it must not have been started.
    """

    def __init__(self, emulator: Emulator | None = None) -> None:
        self.emulator = emulator or Emulator()
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, name="emulator", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def api_url(self) -> str:
        """Base of the REST API, without a trailing slash."""
        return self.emulator.api_url

    @property
    def token(self) -> str:
        """A classic token of the emulated user, with scope `codespace`."""
        return self.emulator.token

    @property
    def account(self) -> Account:
        """The emulated account, to be read; what changes it goes through `call`."""
        return self.emulator.account

    @property
    def faults(self) -> FaultBoard:
        """The faults, safe to use from any thread."""
        return self.emulator.faults

    def environment(self) -> dict[str, str]:
        """Give the variables with which the real `gh` and this package use the emulated account."""
        return self.emulator.environment()

    def start(self) -> None:
        """Start the emulator and wait until it answers.

        Raises:
            EmulatorError: As `Emulator.start`.
            WaitTimeoutError: It does not answer in time.
        """
        self._thread.start()
        try:
            self._ready.result(_START_SECONDS)
        except TimeoutError:
            raise WaitTimeoutError.after("the emulator to start", _START_SECONDS) from None

    def call(self, work: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Run a coroutine on the emulator's event loop and give its result.

        Args:
            work: What to run.
            timeout: Seconds.

        Raises:
            WaitTimeoutError: It did not end in time; it was cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._ready.result(0))
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise WaitTimeoutError.after("the emulator's event loop", timeout) from None

    def close(self) -> None:
        """End the emulator and its thread. Closing twice is no error.

        Raises:
            WaitTimeoutError: It does not end in time.
        """
        if self._thread.is_alive():
            self._ready.result(0).call_soon_threadsafe(self.emulator.begin_close)
            self._thread.join(_CLOSE_SECONDS)
            if self._thread.is_alive():
                raise WaitTimeoutError.after("the emulator to end", _CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        async with self.emulator:
            self._ready.set_result(asyncio.get_running_loop())
            await self.emulator.wait_closed()
