"""What came of a creation that GitHub did not answer, or refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

from codespace_kernels.errors import GitHubError, GitHubUnavailableError
from codespace_kernels.github.models import Phase
from codespace_kernels.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from codespace_kernels.github.codespaces import CodespacesApi
    from codespace_kernels.github.models import Codespace
    from codespace_kernels.github.waiting import Pace
    from codespace_kernels.providers.base import CreateRequest

_TOO_MANY = re.compile(r"too many|maximum|limit", re.IGNORECASE)
"""What GitHub's pages say of the number of codespaces; how its API says it is not known."""

_MOST_NAMED = 10


async def made_unanswered(
    api: CodespacesApi,
    request: CreateRequest,
    before: set[str],
    error: GitHubUnavailableError,
    progress: Progress,
    pace: Pace,
) -> Codespace:
    """Find the codespace that was created all the same. Sending the request again could make a second one.

    Args:
        api: The account.
        request: What was to be created.
        before: Names of the repository's codespaces before that.
        error: Why there is no answer.
        progress: Told what was found.
        pace: How often, and for how long, to look.

    Raises:
        GitHubUnavailableError: None is found, or more than one; says what is known.
    """
    progress(ProgressEvent("create", "GitHub did not answer; looking whether the codespace was created"))
    try:
        async with asyncio.timeout(pace.lost):
            found = await _until_found(api, request, before, pace)
    except TimeoutError:
        raise _unknown(error, "none is in the list of your codespaces so far") from error
    if len(found) > 1:
        names = " and ".join(codespace.name for codespace in found)
        raise _unknown(error, f"{names} are new in the list of your codespaces") from error
    progress(ProgressEvent("create", f"GitHub did not answer, but created codespace {found[0].name}"))
    return found[0]


def is_made_by(codespace: Codespace, request: CreateRequest) -> bool:
    """Tell whether a codespace can have come of a request."""
    machine = codespace.machine.name if codespace.machine else ""
    pairs = (
        (request.ref, codespace.ref),
        (request.machine, machine),
        (request.display_name, codespace.display_name),
        (request.devcontainer_path, codespace.devcontainer_path),
    )
    # What GitHub does not tell yet speaks against nothing.
    return all(not wanted or not there or wanted == there for wanted, there in pairs)


async def with_advice(api: CodespacesApi, error: GitHubError) -> GitHubError:
    """Give a refusal that says what to delete or stop, where it is about the number of codespaces."""
    if not _TOO_MANY.search(str(error)):
        return error
    codespaces = await api.list_codespaces()
    named = ", ".join(f"{one.name} ({one.repository}, {_state(one)})" for one in codespaces[:_MOST_NAMED])
    more = f" and {len(codespaces) - _MOST_NAMED} more" if len(codespaces) > _MOST_NAMED else ""
    refusal = GitHubError(
        f"{error} You have {named}{more}. Make room with `codespace-kernels delete NAME` or, if only too many run, "
        "`codespace-kernels stop NAME`."
    )
    refusal.status = error.status
    return refusal


def _state(codespace: Codespace) -> str:
    return "stopped" if codespace.phase is Phase.STOPPED else codespace.state_text


async def _until_found(api: CodespacesApi, request: CreateRequest, before: set[str], pace: Pace) -> list[Codespace]:
    pauses = pace.pauses()
    while True:
        # The network may be gone for a while yet.
        with contextlib.suppress(GitHubUnavailableError):
            listed = await api.list_codespaces(request.repository)
            if found := [one for one in listed if one.name not in before and is_made_by(one, request)]:
                return found
        await asyncio.sleep(next(pauses))


def _unknown(error: GitHubUnavailableError, known: str) -> GitHubUnavailableError:
    unknown = GitHubUnavailableError(f"{error} For now, {known}; `codespace-kernels list` shows them.")
    unknown.status = error.status
    return unknown
