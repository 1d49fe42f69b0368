"""Whether a process runs, and waiting until it does not.

A process that ended counts as such even where nobody asked for its status: that is its parent's to do, and the first
process of a container, which adopts whatever lost its own, may do so late or never. psutil would wait for that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOOK_SECONDS = 0.02


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; its id may have been given to another one since."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until processes have ended; gives those that have not. Blocks for so many seconds at most."""
    deadline = time.monotonic() + seconds
    left = list(processes)
    while (left := [process for process in left if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return left
