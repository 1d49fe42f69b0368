"""The network in front of a port: how far it is, and the proxy that plays it."""

from __future__ import annotations

import dataclasses
import sys

from benchmarks.programs import Program


@dataclasses.dataclass(frozen=True)
class Distance:
    """A network.

    Attributes:
        rtt: Round trip in ms.
        mbit: Mbit/s in each direction; 0: no limit.
        loss: Share of segments that are lost.
    """

    rtt: float = 0.0
    mbit: float = 0.0
    loss: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.rtt or self.mbit or self.loss)

    def __str__(self) -> str:
        if not self:
            return "loopback"
        parts = [f"{self.rtt:g} ms", f"{self.mbit:g} Mbit/s" if self.mbit else ""]
        return ", ".join(part for part in [*parts, f"{self.loss:.0%} of segments lost" if self.loss else ""] if part)


class Proxy:
    """A network in front of a port of this machine; see `benchmarks.distance`."""

    def __init__(self, target: int, distance: Distance) -> None:
        command = [sys.executable, "-m", "benchmarks.distance", str(target), "--rtt", str(distance.rtt)]
        command += ["--mbit", str(distance.mbit), "--loss", str(distance.loss)]
        self._program = Program(*command)
        self.port = int(self._program.read())

    def black_out(self, seconds: float) -> None:
        """Have it carry nothing for so many seconds from now on."""
        self._program.write(str(seconds))

    def end(self) -> None:
        """End it."""
        self._program.end()
