"""What is asked for when a codespace is created or changed, checked against GitHub's limits and against its lists."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Protocol

from codespace_kernels.errors import SettingsError
from codespace_kernels.providers.choices import Bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from codespace_kernels.providers.base import CreateRequest
    from codespace_kernels.providers.choices import Choices

MAX_DISPLAY_NAME = 48
"""Bytes; the limit that `gh` applies."""

IDLE_TIMEOUT_MINUTES = Bounds(5, 240, 30)
RETENTION_MINUTES = Bounds(0, 43200, 43200)

LOCATIONS = ("EastUs", "SouthEastAsia", "WestEurope", "WestUs2")
"""The values of `location` in GitHub's OpenAPI description."""

_COMMIT = re.compile(r"[0-9a-f]{40}|refs/.+")
_MOST_NAMED = 10


class _Machine(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...


def check_request(request: CreateRequest) -> None:
    """Check what needs no answer from GitHub.

    Raises:
        SettingsError: A value is outside GitHub's limits.
    """
    check_display_name(request.display_name)
    check_minutes("idle timeout", request.idle_timeout_minutes, IDLE_TIMEOUT_MINUTES)
    check_minutes("retention period", request.retention_period_minutes, RETENTION_MINUTES)
    check_location(request.location)


def check_display_name(name: str) -> None:
    """Check that GitHub takes a name for people.

    Raises:
        SettingsError: It is too long.
    """
    size = len(name.encode())
    if size > MAX_DISPLAY_NAME:
        raise SettingsError(
            f"The display name has {size} bytes; GitHub takes {MAX_DISPLAY_NAME}. Choose a shorter one."
        )


def check_minutes(what: str, value: int | None, bounds: Bounds) -> None:
    """Check a time, where one is given.

    Raises:
        SettingsError: It is out of bounds.
    """
    if value is not None and not bounds.lowest <= value <= bounds.highest:
        raise SettingsError(f"The {what} is {value} minutes; GitHub takes {bounds.lowest} to {bounds.highest}.")


def check_location(location: str) -> None:
    """Check a region, where one is given.

    Raises:
        SettingsError: GitHub has none of this name.
    """
    if location and location not in LOCATIONS:
        raise SettingsError(f"GitHub has no region {location!r}, but {', '.join(LOCATIONS)}.")


def check_branch(ref: str, branches: Sequence[str], repository: str) -> None:
    """Check that a repository has a branch; a commit, or a full name below `refs/`, is GitHub's to judge.

    Raises:
        SettingsError: It has none of this name; names those that are most like it.
    """
    if ref in branches or _COMMIT.fullmatch(ref):
        return
    close = difflib.get_close_matches(ref, branches, n=3, cutoff=0.5)
    advice = f"Did you mean {' or '.join(close)}?" if close else f"It has {_named(branches)}."
    raise SettingsError(f"{repository} has no branch {ref!r}. {advice}")


def check_devcontainer(path: str, paths: Sequence[str], where: str) -> None:
    """Check that a repository has a devcontainer.

    Raises:
        SettingsError: It has not; names those that it has.
    """
    if path not in paths:
        raise SettingsError(f"{where} has no devcontainer {path!r}. It has {_named(paths)}.")


def check_machine(name: str, offered: Iterable[_Machine], what: str) -> None:
    """Check that GitHub offers a machine type.

    Args:
        name: Of the type.
        offered: What GitHub offers.
        what: For which it is wanted.

    Raises:
        SettingsError: It does not; says what it offers.
    """
    machines = {machine.name: machine.title for machine in offered}
    if name not in machines:
        names = ", ".join(f"{name} ({title})" for name, title in machines.items()) or "none at all"
        raise SettingsError(f"GitHub offers no machine type {name!r} for {what}, but {names}.")


def check_chosen(request: CreateRequest, choices: Choices) -> None:
    """Check a request against what can be chosen; lists that GitHub did not give check nothing.

    Raises:
        SettingsError: Something cannot be had; says what can.
    """
    check_request(request)
    listed = {"branches", "devcontainers", "machines"} - set(choices.unlisted)
    where = choices.repository + (f" at {request.ref}" if request.ref else "")
    if request.ref and "branches" in listed:
        check_branch(request.ref, choices.branches, choices.repository)
    if request.devcontainer_path and "devcontainers" in listed:
        check_devcontainer(request.devcontainer_path, [offer.path for offer in choices.devcontainers], where)
    if request.machine and "machines" in listed:
        check_machine(request.machine, choices.machines, where)


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return (", ".join(names[:_MOST_NAMED]) or "none") + (f" and {more} more" if more > 0 else "")
