"""Signals to processes of an emulated machine, chosen by what they are."""

from __future__ import annotations

import contextlib
import signal
from pathlib import PurePath
from typing import TYPE_CHECKING

import psutil

from codespace_kernels.emulator.inside_processes import marked_processes

if TYPE_CHECKING:
    from collections.abc import Iterable


def send_signal(marker: str, which: str, name: str, sshd_pids: Iterable[int] = ()) -> int:
    """Send a signal to processes of a machine; blocks.

    Args:
        marker: The machine's marker (`inside.machine_marker`).
        which: `server`, `link` (its child, which carries the kernels' messages), `kernel` or `sshd`.
        name: The signal's name without `SIG`.
        sshd_pids: Processes of the SSH server, which hide their environment.

    Returns:
        How many processes got it.
    """
    processes = _ssh_processes(sshd_pids) if which == "sshd" else _named(marker, which)
    number = signal.Signals[f"SIG{name}"]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
    return len(processes)


def _named(marker: str, which: str) -> list[psutil.Process]:
    found = []
    for process in marked_processes(marker):
        with contextlib.suppress(psutil.Error):
            if _kind_of(process.cmdline()) == which:
                found.append(process)
    return found


def _kind_of(command: list[str]) -> str:
    """Tell by its command line what a process is; empty for any other."""
    if "jupyter_server" in command:
        return "server"
    if "--listener" in command and any(part.endswith(".child") for part in command):
        return "link"
    # Whatever its language, a kernel is told its connection file.
    return "kernel" if any(PurePath(part).match("kernel-*.json") for part in command) else ""


def _ssh_processes(pids: Iterable[int]) -> list[psutil.Process]:
    """Give the processes of the SSH server itself, without those that it runs for its clients."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found += [process, *(child for child in process.children(recursive=True) if _is_sshd(child))]
    return found


def _is_sshd(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("sshd")
    except psutil.Error:
        return False
