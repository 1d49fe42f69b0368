"""Cleans up after emulators that were killed: their codespaces' processes, temporary folders and state files."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import psutil

from codespace_kernels.emulator.inside import machine_marker
from codespace_kernels.emulator.inside_processes import end_processes
from codespace_kernels.emulator.state import EmulatorRecord, read_records

log = logging.getLogger(__name__)


def _ssh_servers(folder: Path) -> list[int]:
    """Find the OpenSSH servers of a codespace: their environment is hidden, but their title names a file."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if (process.info["name"] or "").startswith("sshd") and f"{folder}{os.sep}" in command:
            found.append(process.pid)
    return found


def end_codespaces(folder: Path) -> None:
    """End every process of the codespaces whose files are below a folder; blocks."""
    if not folder.is_dir():
        return
    for machine in folder.resolve().iterdir():
        ended = end_processes(machine_marker(machine), _ssh_servers(machine))
        if ended:
            log.warning("ended %d processes that codespace %s had left behind", ended, machine.name)


def clean_up(record: EmulatorRecord) -> None:
    """Remove what an emulator whose process is gone has left; blocks."""
    folder = Path(record.folder)
    end_codespaces(folder)
    if record.temporary:
        shutil.rmtree(folder, ignore_errors=True)
    record.remove()


def clean_up_all() -> None:
    """Remove what emulators of this user whose process is gone have left; blocks."""
    for record in read_records():
        if not record.is_alive:
            log.info("cleaning up after the emulator at %s, which was killed", record.api_url)
            clean_up(record)
