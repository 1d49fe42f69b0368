"""How a program learns that the front end which started it is gone without having said so."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING

from codespace_kernels import platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTERVAL = 1.0
"""Seconds between looks at the parent, where only looking tells."""


def call_at_end_of_parent(end: Callable[[], object], env: Mapping[str, str]) -> None:
    """Call a function once the starter of this process is gone, on a thread of its own.

    VS Code holds a pipe to stdin that it never writes to, so its end is the starter's (measured with 2026.6.1: within
    75 ms). jupyter_client closes stdin at once, but names itself in `JPY_PARENT_PID`: there the parent is looked at.
    Where stdin is something else (a terminal, `/dev/null`), nobody is waited for.

    Args:
        end: Called at most once.
        env: This process's environment.
    """
    if not _is_child_of_jupyter_client(env):
        if _stdin_is_pipe():
            _watch(_wait_for_end_of_stdin, end)
    elif platforms.has_parent_numbers():
        _watch(_wait_for_other_parent, end)


def _is_child_of_jupyter_client(env: Mapping[str, str]) -> bool:
    named = env.get("JPY_PARENT_PID", "")
    # The variable is inherited by all that is started below (VS Code from JupyterLab's terminal, say). On Windows its
    # value is a handle, which says nothing here.
    return named == str(os.getppid()) if platforms.has_parent_numbers() else bool(named)


def _watch(wait: Callable[[], None], end: Callable[[], object]) -> None:
    def watch() -> None:
        wait()
        end()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _stdin_is_pipe() -> bool:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # there is none, as under pythonw
        return False
    # Node makes socket pairs where others make pipes.
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _wait_for_end_of_stdin() -> None:
    try:
        while os.read(sys.stdin.fileno(), 4096):
            pass
    except OSError:  # Windows, when the other end was killed
        return


def _wait_for_other_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(INTERVAL)
