"""Ends the processes of an emulated machine, those that left their parents too.

Every process inside has the variable `CODESPACE_KERNELS_MACHINE`, which its children inherit. A process that hides its
environment (OpenSSH's `sshd` overwrites it with its title) is found as a child of one that ended up here, or by the
caller's list.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable

import psutil

from codespace_kernels.processes import is_alive, wait_for_end

MARKER = "CODESPACE_KERNELS_MACHINE"

_ROUNDS = 5


def marked_processes(marker: str) -> list[psutil.Process]:
    """Give all processes whose environment has this marker, this one excepted."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARKER) == marker:
                found.append(process)
    return found


def end_processes(marker: str, also: Iterable[int] = (), patience: float = 3.0) -> int:
    """End every process of a machine, and their descendants: first asked, then killed. Blocks.

    Works without the emulator that started them: a later one can clean up after one that was killed.

    Args:
        marker: The machine's marker (`inside.machine_marker`).
        also: Process ids of children that may hide their environment.
        patience: Seconds between asking and killing.

    Returns:
        How many processes there were.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + patience
    # A process may start another while its list is worked off.
    for _ in range(_ROUNDS):
        processes = _with_descendants([*marked_processes(marker), *_existing(also)])
        if not processes:
            break
        ended.update(process.pid for process in processes)
        _end(processes, max(0.0, deadline - time.monotonic()))
    return len(ended)


def _end(processes: list[psutil.Process], patience: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in wait_for_end(processes, patience):
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_for_end(processes, 2.0)


def _existing(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if is_alive(process):
                found.append(process)
    return found


def _with_descendants(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = {process.pid: process for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.update((child.pid, child) for child in process.children(recursive=True))
    found.pop(os.getpid(), None)
    return [process for process in found.values() if is_alive(process)]
