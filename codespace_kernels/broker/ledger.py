"""When each workspace was seen running, in a file that outlives the broker: what an estimate of costs is made from."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.providers.prices import dollars_per_hour
from codespace_kernels.settings import state_dir
from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from codespace_kernels.target import Account

log = logging.getLogger(__name__)

VERSION = 1
"""Of the file's form."""

SAMPLE_GAP = 150.0
"""Seconds between two sightings that are taken for one run: a stop and a start between them would take most of it."""

KEPT_DAYS = 400
"""How long an interval is kept: somewhat more than a year, so that a month can be compared with that of last year."""

_MAX_CORES = 4096


@dataclasses.dataclass
class Interval:
    """A time in which a workspace ran without interruption, as far as it was seen.

    Attributes:
        begin: Unix time of its start, or of the first sighting.
        end: Unix time of the last sighting, or of its stop.
        cores: Of its machine; None where that is not known.
        exact: Whether `begin` is when it started.
        era: Changes whenever the workspace starts anew (see `KernelHost.era`), empty where it is not known.
        open: Whether no stop was seen yet.
    """

    begin: float
    end: float
    cores: int | None = None
    exact: bool = False
    era: str = ""
    open: bool = True

    def hours(self, since: float, until: float) -> float:
        """Give how much of it lies between two Unix times."""
        return max(0.0, min(self.end, until) - max(self.begin, since)) / 3600

    def dollars(self, hours: float) -> float | None:
        """Give the published price of so many hours; None where none is known."""
        price = dollars_per_hour(self.cores)
        return None if price is None else price * hours

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Interval:
        """Rebuild from its fields.

        Raises:
            KeyError, TypeError, ValueError: They are none.
        """
        interval = cls(**data)
        times = (interval.begin, interval.end)
        if not all(type(moment) in (int, float) and math.isfinite(moment) for moment in times):
            raise ValueError("a time is no number")
        if not 0 < interval.begin <= interval.end:
            raise ValueError("an interval ends before it begins")
        if interval.cores is not None and not (type(interval.cores) is int and 0 < interval.cores <= _MAX_CORES):
            raise ValueError("cores are no number")
        if (type(interval.exact), type(interval.open), type(interval.era)) != (bool, bool, str):
            raise ValueError("a field has the wrong type")
        return interval


class Month(NamedTuple):
    """What was seen of a calendar month.

    Attributes:
        hours: In which the workspace ran.
        dollars: Their published price; None where a part of them has none.
    """

    hours: float
    dollars: float | None


class Ledger:
    """The intervals of each workspace. Reading blocks on the disk once, `save` each time: call it in a thread.

    Args:
        path: Of the file. One that is torn or foreign is never trusted: it is set aside and counts as empty.
        clock: Gives the Unix time.
        read_only: Whether a file that is of no use is left where it is: only the broker writes.

    Attributes:
        clock: The clock.
        unsaved: Whether there is something to save.
        runs_changed: Whether a run began or ended since `save`, so that it is worth saving soon.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, read_only: bool = False) -> None:
        self.clock = clock
        self.unsaved = self.runs_changed = False
        self._path = path
        self._read_only = read_only
        self._intervals = self._load()

    def seen_running(
        self, key: str, *, at: float | None = None, cores: int | None = None, started: bool = False, era: str = ""
    ) -> None:
        """Note that a workspace runs.

        It is the run that was seen before where both are known to be of one era, or so near that it can be no other.

        Args:
            key: Of the workspace, see `key_of`.
            at: Unix time of the sighting; now where None.
            cores: Of its machine, where known.
            started: Whether it was seen to start just now.
            era: See `Interval.era`.
        """
        at = self.clock() if at is None else at
        intervals = self._intervals.setdefault(key, [])
        index = None if started else _same_run(intervals, at, era)
        if index is None:
            intervals.append(Interval(at, at, cores, started, era))
            self.runs_changed = True
        else:
            interval = intervals[index]
            interval.end, interval.open = max(interval.end, at), True
            # The machine of a run does not change: another one is had from the next start on.
            interval.cores, interval.era = interval.cores or cores, era or interval.era
            del intervals[index + 1 :]
        self.unsaved = True

    def seen_stopped(self, key: str) -> None:
        """Note that a workspace runs no more. What lies between this and the last sighting counts if that is near."""
        interval = self._last(key)
        if interval is None or not interval.open:
            return
        now = self.clock()
        if now - interval.end <= SAMPLE_GAP:
            interval.end = max(interval.end, now)
        interval.open = False
        self.unsaved = self.runs_changed = True

    def session(self, key: str) -> Interval | None:
        """Give the run of now, up to now; None where the workspace was not seen lately, or was seen stopped."""
        interval, now = self._last(key), self.clock()
        if interval is None or not interval.open or now - interval.end > SAMPLE_GAP:
            return None
        return dataclasses.replace(interval, end=max(interval.end, now))

    def month(self, key: str) -> Month:
        """Give what was seen of this calendar month, in UTC."""
        now = self.clock()
        today = datetime.datetime.fromtimestamp(now, datetime.UTC)
        begin = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
        hours, dollars = 0.0, 0.0
        known = True
        for interval in self._until_now(key):
            part = interval.hours(begin, now)
            price = interval.dollars(part)
            hours += part
            dollars += price or 0.0
            known = known and (price is not None or not part)
        return Month(hours, dollars if known else None)

    def _until_now(self, key: str) -> Iterator[Interval]:
        """Give the intervals, the last one up to now where it is the run of now."""
        intervals = self._intervals.get(key, [])
        yield from intervals[:-1]
        yield from intervals[-1:] if (session := self.session(key)) is None else [session]

    def _last(self, key: str) -> Interval | None:
        intervals = self._intervals.get(key)
        return intervals[-1] if intervals else None

    def to_text(self) -> str:
        """Give the file's content, without what is too old to matter."""
        oldest = self.clock() - KEPT_DAYS * 86400
        kept = {
            key: [dataclasses.asdict(interval) for interval in intervals if interval.end >= oldest]
            for key, intervals in self._intervals.items()
        }
        return json.dumps({"version": VERSION, "workspaces": {key: found for key, found in kept.items() if found}})

    def save(self, text: str) -> None:
        """Write the file, all of it or nothing. A failure is logged: an estimate is not worth more."""
        try:
            replace_file(self._path, text.encode())
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)

    def _load(self) -> dict[str, list[Interval]]:
        try:
            return _parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._set_aside(error)
            return {}

    def _set_aside(self, error: Exception) -> None:
        if self._read_only:
            return
        aside = self._path.with_suffix(".set-aside")
        log.warning("%s cannot be used (%r); it is set aside as %s", self._path, error, aside.name)
        with contextlib.suppress(OSError):
            self._path.replace(aside)


def _parse(text: str) -> dict[str, list[Interval]]:
    data = json.loads(text)
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']!r}")
    return {
        str(key): [Interval.from_json(entry) for entry in intervals] for key, intervals in data["workspaces"].items()
    }


def _same_run(intervals: list[Interval], at: float, era: str) -> int | None:
    """Give the place of the interval that a sighting belongs to."""
    if era:
        # Sightings that could not be told to be of this run may have come after its last one.
        for index in reversed(range(len(intervals))):
            if intervals[index].era == era:
                return index
    if intervals and intervals[-1].open and at - intervals[-1].end <= SAMPLE_GAP:
        return len(intervals) - 1
    return None


def key_of(account: Account, workspace: str) -> str:
    """Give the key of a workspace."""
    return f"{account.key}/{workspace}"


def ledger_path() -> Path:
    """Give the path of this user's ledger."""
    return state_dir() / "usage.json"
