"""What is made of samples: medians, percentiles, rates, and ratios round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

LOCAL = "local"
NETWORK_ALONE = "the network alone"
"""How long a kilobyte takes there and back: no way to a kernel, but what each of them needs at least."""

Value = Callable[[Any], float]
"""Makes a number of what one round gave."""


def median(values: Iterable[float]) -> float:
    """Give the median."""
    return float(statistics.median(list(values)))


def percentile(values: Iterable[float], share: float) -> float:
    """Give the value below which that share of all values is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def p95(values: Iterable[float]) -> float:
    """Give the value that one of twenty exceeds."""
    return percentile(values, 0.95)


def numbers(samples: list[Any]) -> list[Any]:
    """Leave out the texts of failures."""
    return [sample for sample in samples if not isinstance(sample, str)]


def flat(samples: list[Any]) -> list[float]:
    """Give the values of all rounds in one list."""
    return [value for sample in numbers(samples) for value in sample]


def rate(one: dict[str, float], key: str) -> float:
    """Give messages (`count`) or `bytes` a second."""
    return one[key] / one["ms"] * 1000 if one["ms"] else 0.0


def messages_a_second(one: Any) -> float:
    """Give the rate of messages in one round."""
    return rate(one, "count")


def bytes_a_second(one: Any) -> float:
    """Give the rate of bytes in one round."""
    return rate(one, "bytes")


def ratios(samples: list[Any], base: list[Any], value: Value) -> list[float]:
    """Give the ratio in each round in which both succeeded: what hit one round hit both."""
    return [
        value(one) / value(other)
        for one, other in zip(samples, base, strict=False)
        if not isinstance(one, str) and not isinstance(other, str) and value(other)
    ]


def spread(values: list[float], digits: int = 2) -> str:
    """Give the median, and the least and the most in brackets; empty where there are none."""
    if not values:
        return ""
    return f"{median(values):,.{digits}f} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"
