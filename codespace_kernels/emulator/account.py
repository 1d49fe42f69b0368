"""The emulated account: its user, tokens, repositories and codespaces."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
from typing import TYPE_CHECKING, Literal

from codespace_kernels.emulator.codespace import Codespace
from codespace_kernels.emulator.login import SignIns
from codespace_kernels.emulator.models import (
    DEVCONTAINER_PATH,
    CodespaceState,
    MachineType,
    Repository,
    Token,
    User,
    random_suffix,
)
from codespace_kernels.emulator.policies import Policy, policy_of
from codespace_kernels.emulator.refusals import ApiError
from codespace_kernels.errors import EmulatorError

if TYPE_CHECKING:
    from codespace_kernels.emulator.codespace import Host

DEFAULT_REPOSITORY = "octocat/hello-codespaces"

_ADJECTIVES = ("brave", "calm", "crisp", "eager", "gentle", "lively", "mellow", "quiet", "sunny", "swift")
_NOUNS = ("beacon", "brook", "cedar", "comet", "harbor", "lantern", "meadow", "pebble", "robin", "summit")

_DEVCONTAINER = """\
{
  // The notebook server is the only port that has a name.
  "name": "%s",
  "portsAttributes": { "8888": { "label": "Jupyter" } }
}
"""


@dataclasses.dataclass(frozen=True)
class NewCodespace:
    """What a request to create a codespace asks for; empty fields are left to the account."""

    repository: Repository
    ref: str = ""
    display_name: str = ""
    machine_type: MachineType | None = None
    devcontainer_path: str | None = None
    location: str = ""
    idle_timeout_minutes: int | None = None
    retention_period_minutes: int | None = None


class Account:
    """One emulated GitHub account. Used on the emulator's event loop; reading is safe from elsewhere.

    Attributes:
        user: The only user that has tokens.
        repositories: By full name in lower case, as GitHub compares them.
        codespaces: By name.
        sign_ins: By the device flow.
        quota: Primary rate limit over all tokens of the user.
    """

    def __init__(self, host: Host, login: str = "octocat") -> None:
        self.host = host
        self.user = User(login)
        self.repositories: dict[str, Repository] = {}
        self.codespaces: dict[str, Codespace] = {}
        self.sign_ins = SignIns()
        self._tokens: dict[str, Token] = {}
        self._removals: set[asyncio.Task[None]] = set()

    def add_token(
        self, kind: Literal["classic", "fine-grained"] = "classic", scopes: tuple[str, ...] = ("codespace",)
    ) -> Token:
        """Give the user one more token. Scopes are those of a classic token."""
        token = Token.make(kind, scopes)
        self._tokens[token.value] = token
        return token

    def token(self, value: str) -> Token | None:
        """Give the token that has this value."""
        return self._tokens.get(value)

    def add_repository(self, full_name: str, *, paid_by: str = "", private: bool = False) -> Repository:
        """Add a repository with one devcontainer.

        Args:
            full_name: `owner/name`.
            paid_by: Login of the organisation that pays for its codespaces; empty: the user.
            private: Whether it is private.

        Raises:
            EmulatorError: The name is no `owner/name`, or taken.
        """
        if not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", full_name):
            raise EmulatorError(f"{full_name!r} names no repository. Write it as OWNER/NAME.")
        if full_name.lower() in self.repositories:
            raise EmulatorError(f"The emulated account has a repository {full_name!r} already.")
        login, _, name = full_name.partition("/")
        owner = self.user if login == self.user.login else User(login, type="Organization")
        repository = Repository(
            owner,
            name,
            private=private,
            files={DEVCONTAINER_PATH: _DEVCONTAINER % name},
            billable_owner=User(paid_by, type="Organization") if paid_by else None,
        )
        self.repositories[full_name.lower()] = repository
        return repository

    def repository(self, full_name: str) -> Repository | None:
        """Give the repository of a full name, whatever its case."""
        return self.repositories.get(full_name.lower())

    def repository_by_id(self, number: int) -> Repository | None:
        """Give the repository that has this id."""
        return next((repository for repository in self.repositories.values() if repository.id == number), None)

    def payer(self, repository: Repository) -> User:
        """Tell who pays for a codespace of the repository."""
        return repository.billable_owner or self.user

    def policy(self, repository: Repository) -> Policy:
        """Give the policy that holds for codespaces of the repository."""
        return policy_of(self.host.faults, self.payer(repository))

    def machine_types(self, repository: Repository) -> tuple[MachineType, ...]:
        """Give the machine types that codespaces of the repository may have."""
        return self.policy(repository).allowed(repository.machine_types)

    def add_codespace(self, wanted: NewCodespace, state: CodespaceState = CodespaceState.SHUTDOWN) -> Codespace:
        """Add a codespace that is in some state already; nothing runs in it."""
        repository = wanted.repository
        display_name = wanted.display_name or f"{secrets.choice(_ADJECTIVES)} {secrets.choice(_NOUNS)}"
        codespace = Codespace(
            host=self.host,
            name=f"{_slug(wanted.display_name or repository.name)}-{random_suffix()}",
            repository=repository,
            owner=self.user,
            billable_owner=self.payer(repository),
            ref=wanted.ref or repository.default_branch,
            display_name=display_name,
            machine_type=wanted.machine_type or self.machine_types(repository)[0],
            actual_state=state,
            devcontainer_path=wanted.devcontainer_path,
            location=wanted.location or "EastUs",
        )
        policy = self.policy(repository)
        minutes, keep = wanted.idle_timeout_minutes, wanted.retention_period_minutes
        codespace.idle_timeout_minutes, codespace.idle_timeout_notice = policy.idle_timeout_for(
            codespace.idle_timeout_minutes if minutes is None else minutes
        )
        codespace.retention_period_minutes = policy.retention_for(
            codespace.retention_period_minutes if keep is None else keep
        )
        self.codespaces[codespace.name] = codespace
        return codespace

    def create_codespace(self, wanted: NewCodespace) -> Codespace:
        """Create a codespace as GitHub does: it is there at once and begins to come up.

        Raises:
            ApiError: There are too many, or a policy forbids it.
        """
        fault = self.host.faults.get("too-many", "")
        if fault and len(self.codespaces) >= int(fault.options["most"]):
            raise ApiError(
                int(fault.options["status"]), "You have too many codespaces. Delete some before you create another."
            )
        self.policy(wanted.repository).check_image(wanted.repository, wanted.devcontainer_path)
        codespace = self.add_codespace(wanted, CodespaceState.QUEUED)
        codespace.create()
        return codespace

    def remove_codespace(self, codespace: Codespace) -> None:
        """Delete a codespace: gone at once, its processes and files soon after."""
        del self.codespaces[codespace.name]
        codespace.actual_state = CodespaceState.DELETED
        removal = asyncio.get_running_loop().create_task(codespace.remove())
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def close(self) -> None:
        """End every process of every codespace. Closing twice is no error."""
        closing = [codespace.close() for codespace in self.codespaces.values()]
        await asyncio.gather(*closing, *self._removals)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "codespace"
