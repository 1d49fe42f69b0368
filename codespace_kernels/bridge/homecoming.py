"""Keeps messages until the clients of a broker that died are back: its successor's sockets would drop them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 5.0
"""Seconds after which they are not waited for any more. ZMQ tries to connect again every 0.1 s."""

SETTLING = 0.3
"""Seconds from the first client's subscription: its other channels, and other clients, come right behind."""


RECENT = 15.0
"""Seconds for which a client that asked something before counts as one that will be back."""


class Homecoming:
    """Holds what is to be sent, in order, from `begin` until clients are there."""

    def __init__(self) -> None:
        self._held: list[Callable[[], None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._subscribed = False
        self._begun_at = float("-inf")

    @property
    def is_recent(self) -> bool:
        """Whether a client that is not there may still be on its way."""
        return time.monotonic() - self._begun_at < RECENT

    def begin(self) -> None:
        """Hold from now on."""
        self._begun_at = time.monotonic()
        self._held = []
        self._plan(PATIENCE)

    def holds(self, send: Callable[[], None]) -> bool:
        """Take a call that sends something, to be made later; false where it can be made now."""
        if self._held is None:
            return False
        self._held.append(send)
        return True

    def subscribed(self) -> None:
        """Hear that a client has subscribed."""
        if self._held is not None and not self._subscribed:
            self._subscribed = True
            self._plan(SETTLING)

    def close(self) -> None:
        """Drop what is held."""
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._release)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for send in held:
            send()
