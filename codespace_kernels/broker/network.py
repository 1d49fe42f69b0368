"""Notices that the computer has slept, or has another network than before: connections may be dead without a word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two looks; one takes 0.1 ms (measured with two interfaces)."""

STOOD_STILL = 10.0
"""Seconds by which a look is late, or the clock that counts sleep is ahead of the one that does not."""

# Documentation addresses: nothing is sent there, only the route is looked up.
_FAR_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def elapsed() -> float:
    """Give seconds of a clock that nobody sets, and that goes on while the computer sleeps, as far as there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()


def network() -> frozenset[tuple[str, str]]:
    """Give what tells one network from another: addresses of interfaces that are up, and those of the way out."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    addresses = {
        (name, address.address)
        for name, found in psutil.net_if_addrs().items()
        for address in found
        if name in up and address.family in (socket.AF_INET, socket.AF_INET6)
    }
    return frozenset(addresses | {("way out", _source_address(*target)) for target in _FAR_AWAY})


def _source_address(family: socket.AddressFamily, target: str) -> str:
    """Give the address with which this computer would send to the internet; empty where there is no way."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])
    return ""


class NetworkWatch:
    """Looks every few seconds, as long as there is a connection to care about.

    Args:
        is_needed: Tells whether there is one.
        changed: Called with what was noticed, for the log.
        interval: Seconds between looks.
        stood_still: See `STOOD_STILL`.
        network: Gives what tells one network from another; called in a thread.
        clocks: Give seconds: one that stops while the computer sleeps, one that does not.
    """

    def __init__(
        self,
        is_needed: Callable[[], bool],
        changed: Callable[[str], None],
        *,
        interval: float = INTERVAL,
        stood_still: float = STOOD_STILL,
        network: Callable[[], object] = network,
        clocks: tuple[Callable[[], float], Callable[[], float]] = (time.monotonic, elapsed),
    ) -> None:
        self._is_needed = is_needed
        self._changed = changed
        self._interval = interval
        self._stood_still = stood_still
        self._network = network
        self._clocks = clocks

    async def run(self) -> None:
        """Look again and again. Never returns."""
        known: object = None
        awake, all_time = self._now()
        while True:
            await asyncio.sleep(self._interval)
            before, (awake, all_time) = (awake, all_time), self._now()
            slept = max(awake - before[0], all_time - before[1]) - self._interval
            if not self._is_needed():
                known = None
                continue
            found = await self._look()
            if slept > self._stood_still:
                self._tell(f"the computer or this process stood still for {slept:.0f} s")
            elif known not in (None, found):
                self._tell("this computer's network has changed")
            known = found

    def _now(self) -> tuple[float, float]:
        return self._clocks[0](), self._clocks[1]()

    async def _look(self) -> object:
        try:
            return await asyncio.to_thread(self._network)
        except (OSError, psutil.Error) as error:
            log.debug("the network cannot be looked at: %s", error)
            return None

    def _tell(self, what: str) -> None:
        log.info("%s: connections are looked at", what)
        self._changed(what)
