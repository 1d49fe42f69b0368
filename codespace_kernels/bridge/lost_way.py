"""What a running cell shows while the way to its kernel is lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from codespace_kernels.bridge.waiting_line import WaitingLine, duration
from codespace_kernels.bridge.waiting_notes import WaitingNotes

if TYPE_CHECKING:
    from codespace_kernels.bridge.activity import Activity
    from codespace_kernels.bridge.owner import BridgeOwner

SHOW_AFTER = 5.0
"""Seconds; most losses are mended before, and nobody needs to know of them."""

TICK = 1.0
"""Seconds between two looks at the clock."""


class LostWayLine(WaitingLine):
    """A line among a cell's own outputs, which must stay as they are: `clear_output` would take them, too.

    No message takes a single output away. At the end the line is replaced by a display without any data: JupyterLab,
    Notebook 7 and VS Code show nothing for it, and its mark keeps it out of notebooks that a Jupyter server saves.
    """

    def clear(self) -> None:
        """Replace the line by nothing; where there is none, nothing is done."""
        if self._parent:
            self._publish_data("update_display_data", {})
        self._parent, self._text = b"", ""


class LostWayNotes(WaitingNotes):
    """A line at the loss and one at the end of it, for terminals."""

    end = "The connection is back after {duration}."


class LostWay:
    """Follows the way to the kernel, and tells the cell that runs while it stays lost.

    Args:
        activity: Knows which cell runs.
        owner: Knows what is being done about it, and hears what is told.
        line: Shows it in a cell; None where the front end would keep it among the results.
    """

    def __init__(self, activity: Activity, owner: BridgeOwner | None, line: LostWayLine | LostWayNotes | None) -> None:
        self._activity = activity
        self._owner = owner
        self._line = line
        self._since: float | None = None
        self._told = False
        self._timer: asyncio.TimerHandle | None = None

    def lost(self) -> None:
        """Hear that the way is lost; once more is no other loss."""
        if self._since is None:
            self._since = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(SHOW_AFTER, self._tick)

    def requested(self, msg_type: str) -> None:
        """Hear of a client's request: while the way is lost, a run means that somebody waits."""
        if self._since is not None and msg_type == "execute_request" and self._owner is not None:
            self._owner.somebody_waits()

    def found(self) -> None:
        """Hear that the way is there again."""
        since = self._since
        if since is None:
            return
        seconds = time.monotonic() - since
        if self._line is not None:
            self._line.finish(seconds)
        if self._told and self._owner is not None:
            self._owner.told_of_way(f"The connection is back after {duration(seconds)}.")
        self.forget()

    def forget(self) -> None:
        """Tell nothing more: there is no kernel any more to be reached."""
        if self._timer is not None:
            self._timer.cancel()
        if self._line is not None:
            self._line.clear()
        self._since, self._timer, self._told = None, None, False

    def _tick(self) -> None:
        assert self._since is not None
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        if self._owner is None:
            return
        state = self._owner.lost_way()
        if not self._told:
            self._told = True
            self._owner.told_of_way(f"{state.doing} ({state.outlook})" if state.outlook else state.doing)
        running = self._activity.running_executions
        if running and self._line is not None:
            self._line.show(running[0], state, time.monotonic() - self._since)
