"""The network in front of a port: how far it is, and the proxy that plays it."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sys
import threading
import time

from benchmarks.programs import WAIT, BenchmarkError, Program


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


def echo_times(distance: Distance, count: int, size: int = 1000) -> list[float]:
    """Give milliseconds that bytes take there and back with nothing but the network in between."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        proxy = Proxy(server.getsockname()[1], distance)
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT) as ours:
                ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The first one waits until the proxy has connected.
                _there_and_back(ours, bytes(size))
                return [_there_and_back(ours, bytes(size)) for _ in range(count)]
        finally:
            proxy.end()


def _echo(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        theirs, _ = server.accept()
        with theirs:
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := theirs.recv(65536):
                theirs.sendall(data)


def _there_and_back(ours: socket.socket, data: bytes) -> float:
    began = time.perf_counter()
    ours.sendall(data)
    left = len(data)
    while left:
        got = ours.recv(left)
        if not got:
            raise BenchmarkError("the network in between is gone")
        left -= len(got)
    return 1000 * (time.perf_counter() - began)
