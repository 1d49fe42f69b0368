"""What can be chosen for a new codespace, asked of GitHub in two rounds of calls at once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from codespace_kernels.errors import GitHubError, GitHubUnavailableError, MissingScopeError, NotFoundError
from codespace_kernels.github.models import Devcontainer
from codespace_kernels.providers.choices import Choices, DevcontainerOffer, MachineOffer, Payer
from codespace_kernels.providers.codespace_checks import (
    IDLE_TIMEOUT_MINUTES,
    LOCATIONS,
    RETENTION_MINUTES,
    check_branch,
    check_devcontainer,
    check_request,
)
from codespace_kernels.providers.prices import dollars_per_hour

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from codespace_kernels.github.codespaces import CodespacesApi
    from codespace_kernels.github.models import CreationTerms, Machine, Repository
    from codespace_kernels.providers.base import CreateRequest

_log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_BRANCHES = 1000
"""Ten requests; who wants a branch beyond them names it."""

MOST_SUGGESTED = 100
MOST_FOUND = 20

_LEAST_CORES, _USUAL_CORES = 2, 16
"""The smallest machine type, and one that GitHub offers where an organisation pays, unless something forbids it."""


class _Listed(NamedTuple, Generic[T]):
    """A list, and the sentence that says why it is not complete."""

    items: list[T]
    note: str = ""


async def codespace_choices(api: CodespacesApi, request: CreateRequest) -> Choices:
    """Ask GitHub what can be chosen; see `Provider.choices`.

    A list that GitHub fails to give (5xx), or does not give to this token, becomes a note: creating has been seen to
    work all the same.
    """
    check_request(request)
    repository, terms, branches = await asyncio.gather(
        api.repository(request.repository),
        api.terms(request.repository, request.ref),
        _branches(api, request.repository),
    )
    if request.ref and not branches.note:
        check_branch(request.ref, _with_first(repository.default_branch, branches.items), repository.full_name)
    # GitHub's own default saves a round: machines and permissions depend on the devcontainer.
    path = request.devcontainer_path or _default_path(terms)
    devcontainers, machines, accepted = await asyncio.gather(
        _listed(api.devcontainers(repository, request.ref), "devcontainers"),
        _listed(
            api.machines(repository, ref=request.ref, devcontainer_path=path, location=request.location),
            "machine types",
        ),
        _accepted(api, repository, request.ref, path),
    )
    if request.devcontainer_path and not devcontainers.note:
        where = f"{repository.full_name} at {request.ref or repository.default_branch}"
        check_devcontainer(request.devcontainer_path, [found.path for found in devcontainers.items], where)
    return _choices(repository, terms, branches, devcontainers, machines, accepted=accepted)


async def permissions_accepted(api: CodespacesApi, request: CreateRequest) -> bool | None:
    """Tell whether further permissions were granted; see `Provider.permissions_accepted`."""
    repository, terms = await asyncio.gather(
        api.repository(request.repository), api.terms(request.repository, request.ref)
    )
    return await _accepted(api, repository, request.ref, request.devcontainer_path or _default_path(terms))


async def suggested_repositories(api: CodespacesApi, text: str) -> list[str]:
    """Suggest repositories; see `Provider.suggest_repositories`."""
    recent, own = await asyncio.gather(_recent(api), _found(api.own_repositories(MOST_SUGGESTED)))
    known = list(dict.fromkeys([*recent, *own]))
    words = text.strip().casefold()
    if not words:
        return known
    found = await _found(api.search_repositories(_query(text.strip()), MOST_FOUND))
    return list(dict.fromkeys([*(name for name in known if words in name.casefold()), *found]))


def _query(text: str) -> str:
    """Give the query that `gh` sends: for a name, or for a name of an owner's."""
    owner, slash, name = text.partition("/")
    return f"{name} user:{owner} in:name".strip() if slash else f"{text} in:name"


async def _recent(api: CodespacesApi) -> list[str]:
    """Give the repositories of the account's codespaces, that of the one used last first."""
    codespaces = sorted(await api.list_codespaces(), key=lambda codespace: codespace.last_used_at, reverse=True)
    return [codespace.repository for codespace in codespaces if codespace.repository]


async def _found(names: Awaitable[list[str]]) -> list[str]:
    """Wait for suggestions; none come of a refusal, for they are a convenience."""
    try:
        return await names
    except (GitHubError, MissingScopeError) as error:
        _log.info("%s", error)
        return []


async def _branches(api: CodespacesApi, full_name: str) -> _Listed[str]:
    listed = await _listed(api.branches(full_name, MOST_BRANCHES), "branches")
    if len(listed.items) < MOST_BRANCHES:
        return listed
    return _Listed(listed.items, f"Only the first {MOST_BRANCHES} branches are listed.")


async def _accepted(api: CodespacesApi, repository: Repository, ref: str, devcontainer_path: str) -> bool | None:
    """Ask for the permissions; None where GitHub does not say (403, 422, 503)."""
    try:
        return await api.permissions_accepted(repository, ref, devcontainer_path)
    except (GitHubError, MissingScopeError) as error:
        _log.info("%s", error)
        return None


async def _listed(items: Awaitable[list[T]], what: str) -> _Listed[T]:
    try:
        return _Listed(await items)
    except GitHubUnavailableError as error:
        reason = f"server error {error.status}" if error.status else "no answer"
    except (NotFoundError, MissingScopeError):
        # Branches of a private repository want the scope `repo`, creating a codespace of it does not.
        reason = "the token may not see them"
    return _Listed([], f"GitHub did not list the {what} ({reason}); it takes its default, or what you name.")


def _choices(
    repository: Repository,
    terms: CreationTerms,
    branches: _Listed[str],
    devcontainers: _Listed[Devcontainer],
    machines: _Listed[Machine],
    *,
    accepted: bool | None,
) -> Choices:
    payer = Payer(terms.payer, terms.payer_kind)
    offers = sorted((_machine_offer(machine) for machine in machines.items), key=lambda offer: offer.cpus)
    incomplete = {"branches": branches.note, "devcontainers": devcontainers.note, "machines": machines.note}
    notes = [*incomplete.values(), *(() if machines.note else _narrowed(offers, payer)), _permissions(accepted)]
    return Choices(
        repository=repository.full_name,
        default_branch=repository.default_branch,
        payer=payer,
        branches=_with_first(repository.default_branch, branches.items),
        devcontainers=_devcontainer_offers(devcontainers.items),
        machines=offers,
        locations=_with_first(terms.location, LOCATIONS),
        idle_timeout_minutes=IDLE_TIMEOUT_MINUTES,
        retention_minutes=RETENTION_MINUTES,
        permissions_accepted=accepted,
        unlisted=[what for what, note in incomplete.items() if note],
        notes=[note for note in notes if note],
    )


def _permissions(accepted: bool | None) -> str:
    if accepted is not False:
        return ""
    return "The devcontainer asks for permissions that you have not granted yet; you can grant or decline them."


def _narrowed(offers: list[MachineOffer], payer: Payer) -> list[str]:
    """Say that machine types are missing: GitHub leaves out what is forbidden, and does not tell why."""
    cores = [offer.cpus for offer in offers if offer.cpus]
    if not cores:
        return []
    notes = []
    if cores[0] > _LEAST_CORES:
        notes.append(
            f"Machines of fewer than {cores[0]} cores are not offered: the devcontainer (hostRequirements) or a policy "
            "of whoever pays asks for more."
        )
    if payer.kind == "Organization" and cores[-1] < _USUAL_CORES:
        notes.append(
            f"Your organisation {payer.login}, which pays, offers machines of at most {cores[-1]} cores here, probably "
            "by its policy."
        )
    return notes


def _default_path(terms: CreationTerms) -> str:
    return terms.devcontainer_path if Devcontainer(terms.devcontainer_path).is_default else ""


def _devcontainer_offers(found: list[Devcontainer]) -> list[DevcontainerOffer]:
    offers = [DevcontainerOffer(one.path, one.display_name or one.name or one.path, one.is_default) for one in found]
    return sorted(offers, key=lambda offer: not offer.is_default)


def _machine_offer(machine: Machine) -> MachineOffer:
    return MachineOffer(
        machine.name,
        machine.title,
        machine.cpus,
        machine.memory_bytes,
        machine.storage_bytes,
        machine.prebuild,
        dollars_per_hour(machine.cpus),
    )


def _with_first(first: str, names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*([first] if first else []), *names]))
