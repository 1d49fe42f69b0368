"""What differs between Windows and the other systems, in one place so that tests can pretend.

The numbers of Windows are those of its `winbase.h`; `subprocess` names them only there.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def on_end_signals(end: Callable[[], object]) -> None:
    """Call a function when this process is told to end by a signal other than Ctrl-C, or its terminal goes.

    Windows has no SIGHUP and, for its own programs, no SIGTERM: there a process is ended without being told.
    """
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if number := getattr(signal, name, 0):
            signal.signal(number, lambda *_: end())


def program_folders() -> list[Path]:
    """Give the folders where a program of this installation may stand, the likeliest first.

    Beside the interpreter in an environment; in `Scripts` below it in a bare or conda installation on Windows; in the
    user's own folder after `pip install --user`.
    """
    interpreter = Path(sys.executable).parent
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    return [interpreter, *(Path(sysconfig.get_path("scripts", scheme)) for scheme in schemes)]


def program_file(name: str) -> str:
    """Give the file name of a console program; on Windows pip makes an `.exe`, the only kind that needs no shell."""
    return f"{name}.exe" if is_windows() else name


def has_parent_numbers() -> bool:
    """Tell whether a process whose parent ended is given another one, so that it can know."""
    return not is_windows()


def own_start() -> float:
    """Give the Unix time at which this process was started."""
    if sys.platform != "linux":
        # Imported here: it takes a sixth of a launcher's start.
        import psutil

        return float(psutil.Process().create_time())
    # Ticks since the system's start, the 22nd field; the second may contain blanks (proc_pid_stat(5)).
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def keep_port_to_oneself(sock: socket.socket) -> None:
    """Keep other programs from listening on the port of a socket that is about to be bound.

    Windows lets another program take a port in use, unless its first holder said otherwise; others never do.
    """
    if (option := getattr(socket, "SO_EXCLUSIVEADDRUSE", None)) is not None:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
