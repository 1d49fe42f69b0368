"""What processes need over time, and whether that grows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MEGABYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Sample:
    """One look at a process.

    Attributes:
        at: Seconds since the beginning.
        rss: Bytes of memory.
        cpu: Seconds of one core so far.
        descriptors: Open files.
        threads: Of them.
        spooled: Bytes of files without a name.
    """

    at: float
    rss: int
    cpu: float
    descriptors: int
    threads: int
    spooled: int


@dataclasses.dataclass(frozen=True)
class Trend:
    """A straight line through values over time, by least squares.

    Attributes:
        mean: Of the values.
        per_hour: Its slope.
        error: Standard error of the slope.
        growth: By how much the line rises from the first sample to the last.
    """

    mean: float
    per_hour: float
    error: float
    growth: float


class Watch:
    """Looks at processes.

    Args:
        processes: By name.
    """

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self.samples: dict[str, list[Sample]] = {name: [] for name in processes}
        self._processes = processes
        self._began = time.monotonic()

    def look(self) -> dict[str, Sample]:
        """Look once.

        Raises:
            psutil.Error: A process is gone.
        """
        now = time.monotonic() - self._began
        for name, process in self._processes.items():
            with process.oneshot():
                times = process.cpu_times()
                sample = Sample(
                    at=round(now, 1),
                    rss=process.memory_info().rss,
                    cpu=times.user + times.system,
                    descriptors=process.num_fds(),
                    threads=process.num_threads(),
                    spooled=_spooled(process),
                )
            self.samples[name].append(sample)
        return {name: samples[-1] for name, samples in self.samples.items()}


def trend(samples: Sequence[Sample]) -> Trend:
    """Fit a line through the memory of some samples, in megabytes."""
    times = [sample.at / 3600 for sample in samples]
    values = [sample.rss / MEGABYTE for sample in samples]
    slope, start = statistics.linear_regression(times, values)
    rest = sum((value - start - slope * at) ** 2 for at, value in zip(times, values, strict=True))
    spread = sum((at - statistics.fmean(times)) ** 2 for at in times)
    error = math.sqrt(rest / max(1, len(times) - 2) / spread)
    return Trend(statistics.fmean(values), slope, error, slope * (times[-1] - times[0]))


def _spooled(process: psutil.Process) -> int:
    total = 0
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "(deleted)" in str(link.readlink()):
                total += link.stat().st_size
    return total
