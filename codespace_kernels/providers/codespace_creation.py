"""Creating and changing a codespace: everything that can be known before the call is checked before it."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import (
    GitHubError,
    GitHubUnavailableError,
    PaymentRequiredError,
    PermissionsRequiredError,
    RateLimitError,
    SettingsError,
    naming,
)
from codespace_kernels.github.models import Phase
from codespace_kernels.github.waiting import Pace, failed, wait_until_created
from codespace_kernels.progress import Progress, ProgressEvent
from codespace_kernels.providers.codespace_checks import (
    IDLE_TIMEOUT_MINUTES,
    check_devcontainer,
    check_display_name,
    check_machine,
    check_minutes,
    check_request,
)
from codespace_kernels.providers.codespace_outcome import made_unanswered, with_advice

if TYPE_CHECKING:
    from codespace_kernels.github.codespaces import CodespacesApi
    from codespace_kernels.github.models import Codespace, Repository
    from codespace_kernels.providers.base import ChangeRequest, CreateRequest

_log = logging.getLogger(__name__)


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
    devcontainer = await _devcontainer(api, repository, request, progress)
    if request.machine:
        await _check_machine(api, repository, request, devcontainer)
    codespace, pending = await _create(api, request, repository, devcontainer, progress, pace or Pace())
    with naming(codespace.name, f"Codespace {codespace.name} was created, and is kept."):
        if pending:
            return await wait_until_created(api, codespace, progress, pace)
        if codespace.phase is Phase.TERMINAL:
            raise failed(codespace)
        return codespace


async def _create(
    api: CodespacesApi,
    request: CreateRequest,
    repository: Repository,
    devcontainer: str,
    progress: Progress,
    pace: Pace,
) -> tuple[Codespace, bool]:
    """Create it, once: where GitHub's answer is lost, its list of codespaces tells what came of it."""
    before = {codespace.name for codespace in await api.list_codespaces(repository.full_name)}
    progress(ProgressEvent("create", f"Creating a codespace of {repository.full_name}"))
    try:
        return await api.create(_body(request, repository, devcontainer))
    except GitHubUnavailableError as error:
        return await made_unanswered(api, request, before, error, progress, pace), True
    except (PaymentRequiredError, RateLimitError, PermissionsRequiredError):
        raise
    except GitHubError as error:
        raise await with_advice(api, error) from error


def checked_changes(request: ChangeRequest) -> dict[str, Any]:
    """Give the body of `PATCH /user/codespaces/{name}`.

    Raises:
        SettingsError: Nothing is to be changed, or a value is outside GitHub's limits.
    """
    changes = {key: value for key, value in dataclasses.asdict(request).items() if value is not None}
    if not changes:
        raise SettingsError("Nothing is to be changed. Give a machine type, an idle timeout or a display name.")
    check_display_name(request.display_name or "")
    check_minutes("idle timeout", request.idle_timeout_minutes, IDLE_TIMEOUT_MINUTES)
    return changes


async def _devcontainer(api: CodespacesApi, repository: Repository, request: CreateRequest, progress: Progress) -> str:
    """Give the devcontainer that is asked for, else the default one, else nothing: GitHub takes its standard image."""
    wanted = request.devcontainer_path
    try:
        offered = await api.devcontainers(repository, request.ref)
    except GitHubUnavailableError as error:
        # The list has been seen to fail for some repositories where creating works.
        _log.info("Creating without a look at the devcontainers: %s", error)
        return wanted
    paths = [devcontainer.path for devcontainer in offered]
    if wanted:
        check_devcontainer(wanted, paths, f"{repository.full_name} at {request.ref or repository.default_branch}")
        return wanted
    default = next((devcontainer.path for devcontainer in offered if devcontainer.is_default), "")
    if offered and not default:
        progress(ProgressEvent("find", f"Taking GitHub's standard image; the repository also has {', '.join(paths)}"))
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
