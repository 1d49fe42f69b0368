"""Folders and files of this user, and the few limits that more than one layer shares.

Environment variables win over the platform's defaults, so that tests and side-by-side installations stay apart:
`CODESPACE_KERNELS_HOME` moves everything, `XDG_*` are honoured through platformdirs.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

import platformdirs

from codespace_kernels.errors import SettingsError

APP = "codespace-kernels"

MAX_SOCKET_PATH = 100
"""Bytes. A Unix socket's path must fit 104 bytes on macOS (108 on Linux), its terminator included."""


def data_dir() -> Path:
    """Give the folder of what must last (SSH key, pinned host keys, emulator state); made 0700 when missing."""
    override = os.environ.get("CODESPACE_KERNELS_HOME")
    return _private(Path(override) if override else Path(platformdirs.user_data_dir(APP)))


def state_dir() -> Path:
    """Give the folder of state and logs that may be lost; made 0700 when missing."""
    override = os.environ.get("CODESPACE_KERNELS_HOME")
    return _private(Path(override) / "state" if override else Path(platformdirs.user_state_dir(APP)))


def runtime_dir() -> Path:
    """Give the folder of sockets: private, on a local file system, its path short enough for a socket.

    The platform's runtime folder where it can be used; else a folder under the system's temporary folder whose name
    contains the user id and a digest of `data_dir`, so that two homes do not meet.

    Raises:
        SettingsError: No folder can be had that is private to this user.
    """
    for candidate in _runtime_candidates():
        try:
            folder = _private(candidate)
            # Threads come here at the same time: each has a file of its own.
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (OSError, SettingsError):
            continue
        if len(os.fsencode(folder)) + 40 <= MAX_SOCKET_PATH:
            return folder
    raise SettingsError(
        f"No private folder for sockets: neither the runtime folder nor {tempfile.gettempdir()} can be used. "
        "Set XDG_RUNTIME_DIR to a folder of yours with a short path."
    )


def _runtime_candidates() -> list[Path]:
    home = data_dir()
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:10]
    user = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = []
    if sys.platform != "linux":
        candidates.append(Path(platformdirs.user_runtime_dir(APP)) / digest)
    elif _is_ours(base := os.environ.get("XDG_RUNTIME_DIR", "")):
        # Not by platformdirs: where it does not like the folder it warns, and takes one below /tmp that others may own.
        candidates.append(Path(base) / APP / digest)
    candidates += [Path(base) / f"{APP[:2]}k-{user}-{digest}" for base in {tempfile.gettempdir(): 0, "/tmp": 0}]  # noqa: S108
    return candidates


def _is_ours(folder: str) -> bool:
    """Tell whether a folder is there in which nobody else can swap what we make."""
    try:
        info = Path(folder).stat()
    except OSError:
        return False
    return Path(folder).is_absolute() and info.st_uid == os.getuid() and not info.st_mode & 0o022


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"The folder {folder} cannot be made: {error.strerror}. Set CODESPACE_KERNELS_HOME to one that can."
        ) from None
    if hasattr(os, "getuid"):
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            raise SettingsError(f"{folder} is not a folder of this user. Remove it or set CODESPACE_KERNELS_HOME.")
        if info.st_mode & 0o077:
            folder.chmod(0o700)
    return folder
