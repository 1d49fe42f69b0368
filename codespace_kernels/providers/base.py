"""The interface of a provider: how a workspace is found, created, started, stopped and reached.

`resolve` and `create` are apart so that choosing a kernel can never make a billable machine.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, Protocol

from codespace_kernels.providers.choices import Choices as Choices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.connection import Connection
    from codespace_kernels.progress import Progress


class WorkspaceState(enum.Enum):
    """What a provider's own states come down to."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BUSY = "busy"
    """Up or down, but taken by an operation (rebuild, export, update) that must end first."""
    FAILED = "failed"
    """No waiting will mend it."""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A place where kernels can live.

    Attributes:
        name: The provider's own unique name.
        title: For people: a display name, or the name again.
        state: Normalised state.
        provider_state: The provider's own word for it.
        repository: `owner/name`, empty where there is none.
        ref: Branch that is checked out, empty where unknown.
        machine: Machine type for people ("4 cores, 16 GB RAM"), empty where unknown.
        idle_timeout_minutes: After how many idle minutes the provider stops it; None where unknown.
        last_used_at: ISO 8601, empty where unknown.
        web_url: Page of the workspace, empty where there is none.
        billable_owner: Login that pays, empty where unknown.
        machine_name: The provider's name of the machine type, empty where unknown.
        devcontainer_path: What it was made from, empty for the provider's default or where unknown.
        location: Region, empty where unknown.
        created_at: ISO 8601, empty where unknown.
        retention_period_minutes: How long after a stop the provider deletes it; None where unknown.
        idle_timeout_notice: What the provider says where a policy has changed the idle timeout.
        stop_notice: Why the provider stopped it last, empty where it does not say.
        has_uncommitted_changes, has_unpushed_changes: What deleting it would lose, as far as the provider knows.
        cores: Of its machine, None where unknown.
        dollars_per_hour: Published price of an hour in which it runs, None where unknown.
    """

    name: str
    title: str
    state: WorkspaceState
    provider_state: str
    repository: str = ""
    ref: str = ""
    machine: str = ""
    idle_timeout_minutes: int | None = None
    last_used_at: str = ""
    web_url: str = ""
    billable_owner: str = ""
    machine_name: str = ""
    devcontainer_path: str = ""
    location: str = ""
    created_at: str = ""
    retention_period_minutes: int | None = None
    stop_notice: str = ""
    idle_timeout_notice: str = ""
    has_uncommitted_changes: bool = False
    has_unpushed_changes: bool = False
    cores: int | None = None
    dollars_per_hour: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object for `--json` and the broker's API."""
        return {**dataclasses.asdict(self), "state": self.state.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Workspace:
        """Rebuild from `to_json`; unknown keys are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        return cls(**{**values, "state": WorkspaceState(values["state"])})


@dataclasses.dataclass(frozen=True)
class CreateRequest:
    """What to create; empty fields are left to the provider's defaults.

    Attributes:
        repository: `owner/name`.
        ref: Branch or commit.
        devcontainer_path: Path of the `devcontainer.json` in the repository.
        machine: Name of a machine type.
        display_name: At most 48 bytes (the limit that `gh` applies).
        idle_timeout_minutes: 5 to 240.
        retention_period_minutes: 0 to 43200.
        location: Region.
        default_permissions: Whether extra permissions that the devcontainer asks for are declined.
    """

    repository: str
    ref: str = ""
    devcontainer_path: str = ""
    machine: str = ""
    display_name: str = ""
    idle_timeout_minutes: int | None = None
    retention_period_minutes: int | None = None
    location: str = ""
    default_permissions: bool = False


@dataclasses.dataclass(frozen=True)
class ChangeRequest:
    """What to change of a workspace; what is None stays.

    Attributes:
        display_name: At most 48 bytes (the limit that `gh` applies).
        machine: Name of a machine type that is offered for it.
        idle_timeout_minutes: 5 to 240.
    """

    display_name: str | None = None
    machine: str | None = None
    idle_timeout_minutes: int | None = None


class JupyterUrl(Protocol):
    """A Jupyter server that is not ours: its address, and credentials that are asked for anew each time."""

    @property
    def base_url(self) -> str:
        """Address without `lab`, `tree` or a token, with a trailing slash."""

    async def headers(self) -> dict[str, str]:
        """Give the headers that authenticate a request made now."""


class Provider(Protocol):
    """One account at one provider. Made by `providers.registry.make_provider`."""

    @property
    def git_host(self) -> str:
        """Host in the addresses of the repositories that its workspaces are clones of: `github.com`."""

    async def list(self) -> list[Workspace]:
        """List the account's workspaces. Costs no money and starts nothing."""

    async def resolve(self, name: str) -> Workspace:
        """Find a workspace by name, or by a title or repository that only one workspace has.

        Raises:
            WorkspaceNotFoundError: None, or more than one (all are named).
        """

    async def find(self, request: CreateRequest) -> Sequence[Workspace]:
        """Find the workspaces that are like what `create(request)` makes. Costs no money and starts nothing.

        Compared are repository, branch that is checked out, dev container and machine type; an empty branch or dev
        container means the default one, an empty machine type any. The rest of the request is for new ones only.

        Returns:
            The best first: running before stopped ones, then those that were used last. Failed ones are left out.

        Raises:
            NotFoundError: There is no such repository.
        """

    async def payer(self, request: CreateRequest) -> str:
        """Tell who would pay for `create(request)`: a login, empty where the provider does not say."""

    async def suggest_repositories(self, text: str = "") -> Sequence[str]:
        """Suggest repositories to create a workspace of, as `owner/name`, without asking for one.

        Args:
            text: Part of a name, or `owner/part`: the search finds others' repositories, too. Empty for those of the
                account's workspaces and then its own, the latest first.
        """

    async def choices(self, request: CreateRequest) -> Choices:
        """Tell what can be chosen for `request.repository`, and who would pay. Makes nothing and costs nothing.

        The lists are those of `request.ref`, `request.devcontainer_path` and `request.location`, where they are given.

        Raises:
            SettingsError: One of these three is not to be had; says what is.
            GitHubError: There is no such repository, or nothing may be created of it.
        """

    async def permissions_accepted(self, request: CreateRequest) -> bool | None:
        """Tell whether the further permissions that the devcontainer asks for were granted; see `Choices`."""

    async def create(self, request: CreateRequest, progress: Progress) -> Workspace:
        """Create a workspace and wait until it is there (not until it runs)."""

    async def ensure_running(
        self, name: str, progress: Progress, *, start: bool = True, timeout: float = 300.0
    ) -> Workspace:
        """Wait until the workspace can be connected to, starting it where it is stopped.

        Raises:
            WorkspaceStoppedError: It is stopped and `start` is false.
            WorkspaceFailedError: It is in a terminal state; raised at once.
            WaitTimeoutError: Not running after `timeout` seconds.
        """

    async def stop(self, name: str) -> Workspace:
        """Stop the workspace; one that is stopped already is no error."""

    async def delete(self, name: str) -> None:
        """Delete the workspace."""

    async def change(self, name: str, request: ChangeRequest) -> Workspace:
        """Change what can be changed of a workspace; another machine is had from its next start on.

        Raises:
            SettingsError: Nothing is to be changed, a value is out of bounds, or the machine is not offered.
        """

    async def rebuild(self, name: str, progress: Progress, *, full: bool = False) -> None:
        """Begin to make a running workspace's container anew; every process in it ends.

        Args:
            name: The workspace.
            progress: Hears of the steps.
            full: Whether nothing that was built before is used again.
        """

    def prepare(self, name: str) -> None:
        """Hear that `connect` is about to be called for a workspace, if it runs: what needs no answer may begin."""

    async def connect(self, name: str, progress: Progress, *, api_down: bool = False) -> Connection:
        """Open a way to a running workspace, with credentials fetched for this connection.

        Args:
            name: The workspace.
            progress: Hears of the steps.
            api_down: The provider's API does not answer: what is known of the last way is used, credentials included.

        Raises:
            NoSshServerError: The image has no SSH server; `jupyter_url` may still work.
            WorkspaceConnectionError: It cannot be reached.
        """

    async def jupyter_url(self, name: str, progress: Progress) -> JupyterUrl:
        """Give the workspace's own Jupyter server, where `connect` cannot be had.

        Raises:
            WorkspaceConnectionError: There is none either.
        """

    async def notify_activity(self, name: str) -> None:
        """Tell the provider that the workspace is in use, so that its idle timeout starts anew."""

    async def close(self) -> None:
        """Close every connection of this account. Closing twice is no error."""
