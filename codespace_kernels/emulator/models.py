"""What an emulated account has, apart from its codespaces: users, repositories, machine types and tokens."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import secrets
from typing import Literal


class CodespaceState(enum.StrEnum):
    """The 17 states of GitHub's OpenAPI description (`codespace.state`)."""

    UNKNOWN = "Unknown"
    CREATED = "Created"
    QUEUED = "Queued"
    PROVISIONING = "Provisioning"
    AVAILABLE = "Available"
    AWAITING = "Awaiting"
    UNAVAILABLE = "Unavailable"
    DELETED = "Deleted"
    MOVED = "Moved"
    SHUTDOWN = "Shutdown"
    ARCHIVED = "Archived"
    STARTING = "Starting"
    SHUTTING_DOWN = "ShuttingDown"
    FAILED = "Failed"
    EXPORTING = "Exporting"
    UPDATING = "Updating"
    REBUILDING = "Rebuilding"


def timestamp(moment: datetime.datetime | None = None) -> str:
    """Give a moment (default: now) as GitHub writes it: ISO 8601, UTC, whole seconds, `Z`."""
    moment = moment or datetime.datetime.now(datetime.UTC)
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def random_id() -> int:
    """Give a number that looks like an id of GitHub's."""
    return secrets.randbelow(899_999_999) + 100_000_000


def random_suffix() -> str:
    """Give the random end of a codespace's name, in the alphabet that GitHub uses: no vowels, nothing ambiguous."""
    return "".join(secrets.choice("456789bcdfghjmpqrvwxg") for _ in range(12))


@dataclasses.dataclass(frozen=True)
class User:
    """A GitHub user, or an organisation that pays."""

    login: str
    id: int = dataclasses.field(default_factory=random_id)
    type: Literal["User", "Organization"] = "User"
    created_at: str = dataclasses.field(default_factory=timestamp)


@dataclasses.dataclass(frozen=True)
class MachineType:
    """A machine type that codespaces can have.

    Attributes:
        name: GitHub's name.
        cpus: Cores.
        memory_gb, storage_gb: In gibibytes.
    """

    name: str
    cpus: int
    memory_gb: int
    storage_gb: int

    @property
    def display_name(self) -> str:
        """The machine type as GitHub shows it to people."""
        return f"{self.cpus} cores, {self.memory_gb} GB RAM, {self.storage_gb} GB storage"


MACHINE_TYPES = (
    MachineType("basicLinux32gb", 2, 8, 32),
    MachineType("standardLinux32gb", 4, 16, 32),
    MachineType("premiumLinux", 8, 32, 64),
    MachineType("largePremiumLinux", 16, 64, 128),
)

DEVCONTAINER_PATH = ".devcontainer/devcontainer.json"
DEFAULT_DEVCONTAINER_PATHS = (DEVCONTAINER_PATH, ".devcontainer.json")


@dataclasses.dataclass
class Repository:
    """A repository for which codespaces can be made.

    Attributes:
        owner: Who has it.
        name: Without the owner.
        branches: The first is the default branch.
        files: Path to text, the same on every branch. Those below `.devcontainer` are its devcontainers.
        billable_owner: Who pays for its codespaces; None: the user that creates them.
        machine_types: What may be chosen.
    """

    owner: User
    name: str
    id: int = dataclasses.field(default_factory=random_id)
    private: bool = False
    branches: list[str] = dataclasses.field(default_factory=lambda: ["main"])
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    billable_owner: User | None = None
    machine_types: tuple[MachineType, ...] = MACHINE_TYPES
    created_at: str = dataclasses.field(default_factory=timestamp)

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner.login}/{self.name}"

    @property
    def default_branch(self) -> str:
        """The branch that is used where none is named."""
        return self.branches[0]

    @property
    def devcontainers(self) -> list[str]:
        """Paths of its devcontainer files, the default one first."""
        found = [path for path in self.files if path.endswith("devcontainer.json")]
        return sorted(found, key=lambda path: (path != DEVCONTAINER_PATH, path))

    @property
    def default_devcontainer(self) -> str | None:
        """Path of the devcontainer that is taken where none is named; None: a standard image."""
        return next((path for path in DEFAULT_DEVCONTAINER_PATHS if path in self.files), None)


@dataclasses.dataclass(frozen=True)
class Token:
    """A token of the account's user.

    Attributes:
        value: The secret.
        kind: `classic` tokens have scopes; `fine-grained` ones have none, list codespaces, but are given no tunnel.
        scopes: Scopes of a classic token.
    """

    value: str = dataclasses.field(repr=False)
    kind: Literal["classic", "fine-grained"] = "classic"
    scopes: tuple[str, ...] = ("codespace",)

    @classmethod
    def make(
        cls, kind: Literal["classic", "fine-grained"] = "classic", scopes: tuple[str, ...] = ("codespace",)
    ) -> Token:
        """Make a token with a random value that has the prefix of its kind."""
        prefix = "ghp_" if kind == "classic" else "github_pat_"
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        value = prefix + "".join(secrets.choice(alphabet) for _ in range(36))
        return cls(value, kind, scopes if kind == "classic" else ())

    @property
    def may_use_codespaces(self) -> bool:
        """Whether the codespaces endpoints are open to it."""
        return self.kind == "fine-grained" or "codespace" in self.scopes

    @property
    def may_connect(self) -> bool:
        """Whether the internal form shows it the tunnel."""
        return self.kind == "classic" and self.may_use_codespaces
