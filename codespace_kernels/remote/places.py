"""Folders and files in the workspace. All are private to the user."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import time

from . import report

DATA = os.path.join(".local", "share", "codespace-kernels")
"""Below the home folder; the client uploads to it without asking where it is."""

_LONGEST_SOCKET = 100


class PlaceError(Exception):
    """No folder could be had that is ours alone."""


def data_folder() -> str:
    """Give the folder of uploaded code and of our own environment."""
    return os.path.join(os.path.expanduser("~"), DATA)


def runtime_folder() -> str:
    """Give the folder of the socket, the state file and the log, made 0700.

    Below the home folder, so that two homes of one user do not meet; where that is too long or cannot hold a socket
    (some network file systems), below the system's temporary folder. Not `XDG_RUNTIME_DIR`: it is removed when the
    user's last session ends, and the server outlives sessions.

    Raises:
        PlaceError: None of them can be used.
    """
    home = os.path.join(data_folder(), "run")
    digest = "%08x" % (hash_of(home) & 0xFFFFFFFF)
    temporary = os.path.join(tempfile.gettempdir(), "codespace-kernels-%d-%s" % (os.getuid(), digest))
    for folder in (home, temporary):
        if len(os.fsencode(folder)) + 24 <= _LONGEST_SOCKET and _is_usable(folder):
            return folder
    raise PlaceError("Neither %s nor %s can hold a private socket." % (home, temporary))


def hash_of(text: str) -> int:
    """Give a number that is the same in every process (`hash` is not)."""
    value = 5381
    for byte in os.fsencode(text):
        value = (value * 33 + byte) & 0xFFFFFFFFFFFFFFFF
    return value


def _is_usable(folder: str) -> bool:
    probe = os.path.join(folder, "p%d" % os.getpid())
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        info = os.lstat(folder)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            return False
        os.chmod(folder, 0o700)
        with socket.socket(socket.AF_UNIX) as attempt:
            attempt.bind(probe)
        os.unlink(probe)
    except OSError:
        return False
    return True


def write_private(path: str, data: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    temporary = "%s.%d" % (path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(data)
    os.replace(temporary, path)


class Lock:
    """Lets one bootstrap script at a time work in this home; the system frees it when its holder dies."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + self._seconds
        told = False
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise PlaceError("Another start of the server in this workspace did not end in time.") from None
            if not told:
                report.progress("server", "Waiting for another start of the Jupyter server in the workspace")
                told = True
            time.sleep(0.1)

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)
