"""Creating and changing a codespace: everything that can be known before the call is checked before it."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import GitHubUnavailableError, SettingsError
from codespace_kernels.github.models import Phase
from codespace_kernels.github.waiting import Pace, failed, wait_until_created
from codespace_kernels.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.github.codespaces import CodespacesApi
    from codespace_kernels.github.models import Codespace, Machine, Repository
    from codespace_kernels.providers.base import ChangeRequest, CreateRequest

_log = logging.getLogger(__name__)

MAX_DISPLAY_NAME = 48
"""Bytes; the limit that `gh` applies."""

IDLE_TIMEOUT_MINUTES = range(5, 241)
RETENTION_PERIOD_MINUTES = range(43201)


def check_request(request: CreateRequest) -> None:
    """Check what needs no answer from GitHub.

    Raises:
        SettingsError: A value is outside GitHub's limits.
    """
    _check_display_name(request.display_name)
    _check_range("idle timeout", request.idle_timeout_minutes, IDLE_TIMEOUT_MINUTES)
    _check_range("retention period", request.retention_period_minutes, RETENTION_PERIOD_MINUTES)


async def create_codespace(
    api: CodespacesApi, request: CreateRequest, progress: Progress, pace: Pace | None = None
) -> Codespace:
    """Create a codespace and wait until its creation is under way.

    Args:
        api: The account.
        request: What to create.
        progress: Told of each step.
        pace: How often a creation that takes long is looked at.

    Raises:
        SettingsError: A value is outside GitHub's limits, or the machine type is not offered.
        NotFoundError: There is no such repository.
        PermissionsRequiredError: A person must grant permissions first; see its `url`.
        WorkspaceFailedError: The creation failed.
        WaitTimeoutError: Its creation is not seen to be under way in time.
        GitHubError: GitHub refused.
    """
    check_request(request)
    progress(ProgressEvent("find", f"Looking up {request.repository}"))
    repository = await api.repository(request.repository)
    devcontainer = request.devcontainer_path or await _default_devcontainer(api, repository, request, progress)
    if request.machine:
        await _check_machine(api, repository, request, devcontainer)
    progress(ProgressEvent("create", f"Creating a codespace of {repository.full_name}"))
    codespace, pending = await api.create(_body(request, repository, devcontainer))
    if pending:
        return await wait_until_created(api, codespace, progress, pace)
    if codespace.phase is Phase.TERMINAL:
        raise failed(codespace)
    return codespace


def checked_changes(request: ChangeRequest) -> dict[str, Any]:
    """Give the body of `PATCH /user/codespaces/{name}`.

    Raises:
        SettingsError: Nothing is to be changed, or a value is outside GitHub's limits.
    """
    changes = {key: value for key, value in dataclasses.asdict(request).items() if value is not None}
    if not changes:
        raise SettingsError("Nothing is to be changed. Give a machine type, an idle timeout or a display name.")
    _check_display_name(request.display_name or "")
    _check_range("idle timeout", request.idle_timeout_minutes, IDLE_TIMEOUT_MINUTES)
    return changes


def check_machine(name: str, offered: Sequence[Machine], what: str) -> None:
    """Check that GitHub offers a machine type.

    Args:
        name: Of the type.
        offered: What GitHub offers.
        what: For which it is wanted.

    Raises:
        SettingsError: It does not; says what it offers.
    """
    if name not in {machine.name for machine in offered}:
        names = ", ".join(f"{machine.name} ({machine.title})" for machine in offered) or "none at all"
        raise SettingsError(f"GitHub offers no machine type {name!r} for {what}, but {names}.")


def _check_display_name(name: str) -> None:
    size = len(name.encode())
    if size > MAX_DISPLAY_NAME:
        raise SettingsError(
            f"The display name has {size} bytes; GitHub takes {MAX_DISPLAY_NAME}. Choose a shorter one."
        )


def _check_range(what: str, value: int | None, allowed: range) -> None:
    if value is not None and value not in allowed:
        raise SettingsError(f"The {what} is {value} minutes; GitHub takes {allowed[0]} to {allowed[-1]}.")


async def _default_devcontainer(
    api: CodespacesApi, repository: Repository, request: CreateRequest, progress: Progress
) -> str:
    """Give the repository's default devcontainer; empty where it has none, and GitHub takes its standard image."""
    try:
        offered = await api.devcontainers(repository, request.ref)
    except GitHubUnavailableError as error:
        # The list has been seen to fail for some repositories where creating works.
        _log.info("Creating without a look at the devcontainers: %s", error)
        return ""
    default = next((devcontainer.path for devcontainer in offered if devcontainer.is_default), "")
    if offered and not default:
        paths = ", ".join(devcontainer.path for devcontainer in offered)
        progress(ProgressEvent("create", f"Taking GitHub's standard image; the repository also has {paths}"))
    return default


async def _check_machine(api: CodespacesApi, repository: Repository, request: CreateRequest, devcontainer: str) -> None:
    try:
        offered = await api.machines(
            repository, ref=request.ref, devcontainer_path=devcontainer, location=request.location
        )
    except GitHubUnavailableError as error:
        # Seen for some repositories, while creating works; GitHub then judges the name itself.
        _log.info("Creating without a look at the machine types: %s", error)
        return
    check_machine(request.machine, offered, repository.full_name)


def _body(request: CreateRequest, repository: Repository, devcontainer: str) -> dict[str, Any]:
    """Give the body of `POST /user/codespaces`; what is not asked for is left to GitHub."""
    wanted = {
        "ref": request.ref or repository.default_branch,
        "devcontainer_path": devcontainer,
        "machine": request.machine,
        "display_name": request.display_name,
        "location": request.location,
    }
    minutes = {
        "idle_timeout_minutes": request.idle_timeout_minutes,
        "retention_period_minutes": request.retention_period_minutes,
    }
    return {
        "repository_id": repository.id,
        "multi_repo_permissions_opt_out": request.default_permissions,
        **{key: text for key, text in wanted.items() if text},
        **{key: number for key, number in minutes.items() if number is not None},
    }
