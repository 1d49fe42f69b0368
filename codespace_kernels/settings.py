"""Folders and files of this user, and the few limits that more than one layer shares.

Environment variables win over the platform's defaults, so that tests and side-by-side installations stay apart:
`CODESPACE_KERNELS_HOME` moves everything, `XDG_*` are honoured through platformdirs. Modes of files mean nothing on
Windows: there the folders lie in the user's profile, which others cannot read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

import platformdirs

from codespace_kernels import platforms
from codespace_kernels.errors import SettingsError

APP = "codespace-kernels"

MAX_SOCKET_PATH = 100
"""Bytes. A Unix socket's path must fit 104 bytes on macOS (108 on Linux), its terminator included."""

UNIX, LOOPBACK = "unix", "loopback"
"""Values of `CODESPACE_KERNELS_BROKER_ENDPOINT`."""


class LinkSeconds(TypedDict, total=False):
    """Pauses and patience of the link, seconds; see `LinkClient`."""

    ping_interval: float
    busy_ping_interval: float
    silence_limit: float


def link_seconds() -> LinkSeconds:
    """Give what `CODESPACE_KERNELS_LINK_SECONDS` says, three numbers separated by commas; nothing where it is not set.

    For tests, which break connections by the hundred: the link's own numbers are good for everybody else.

    Raises:
        SettingsError: It is not three numbers.
    """
    text = os.environ.get("CODESPACE_KERNELS_LINK_SECONDS")
    if not text:
        return {}
    try:
        idle, busy, limit = map(float, text.split(","))
    except ValueError:
        raise SettingsError(
            f"CODESPACE_KERNELS_LINK_SECONDS is {text!r}; it takes three numbers, separated by commas."
        ) from None
    return {"ping_interval": idle, "busy_ping_interval": busy, "silence_limit": limit}


def data_dir() -> Path:
    """Give the folder of what must last (SSH key, pinned host keys, emulator state); made 0700 when missing."""
    override = os.environ.get("CODESPACE_KERNELS_HOME")
    return _private(Path(override) if override else Path(platformdirs.user_data_dir(APP)))


def state_dir() -> Path:
    """Give the folder of state and logs that may be lost; made 0700 when missing."""
    override = os.environ.get("CODESPACE_KERNELS_HOME")
    return _private(Path(override) / "state" if override else Path(platformdirs.user_state_dir(APP)))


def broker_endpoint() -> str:
    """Tell where a new broker listens: `UNIX`, or `LOOPBACK`, which Windows has only.

    Raises:
        SettingsError: `CODESPACE_KERNELS_BROKER_ENDPOINT` has another value.
    """
    if not platforms.has_unix_sockets():
        return LOOPBACK
    value = os.environ.get("CODESPACE_KERNELS_BROKER_ENDPOINT") or UNIX
    if value not in {UNIX, LOOPBACK}:
        raise SettingsError(f"CODESPACE_KERNELS_BROKER_ENDPOINT is {value!r}; it can be {UNIX!r} or {LOOPBACK!r}.")
    return value


def runtime_dir() -> Path:
    """Give the folder of sockets: private, on a local file system, its path short enough for a socket.

    The platform's runtime folder where it can be used; else a folder under the system's temporary folder whose name
    contains the user id and a digest of `data_dir`, so that two homes do not meet. Where the broker needs no socket,
    any private folder will do, but only when there is no such one: the setting moves nothing that works without it.

    Raises:
        SettingsError: No folder can be had that is private to this user.
    """
    # One after the other: a folder that is looked at is made.
    usable = filter(_is_usable, _runtime_candidates())
    longer = None
    for folder in usable:
        if len(os.fsencode(folder)) + 40 <= MAX_SOCKET_PATH:
            return folder
        longer = longer or folder
    if broker_endpoint() == LOOPBACK and (found := longer or next(filter(_is_usable, _any_candidates()), None)):
        return found
    raise SettingsError(
        f"No private folder for sockets: neither the runtime folder nor {tempfile.gettempdir()} can be used. "
        "Set XDG_RUNTIME_DIR to a folder of yours with a short path, or CODESPACE_KERNELS_BROKER_ENDPOINT=loopback."
    )


def _is_usable(folder: Path) -> bool:
    try:
        # Threads come here at the same time: each has a file of its own.
        with tempfile.TemporaryFile(dir=_private(folder)):
            return True
    except (OSError, SettingsError):
        return False


def _any_candidates() -> list[Path]:
    # Imported here: few come here, and every launcher would pay for it.
    import platform

    # Homes may be shared between machines, ports are not.
    return [data_dir() / f"run-{platform.node()}"]


def _runtime_candidates() -> list[Path]:
    home = data_dir()
    if platforms.is_windows():
        # Not a temporary folder: it is tidied up, and need not be a part of the user's profile.
        return [home / "run"]
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:10]
    candidates = []
    if sys.platform != "linux":
        candidates.append(Path(platformdirs.user_runtime_dir(APP)) / digest)
    elif _is_ours(base := os.environ.get("XDG_RUNTIME_DIR", "")):
        # Not by platformdirs: where it does not like the folder it warns, and takes one below /tmp that others may own.
        candidates.append(Path(base) / APP / digest)
    name = f"{APP[:2]}k-{platforms.user_id()}-{digest}"
    bases = filter(_keeps_what_is_ours, {tempfile.gettempdir(): 0, "/tmp": 0})  # noqa: S108
    return candidates + [Path(base) / name for base in bases]


def _is_ours(folder: str) -> bool:
    """Tell whether a folder is there in which nobody else can swap what we make."""
    try:
        info = Path(folder).stat()
    except OSError:
        return False
    return Path(folder).is_absolute() and info.st_uid == platforms.user_id() and not info.st_mode & 0o022


def _keeps_what_is_ours(folder: str) -> bool:
    """Tell whether others cannot move our folder out of this one: a temporary folder is everybody's, but sticky."""
    try:
        info = Path(folder).stat()
    except OSError:
        return False
    # In a container its owner may be nobody.
    is_sticky, is_closed = info.st_mode & stat.S_ISVTX, not info.st_mode & 0o022
    return bool(is_sticky or (is_closed and info.st_uid in {0, platforms.user_id()}))


def make_folders(folder: Path, mode: int) -> None:
    """Make a folder and those above it that are missing, all with this mode less what the umask takes.

    `Path.mkdir` gives the mode to the last one only: under a loose umask others could swap what is in those above.

    Raises:
        OSError: It cannot be made, or is no folder.
    """
    if not folder.parent.exists():
        make_folders(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)


def _private(folder: Path) -> Path:
    try:
        make_folders(folder, 0o700)
    except OSError as error:
        raise SettingsError(
            f"The folder {folder} cannot be made: {error.strerror}. Set CODESPACE_KERNELS_HOME to one that can."
        ) from None
    if not platforms.is_windows():
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != platforms.user_id():
            raise SettingsError(f"{folder} is not a folder of this user. Remove it or set CODESPACE_KERNELS_HOME.")
        if info.st_mode & 0o077:
            _close_to_others(folder, stat.S_IMODE(info.st_mode))
    return folder


def _close_to_others(folder: Path, mode: int) -> None:
    """Make a folder private; one that others could write must not have anything of theirs in it."""
    folder.chmod(0o700)
    if not mode & 0o022:
        return
    foreign = [path.name for path in folder.iterdir() if path.lstat().st_uid != platforms.user_id()]
    if foreign:
        # So that it is refused again.
        folder.chmod(mode)
        raise SettingsError(
            f"{folder} could be written by others, and {foreign[0]!r} in it is another user's. "
            "Look at what is there, remove what is not yours, and close the folder (chmod 700)."
        )
