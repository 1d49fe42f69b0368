"""How long work says what it is doing, from the lowest layer up to a terminal, a log or a notebook cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class ProgressEvent:
    """One step of long work.

    Attributes:
        stage: Short stable name, for programs: `find`, `create`; of a workspace that is not there yet `stop`, `busy`,
            `queue`, `build`, `start` (see `start_steps`); then `tunnel`, `ssh`, `server`, `install`, `kernel`.
        message: The same for a person, present tense, no full stop: "Starting codespace hello (Provisioning)".
        fraction: 0 to 1 where the length is known, else None.
    """

    stage: str
    message: str
    fraction: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the form in which the event crosses a process border."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ProgressEvent:
        """Rebuild an event from `to_json`; unknown keys are ignored."""
        return cls(str(data["stage"]), str(data["message"]), data.get("fraction"))


Progress = Callable[[ProgressEvent], None]
"""Called on the event loop of the work; must return at once and not raise."""


def silent(event: ProgressEvent) -> None:
    """Drop the event: the default where nobody wants progress."""
