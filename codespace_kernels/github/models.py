"""GitHub's answers as typed values; a missing or unknown field is no error.

Field names are those of GitHub's OpenAPI description; `connection` is in the internal form only, which is not public.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(enum.Enum):
    """What a codespace's state means to somebody who waits for it."""

    READY = "ready"
    STOPPED = "stopped"
    UP = "up"
    """On its way up."""
    DOWN = "down"
    """On its way down."""
    BUSY = "busy"
    """Taken by an operation that ends by itself."""
    TERMINAL = "terminal"
    """No waiting will mend it."""


class CodespaceState(enum.Enum):
    """The 17 values of `state` in GitHub's OpenAPI description.

    What they mean is inferred from their names and from what `gh` does: GitHub does not define them.
    """

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

    @classmethod
    def parse(cls, text: str) -> CodespaceState:
        """Give the state for GitHub's word; `UNKNOWN` for a word that is not on the list."""
        return _STATES.get(text, cls.UNKNOWN)


_STATES = {state.value: state for state in CodespaceState}

_PHASES = {
    CodespaceState.AVAILABLE: Phase.READY,
    CodespaceState.SHUTDOWN: Phase.STOPPED,
    CodespaceState.CREATED: Phase.UP,
    CodespaceState.QUEUED: Phase.UP,
    CodespaceState.PROVISIONING: Phase.UP,
    CodespaceState.AWAITING: Phase.UP,
    CodespaceState.STARTING: Phase.UP,
    CodespaceState.SHUTTING_DOWN: Phase.DOWN,
    CodespaceState.REBUILDING: Phase.BUSY,
    CodespaceState.UPDATING: Phase.BUSY,
    CodespaceState.EXPORTING: Phase.BUSY,
    CodespaceState.FAILED: Phase.TERMINAL,
    CodespaceState.UNAVAILABLE: Phase.TERMINAL,
    CodespaceState.DELETED: Phase.TERMINAL,
    CodespaceState.MOVED: Phase.TERMINAL,
    CodespaceState.ARCHIVED: Phase.TERMINAL,
    CodespaceState.UNKNOWN: Phase.TERMINAL,
}


@dataclasses.dataclass(frozen=True)
class TunnelProperties:
    """What leads to a codespace's dev tunnel. The two tokens are secrets: `repr` leaves them out.

    Attributes:
        connect_access_token: For the relay.
        manage_ports_access_token: For the tunnel management API.
        service_uri: Base of the tunnel management API.
        tunnel_id: Tunnel.
        cluster_id: Cluster that the tunnel lives in.
        domain: Only checked to be there.
    """

    connect_access_token: str = dataclasses.field(repr=False)
    manage_ports_access_token: str = dataclasses.field(repr=False)
    service_uri: str
    tunnel_id: str
    cluster_id: str
    domain: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TunnelProperties | None:
        """Read `connection.tunnelProperties`; None unless all six are there, as `gh` wants it."""
        names = ("connectAccessToken", "managePortsAccessToken", "serviceUri", "tunnelId", "clusterId", "domain")
        values = [_text(data, name) for name in names]
        return cls(*values) if all(values) else None


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine type.

    Attributes:
        name: For the API: `basicLinux32gb`.
        title: For people: "2 cores, 8 GB RAM, 32 GB storage".
        cpus: Cores, 0 where unknown.
        memory_bytes, storage_bytes: Sizes, 0 where unknown.
        prebuild: `none`, `ready`, `in_progress`, or empty.
    """

    name: str
    title: str
    cpus: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0
    prebuild: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """Read a machine; without a display name its sizes are its title."""
        cpus, memory = _number(data, "cpus") or 0, _number(data, "memory_in_bytes") or 0
        title = _text(data, "display_name")
        if not title and cpus and memory:
            title = f"{cpus} cores, {memory >> 30} GB RAM"
        name = _text(data, "name")
        storage = _number(data, "storage_in_bytes") or 0
        return cls(name, title or name, cpus, memory, storage, _text(data, "prebuild_availability"))


@dataclasses.dataclass(frozen=True)
class Devcontainer:
    """A development container configuration of a repository.

    Attributes:
        path: Path of its `devcontainer.json`.
        display_name: Name in it, empty where there is none.
        name: Folder below `.devcontainer`, empty for the default one.
    """

    path: str
    display_name: str = ""
    name: str = ""

    @property
    def is_default(self) -> bool:
        """Whether GitHub takes it when none is named."""
        return self.path in (".devcontainer.json", ".devcontainer/devcontainer.json")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Devcontainer:
        """Read a devcontainer."""
        return cls(_text(data, "path"), _text(data, "display_name"), _text(data, "name"))


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository, as far as codespaces need it.

    Attributes:
        id: Number that the create call wants.
        full_name: `owner/name`.
        default_branch: Branch, empty where unknown.
        private: Whether it is.
    """

    id: int
    full_name: str
    default_branch: str = ""
    private: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Repository:
        """Read a repository."""
        branch, private = _text(data, "default_branch"), data.get("private") is True
        return cls(_number(data, "id") or 0, _text(data, "full_name"), branch, private)


@dataclasses.dataclass(frozen=True)
class CreationTerms:
    """What creating a codespace of a repository would mean; everything is empty where GitHub does not say.

    Attributes:
        payer: Login of who pays.
        payer_kind: `User` or `Organization`.
        location: Region that would be taken.
        devcontainer_path: Configuration that would be taken.
    """

    payer: str = ""
    payer_kind: str = ""
    location: str = ""
    devcontainer_path: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CreationTerms:
        """Read the answer of `GET /repos/{owner}/{repo}/codespaces/new`."""
        payer, defaults = _mapping(data, "billable_owner"), _mapping(data, "defaults")
        place, path = _text(defaults, "location"), _text(defaults, "devcontainer_path")
        return cls(_text(payer, "login"), _text(payer, "type"), place, path)


@dataclasses.dataclass(frozen=True)
class Codespace:
    """A codespace.

    Attributes:
        name: Unique name.
        state: GitHub's state; `UNKNOWN` for a word that is not on the list.
        state_text: GitHub's word.
        display_name: For people, empty where there is none.
        repository: `owner/name`.
        repository_id: Number, 0 where unknown.
        ref: Branch that is checked out.
        owner, billable_owner: Logins: whose it is, and who pays.
        machine: Machine type, None where GitHub does not say.
        devcontainer_path: Configuration it was made from.
        location: Region.
        created_at, last_used_at: ISO 8601, empty where unknown.
        idle_timeout_minutes, retention_period_minutes: None where unknown.
        idle_timeout_notice: Told when a policy changed the timeout.
        last_known_stop_notice: Why it was stopped last, where GitHub says so.
        web_url: Address of its editor.
        pending_operation: Whether nothing but deleting it is allowed now.
        pending_operation_reason: Why.
        has_uncommitted_changes, has_unpushed_changes: What deleting it would lose.
        has_connection: Whether the answer spoke of a connection at all, complete or not.
        tunnel: What leads to its dev tunnel; only in the internal form, and only when complete.
    """

    name: str
    state: CodespaceState
    state_text: str
    display_name: str = ""
    repository: str = ""
    repository_id: int = 0
    ref: str = ""
    owner: str = ""
    billable_owner: str = ""
    machine: Machine | None = None
    devcontainer_path: str = ""
    location: str = ""
    created_at: str = ""
    last_used_at: str = ""
    idle_timeout_minutes: int | None = None
    retention_period_minutes: int | None = None
    idle_timeout_notice: str = ""
    last_known_stop_notice: str = ""
    web_url: str = ""
    pending_operation: bool = False
    pending_operation_reason: str = ""
    has_uncommitted_changes: bool = False
    has_unpushed_changes: bool = False
    has_connection: bool = False
    tunnel: TunnelProperties | None = None

    @property
    def phase(self) -> Phase:
        """What the state means to somebody who waits."""
        if self.state is CodespaceState.UNKNOWN and self.state_text != CodespaceState.UNKNOWN.value:
            # A state that GitHub added later: more likely something passing than the end.
            return Phase.BUSY
        return _PHASES[self.state]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a codespace in the public or the internal form."""
        state = _text(data, "state")
        repository, git = _mapping(data, "repository"), _mapping(data, "git_status")
        connection, machine = _mapping(data, "connection"), _mapping(data, "machine")
        return cls(
            name=_text(data, "name"),
            state=CodespaceState.parse(state),
            state_text=state or CodespaceState.UNKNOWN.value,
            display_name=_text(data, "display_name"),
            repository=_text(repository, "full_name"),
            repository_id=_number(repository, "id") or 0,
            ref=_text(git, "ref"),
            owner=_text(_mapping(data, "owner"), "login"),
            billable_owner=_text(_mapping(data, "billable_owner"), "login"),
            machine=Machine.from_json(machine) if machine else None,
            devcontainer_path=_text(data, "devcontainer_path"),
            location=_text(data, "location"),
            created_at=_text(data, "created_at"),
            last_used_at=_text(data, "last_used_at"),
            idle_timeout_minutes=_number(data, "idle_timeout_minutes"),
            retention_period_minutes=_number(data, "retention_period_minutes"),
            idle_timeout_notice=_text(data, "idle_timeout_notice"),
            last_known_stop_notice=_text(data, "last_known_stop_notice"),
            web_url=_text(data, "web_url"),
            pending_operation=data.get("pending_operation") is True,
            pending_operation_reason=_text(data, "pending_operation_disabled_reason"),
            has_uncommitted_changes=git.get("has_uncommitted_changes") is True,
            has_unpushed_changes=git.get("has_unpushed_changes") is True,
            has_connection=bool(connection),
            tunnel=TunnelProperties.from_json(_mapping(connection, "tunnelProperties")),
        )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _number(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
