"""What differs between Windows and the other systems, in one place so that tests can pretend.

The numbers of Windows are those of its `winbase.h`; `subprocess` names them only there.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

DETACHED_PROCESS = 0x00000008
CREATE_NEW_PROCESS_GROUP = 0x00000200
CREATE_BREAKAWAY_FROM_JOB = 0x01000000
CREATE_NO_WINDOW = 0x08000000


def is_windows() -> bool:
    """Tell whether this is Windows: no fork, no modes of files, no process that is born without a console."""
    return os.name == "nt"


def has_unix_sockets() -> bool:
    """Tell whether programs here can listen on a Unix socket that only their user may open."""
    return hasattr(socket, "AF_UNIX") and not is_windows()


def user_id() -> int:
    """Give the number of the user whom new files belong to; 0 on Windows, as `os.stat` has it there."""
    return int(getattr(os, "getuid", int)())


def own_terminal_group() -> dict[str, Any]:
    """Give the arguments of `Popen` for a child that opens no window and that our Ctrl-C does not reach."""
    if is_windows():
        return {"creationflags": CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def detached_flags() -> tuple[int, int]:
    """Give the `creationflags` for a process that outlives its starter on Windows, and those to try where it refuses.

    A job ends its processes when it is closed (terminals and services use one), and some jobs let none of them go: then
    the process lives as long as the job.
    """
    detached = DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP
    return (detached | CREATE_BREAKAWAY_FROM_JOB, detached)


def background_python() -> str:
    """Give the interpreter for a program without a window: `pythonw.exe` where it stands beside this one."""
    windowless = Path(sys.executable).with_name("pythonw.exe")
    return str(windowless) if is_windows() and windowless.exists() else sys.executable


def ending_signals() -> Sequence[signal.Signals]:
    """Give the signals that ask a program to end; Windows has one more, for Ctrl-Break and a closed console."""
    extra = [signal.Signals(number)] if (number := getattr(signal, "SIGBREAK", 0)) else []
    return (signal.SIGTERM, signal.SIGINT, *extra)


def keep_port_to_oneself(sock: socket.socket) -> None:
    """Keep other programs from listening on the port of a socket that is about to be bound.

    Windows lets another program take a port in use, unless its first holder said otherwise; others never do.
    """
    if (option := getattr(socket, "SO_EXCLUSIVEADDRUSE", None)) is not None:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
