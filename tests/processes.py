"""Processes as tests look at them: any of them may end between two looks."""

from __future__ import annotations

import psutil

from codespace_kernels.processes import is_alive


def command_line(process: psutil.Process) -> str:
    """Give a process's arguments, separated by spaces; nothing for one that ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def name_of(process: psutil.Process) -> str:
    """Give the name of a process's program; nothing for one that ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


def environment(process: psutil.Process) -> dict[str, str]:
    """Give a process's environment; nothing for one that ended."""
    try:
        return process.environ()
    except psutil.Error:
        return {}


def living_children() -> list[psutil.Process]:
    """Children of this process that run; what other tests started may have ended and not been collected."""
    return [process for process in psutil.Process().children() if is_alive(process)]
