"""What this package promises itself, and whether a run shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.numbers import (
    LOCAL,
    NETWORK_ALONE,
    bytes_a_second,
    flat,
    median,
    messages_a_second,
    numbers,
    p95,
    ratios,
    spread,
)

Samples = dict[str, list[Any]]

TUNNEL, SSH = "ours, tunnel", "ours, SSH"
BURST = 20_000
FAR_RTT, FAR_MBIT = 40.0, 100.0
MANY_KERNELS = 100


@dataclasses.dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        what: Is measured.
        limit: It should keep.
        measured: What it does; empty where it was not measured.
        met: Whether it keeps it; None where it was not measured.
    """

    what: str
    limit: str
    measured: str = ""
    met: bool | None = None


def bars(results: dict[str, Any]) -> list[Bar]:
    """Judge a run by all promises."""
    makers: tuple[Callable[[dict[str, Any]], Iterator[Bar]], ...] = (
        _latency, _neighbours, _rates, _far, _trips, _black_out, _idle, _launcher
    )  # fmt: skip
    return [bar for make in makers for bar in make(results)]


def _at_most(what: str, limit: float, values: list[float], unit: str = "", digits: int = 2) -> Bar:
    bar = f"≤ {limit:g}{unit}"
    return Bar(what, bar, f"{spread(values, digits)}{unit}", median(values) <= limit) if values else Bar(what, bar)


def _at_least(what: str, limit: float, values: list[float], unit: str = "") -> Bar:
    bar = f"≥ {limit:g}{unit}"
    return Bar(what, bar, f"{spread(values)}{unit}", median(values) >= limit) if values else Bar(what, bar)


def _latency(results: dict[str, Any]) -> Iterator[Bar]:
    found: Samples = results.get("messages", {}).get("latency", {})
    for way, base, limit in ((SSH, LOCAL, 1.3), (SSH, "sshpyk", 1.1), (TUNNEL, LOCAL, 1.7)):
        of = ratios(found.get(way, []), found.get(base, []), median)
        yield _at_most(f"latency on loopback, {way}, beside {base}", limit, of, " x")
    far: Samples = results.get("40 ms", {}).get("latency", {})
    alone = flat(far.get(NETWORK_ALONE, []))
    # The proxy that plays the distance has a part of its own in it.
    trip = round(median(alone), 1) if alone else FAR_RTT
    for way in (TUNNEL, SSH):
        of = [median(one) for one in numbers(far.get(way, []))]
        yield _at_most(f"latency at a round trip of {trip:g} ms, {way}", trip + 5, of, " ms", 1)


def _neighbours(results: dict[str, Any]) -> Iterator[Bar]:
    found: dict[str, Samples] = results.get("neighbours", {})
    quiet = found.get("quiet", {})
    for what in (
        "beside a flood of lines",
        "beside a flood of 1 MB displays",
        "while the server reads notebooks",
    ):
        for way in (TUNNEL, SSH):
            of = ratios(found.get(what, {}).get(way, []), quiet.get(way, []), p95)
            yield _at_most(f"p95 {what}, {way}, beside its quiet p95", 3, of, " x")


def _rates(results: dict[str, Any]) -> Iterator[Bar]:
    found: dict[str, Samples] = results.get("messages", {})
    burst, displays = found.get("burst", {}), found.get("displays of 1 MB", {})
    for way in (TUNNEL, SSH):
        came = [int(one["count"]) for one in numbers(burst.get(way, []))]
        what = f"a burst of {BURST:,} messages, {way}"
        told = f"{min(came):,} at least" if came else ""
        yield Bar(f"{what}: arrive", "all", told, set(came) == {BURST} if came else None)
        of = ratios(burst.get(way, []), burst.get(LOCAL, []), messages_a_second)
        yield _at_least(f"{what}: rate beside local", 0.8, of, " x")
    for way in (TUNNEL, SSH):
        of = ratios(displays.get(way, []), displays.get(LOCAL, []), bytes_a_second)
        yield _at_least(f"displays of 1 MB, {way}: rate beside local", 0.6, of, " x")


def _far(results: dict[str, Any]) -> Iterator[Bar]:
    found: Samples = results.get("40 ms", {}).get("displays of 1 MB", {})
    for way in (TUNNEL, SSH):
        of = [bytes_a_second(one) * 8 / (FAR_MBIT * 1e6) for one in numbers(found.get(way, []))]
        yield _at_least(f"share of a link of {FAR_MBIT:g} Mbit/s, {way}", 0.95, of)


def _trips(results: dict[str, Any]) -> Iterator[Bar]:
    found: dict[str, dict[str, float]] = results.get("round trips", {})
    for what, column, limit in (
        ("warm start until the kernel answers", "warm, ready", 1),
        ("cold start to the first result", "cold, first result", 14),
    ):
        trips = found.get(column, {}).get(TUNNEL)
        name, bar = f"{what}, {TUNNEL}, round trips beyond the kernel's own boot", f"≤ {limit}"
        # Whole ones are counted; a slope is not quite one.
        yield Bar(name, bar) if trips is None else Bar(name, bar, f"{trips:.1f}", round(trips) <= limit)


def _black_out(results: dict[str, Any]) -> Iterator[Bar]:
    of = results.get("black-outs", {}).get("black-out", {}).get(TUNNEL, [])
    what = f"lines of 300 lost over a black-out, {TUNNEL}"
    if not of:
        yield Bar(what, "0")
        return
    lost = [one if isinstance(one, str) else one["lost"] for one in of]
    whole = all(not isinstance(one, str) and one["lost"] == one["doubled"] == 0 and one["ordered"] for one in of)
    yield Bar(what, "0", ", ".join(map(str, lost)), whole)


def _idle(results: dict[str, Any]) -> Iterator[Bar]:
    rows = [row for row in results.get("idle", []) if row["process"] == "broker" and row["kernels"] == MANY_KERNELS]
    what = f"broker with {MANY_KERNELS} idle kernels"
    yield _at_most(f"{what}: memory", 150, [row["MB"] for row in rows], " MB", 0)
    yield _at_most(f"{what}: a core", 1, [row["cpu %"] for row in rows], " %")


def _launcher(results: dict[str, Any]) -> Iterator[Bar]:
    found: Samples = results.get("front end", {}).get("launcher to bound ports, warm broker", {})
    took = [value for of in found.values() for value in numbers(of)]
    yield _at_most("launcher up to bound ports, warm broker", 150, took, " ms", 0)
