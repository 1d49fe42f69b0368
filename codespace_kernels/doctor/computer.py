"""Checks of this computer: the broker, our folders and files, versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from codespace_kernels import __version__, kernelspecs, platforms, settings
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.process import log_path
from codespace_kernels.doctor.findings import Check, Finding, Group, fail, note, ok
from codespace_kernels.doctor.programs import run_program
from codespace_kernels.errors import BrokerError
from codespace_kernels.ssh.threads import run_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from codespace_kernels.doctor.subject import Subject

PACKAGE = "codespace-kernels"
RECENT = datetime.timedelta(days=1)
"""Older errors in logs say nothing of today."""

_LOG_TAIL = 200_000
"""Bytes of a log that are looked at."""

_MOST_LINES = 3
_ERROR_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} (?:ERROR|CRITICAL) ")


async def broker(subject: Subject) -> Finding:
    """Tell whether the broker runs, and whether it is of this version. None is started."""

    def ask() -> dict[str, Any] | None:
        client = BrokerClient()
        try:
            client.connect(5.0).close()
        except BrokerError:
            return None
        return dict(client.call("GET", "", timeout=5.0))

    again = (
        "End it with `codespace-kernels quit`; the next kernel starts another. Kernels in codespaces may end by that."
    )
    try:
        found = await run_blocking("the broker", 12.0, ask)
    except BrokerError as error:
        return fail(str(error).rstrip("."), again)
    if found is None:
        return ok("not running: the first kernel starts it")
    version = str(found.get("version") or "")
    shown = f"runs (process {found.get('pid')}, version {version or 'unknown'})"
    if version != __version__:
        return note(f"{shown}, but this is {__version__}", again)
    return ok(shown)


async def log(subject: Subject) -> Finding:
    """Tell where the broker's log is, and what went wrong lately."""
    path = log_path()
    lines = recent_errors(path)
    if not lines:
        return ok(f"{path}{'' if path.exists() else ' (not there yet)'}; no errors in the last day")
    shown = " | ".join(lines[-_MOST_LINES:])
    return note(
        f"{path}: {len(lines)} error{'s' if len(lines) > 1 else ''} in the last day, at last: {shown}",
        "Report what you cannot explain.",
    )


def recent_errors(path: Path, now: datetime.datetime | None = None) -> list[str]:
    """Give the lines of a log that tell of an error of the last day, oldest first."""
    now = now or datetime.datetime.now()  # noqa: DTZ005  (logs have local time)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    found = ((line, match) for line in text.splitlines() if (match := _ERROR_LINE.match(line)))
    return [line for line, match in found if now - datetime.datetime.fromisoformat(match[1]) < RECENT]


async def folders(subject: Subject) -> Sequence[Finding]:
    """Tell whether our folders can be written to, and whether what is private is."""
    places = {"data": settings.data_dir(), "state": settings.state_dir(), "runtime": settings.runtime_dir()}
    findings = [finding for name, place in places.items() if (finding := unwritable(name, place))]
    findings += [finding for name, place in places.items() for finding in _readable_by_others(place, name)]
    return findings or [ok(", ".join(f"{name} {place}" for name, place in places.items()))]


def unwritable(name: str, place: Path) -> Finding | None:
    """Give what is wrong with a folder of ours that cannot be written to; None where it can."""
    try:
        # Has no name, so that nothing is left behind.
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        fix = "Make room there, or set CODESPACE_KERNELS_HOME to a folder of yours."
        return fail(f"the {name} folder {place} cannot be written to ({error.strerror})", fix)
    return None


def _readable_by_others(place: Path, name: str) -> Iterator[Finding]:
    if platforms.is_windows():
        return
    private = ["id_ed25519", "tokens/*", "broker.log", "broker.sock", "broker.json", "errors.log"]
    for path in [place, *(found for pattern in private for found in place.glob(pattern))]:
        info = path.lstat()
        if info.st_uid == platforms.user_id() and not info.st_mode & 0o077:
            continue
        mode = f"{stat.S_IMODE(info.st_mode):04o}"
        wanted = "700" if path.is_dir() else "600"
        yield fail(f"{path} ({name}) can be used by others (mode {mode})", f"Run `chmod {wanted} {path}`.")


async def leftovers(subject: Subject) -> Finding:
    """Look for files that a crash left."""
    state, runtime = settings.state_dir(), settings.runtime_dir()
    running = await run_blocking("the broker", 12.0, BrokerClient().running)
    left = [] if running else [path for path in (runtime / "broker.sock", runtime / "broker.json") if path.exists()]
    left += [path for path in kernelspecs.kernels_dir().glob(f".{kernelspecs.PREFIX}*") if _is_old(path)]
    left += list((settings.data_dir() / "known_hosts").glob("*.damaged-*"))
    errors = state / "errors.log"
    if errors.exists() and not _is_old(errors):
        return note(f"this program failed unexpectedly in the last day: see {errors}", "Report it, please.")
    if left:
        names = ", ".join(str(path) for path in left)
        return note(f"left by something that was killed: {names}", "They do no harm and may be removed.")
    return ok("none")


def _is_old(path: Path) -> bool:
    changed = datetime.datetime.fromtimestamp(path.lstat().st_mtime, datetime.UTC)
    return datetime.datetime.now(datetime.UTC) - changed > RECENT


async def packages(subject: Subject) -> Sequence[Finding]:
    """Tell versions, and whether everything that is needed is there as new as it is needed."""
    requirements = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or []]
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    unmet = [text for each in needed if (text := unmet_requirement(each))]
    shown = f"{PACKAGE} {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    if unmet:
        fix = f"Run `{sys.executable} -m pip install --upgrade {' '.join(repr(str(each)) for each in needed)}`."
        return [fail(f"{shown}; {'; '.join(unmet)}", fix)]
    return [ok(shown), ok(", ".join(f"{each.name} {version_of(each.name)}" for each in needed))]


def unmet_requirement(requirement: Requirement) -> str:
    """Say what is wrong with a package that is needed; empty where nothing is."""
    version = version_of(requirement.name)
    if not version:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, needed is {requirement.specifier}"
    return ""


def version_of(name: str) -> str:
    """Give the version of an installed package; empty where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


async def ssh(subject: Subject) -> Finding:
    """Tell which OpenSSH there is: only gh's own verbs need it."""
    program = shutil.which("ssh", path=subject.env.get("PATH", os.defpath))
    if program is None:
        return ok("not installed, and not needed")
    ran = await run_program([program, "-V"], subject.env, 10.0)
    return ok((ran.errors or ran.output).strip().splitlines()[0] if (ran.errors or ran.output).strip() else program)


CHECKS = (
    Check("broker", "Broker", Group.COMPUTER, broker, seconds=20.0),
    Check("log", "Broker's log", Group.COMPUTER, log),
    Check("folders", "Folders", Group.COMPUTER, folders),
    Check("leftovers", "Left-over files", Group.COMPUTER, leftovers, seconds=20.0),
    Check("versions", "Versions", Group.COMPUTER, packages),
    Check("openssh", "OpenSSH", Group.COMPUTER, ssh),
)
