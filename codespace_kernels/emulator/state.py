"""State files of running emulators: how the command line, the token look-up and a clean-up find them.

One file a running emulator, `<data folder>/emulators/<port>.json`, mode 0600: it holds the token of the emulated
account and the secret of the control endpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from codespace_kernels import settings
from codespace_kernels.errors import EmulatorError

log = logging.getLogger(__name__)

_SAME_START_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class EmulatorRecord:
    """What a state file says about an emulator.

    Attributes:
        api_url: Base of its REST API, without a trailing slash.
        token: A classic token with scope `codespace`.
        secret: Opens the control endpoint.
        pid: Process in which it runs.
        started: When that process began (Unix time), which tells it from a later process with the same id.
        folder: Where the codespaces' files are.
        temporary: Whether the folder goes with the emulator.
        background: Whether the process does nothing else, so that it may be ended.
    """

    api_url: str
    token: str = dataclasses.field(repr=False)
    secret: str = dataclasses.field(repr=False)
    pid: int
    started: float
    folder: str
    temporary: bool
    background: bool

    @property
    def path(self) -> Path:
        """The state file."""
        return emulators_dir() / f"{urlsplit(self.api_url).port}.json"

    def environment(self) -> dict[str, str]:
        """Give the variables with which the real `gh` and this package use the emulated account.

        `gh` sends `GH_ENTERPRISE_TOKEN`, and only that one, to a host that is not GitHub's; it satisfies its check for
        a login as well (measured with 2.103.3).
        """
        return {"GITHUB_API_URL": self.api_url, "GH_ENTERPRISE_TOKEN": self.token}

    @property
    def is_alive(self) -> bool:
        """Whether its process still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _SAME_START_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def write(self) -> None:
        """Write the state file: whole or not at all, never readable by others."""
        part = self.path.with_suffix(f".{secrets.token_hex(4)}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file)
        part.replace(self.path)

    def remove(self) -> None:
        """Remove the state file, unless another emulator wrote its own there meanwhile."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if _parse(self.path) == self:
                self.path.unlink()


def emulators_dir() -> Path:
    """Give the folder of the state files; made when missing."""
    folder = settings.data_dir() / "emulators"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def read_records() -> list[EmulatorRecord]:
    """Read all state files. One that cannot be read is set aside, with a warning in the log."""
    records = []
    for path in sorted(emulators_dir().glob("*.json")):
        try:
            records.append(_parse(path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError) as error:
            _set_aside(path, error)
    return records


def _parse(path: Path) -> EmulatorRecord:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for field in dataclasses.fields(EmulatorRecord):
        if type(data[field.name]).__name__ != field.type:
            raise TypeError(f"{field.name} has the wrong type")
    return EmulatorRecord(**{field.name: data[field.name] for field in dataclasses.fields(EmulatorRecord)})


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".broken")
    log.warning("The emulator's state file %s cannot be read (%s); it was set aside as %s.", path, error, aside.name)
    with contextlib.suppress(OSError):
        path.replace(aside)


def find_record(api_url: str | None = None) -> EmulatorRecord:
    """Find the emulator that is meant.

    Args:
        api_url: Its address; None: the value of `GITHUB_API_URL` where that is an address on this machine, else the
            only emulator of this user.

    Raises:
        EmulatorError: None fits, or more than one.
    """
    records = read_records()
    records = [record for record in records if record.is_alive] or records
    named = api_url or _address_in_environment()
    if named:
        fitting = [record for record in records if record.api_url == named.rstrip("/")]
        if not fitting:
            raise EmulatorError(
                f"No emulator of yours runs at {named}. Start one with `codespace-kernels emulator start`."
            )
        return fitting[0]
    if not records:
        raise EmulatorError("No emulator is running. Start one with `codespace-kernels emulator start`.")
    if len(records) > 1:
        addresses = ", ".join(record.api_url for record in records)
        raise EmulatorError(f"More than one emulator is running ({addresses}). Set GITHUB_API_URL to the one you mean.")
    return records[0]


def _address_in_environment() -> str | None:
    address = os.environ.get("GITHUB_API_URL", "")
    return address if urlsplit(address).hostname in {"127.0.0.1", "localhost", "::1"} else None


def emulator_token(api_url: str) -> str | None:
    """Give the token of the running emulator whose REST API has this address; None where none of this user's has."""
    address = api_url.rstrip("/")
    return next((record.token for record in read_records() if record.api_url == address and record.is_alive), None)
