"""Tells a living process from another one that got its id later."""

from __future__ import annotations

import os
import subprocess


def start_time_of(pid: int) -> str:
    """Give when a process started, in whatever unit the system has; empty when there is none, or its remains only."""
    if os.path.isdir("/proc/self"):
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                # The name stands in parentheses and may hold anything; the start time is the 20th field after it.
                fields = file.read().rpartition(b")")[2].split()
                return "" if fields[0] == b"Z" else fields[19].decode()
        except (OSError, IndexError):
            return ""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], stdout=subprocess.PIPE, check=False)
    return done.stdout.decode("ascii", "replace").strip()


def is_same_process(pid: int, start_time: str) -> bool:
    """Tell whether the process that had this id at that time still runs."""
    return bool(start_time) and start_time_of(pid) == start_time
