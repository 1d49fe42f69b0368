"""What a bridge has done, for status displays."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class BridgeStats:
    """A snapshot of one bridge.

    Attributes:
        to_kernel, to_clients: Messages carried each way, by channel name.
        wrong_signature, malformed, duplicates, overflowed: Messages that were dropped, by reason.
        gaps: How often output may have been lost on the way from the kernel.
        last_activity: Unix time, in seconds, of the last message either way.
        execution_state: `starting`, `idle`, `busy` or `dead`, as the kernel's iopub says.
        pending_requests: Requests that were not answered yet, queued ones included.
        queued_requests: Requests that wait for a kernel to be attached.
    """

    to_kernel: dict[str, int]
    to_clients: dict[str, int]
    wrong_signature: int
    malformed: int
    duplicates: int
    overflowed: int
    gaps: int
    last_activity: float
    execution_state: str
    pending_requests: int
    queued_requests: int

    @property
    def dropped(self) -> int:
        """All messages that were dropped."""
        return self.wrong_signature + self.malformed + self.duplicates + self.overflowed

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object for the broker's API."""
        return dataclasses.asdict(self)
