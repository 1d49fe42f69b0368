"""GitHub Codespaces as a provider: GitHub's REST API to manage them, dev tunnel and SSH to reach them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from codespace_kernels.errors import (
    NotFoundError,
    SettingsError,
    SshError,
    TunnelError,
    WaitTimeoutError,
    WorkspaceConnectionError,
    WorkspaceNotFoundError,
)
from codespace_kernels.github.auth import find_gh, gh_account, gh_environment, token_sources
from codespace_kernels.github.client import GitHubClient
from codespace_kernels.github.codespaces import CodespacesApi
from codespace_kernels.github.hosts import host_of, is_loopback
from codespace_kernels.github.models import Codespace, Phase
from codespace_kernels.github.waiting import ConnectableWait, Pace
from codespace_kernels.progress import Progress, ProgressEvent, silent
from codespace_kernels.providers.base import ChangeRequest, CreateRequest, Workspace, WorkspaceState
from codespace_kernels.providers.codespace_checks import check_machine, check_request
from codespace_kernels.providers.codespace_choices import (
    codespace_choices,
    permissions_accepted,
    suggested_repositories,
)
from codespace_kernels.providers.codespace_creation import checked_changes, create_codespace
from codespace_kernels.providers.fitting import fitting
from codespace_kernels.providers.prices import dollars_per_hour

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from codespace_kernels.connection import Connection
    from codespace_kernels.providers.base import JupyterUrl
    from codespace_kernels.providers.choices import Choices
    from codespace_kernels.providers.codespace_jupyter import CodespaceJupyter
    from codespace_kernels.target import Account
    from codespace_kernels.tunnel.preparation import Preparation
    from codespace_kernels.tunnel.properties import TunnelProperties
    from codespace_kernels.tunnel.tunnel import Tunnel

_log = logging.getLogger(__name__)

TRANSPORTS = ("auto", "tunnel", "gh")
"""How a codespace is reached: our own tunnel client, `gh codespace ssh --stdio`, or the first that can be had."""

REBUILD_BEGIN_SECONDS = 15.0
"""For GitHub to show that a rebuild has begun; one that is over by then is not waited for."""

FRESH_SECONDS = 10.0
"""For which what GitHub has said of a running codespace, its tunnel's tokens too, is good for a connection to it."""

_CODESPACE_NAME = re.compile(r"[A-Za-z0-9-]+")
_MOST_NAMED = 10
"""Codespaces that an error text names."""

_STATES = {
    Phase.READY: WorkspaceState.RUNNING,
    Phase.STOPPED: WorkspaceState.STOPPED,
    Phase.UP: WorkspaceState.STARTING,
    Phase.DOWN: WorkspaceState.STOPPING,
    Phase.BUSY: WorkspaceState.BUSY,
    Phase.TERMINAL: WorkspaceState.FAILED,
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Way:
    """Something open that leads to a codespace."""

    workspace: str
    notify_activity: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


class _Seen(NamedTuple):
    """A codespace as GitHub showed it, with tokens; `at` is `time.monotonic()`."""

    codespace: Codespace
    at: float


class CodespacesProvider:
    """The codespaces of one account; implements `providers.base.Provider`. Use it on one event loop.

    Besides what the interface says, every method may raise `AuthError` and `GitHubError`.

    Args:
        client: The account's REST client; owned from now on.
        env: The environment of whoever asks, in which `gh` is run.
        transport: One of `TRANSPORTS`.
        pace: How often a starting or stopping codespace is looked at.

    Raises:
        SettingsError: The transport is not known.
    """

    def __init__(
        self, client: GitHubClient, *, env: Mapping[str, str], transport: str = "auto", pace: Pace | None = None
    ) -> None:
        if transport not in TRANSPORTS:
            raise SettingsError(f"There is no transport {transport!r}. Known ones: {', '.join(TRANSPORTS)}.")
        self._client = client
        self._api = CodespacesApi(client)
        self._env = env
        self._transport = transport
        self._pace = pace
        self._ways: list[_Way] = []
        self._last_tunnels: dict[str, TunnelProperties] = {}
        self._jupyters: dict[str, CodespaceJupyter] = {}
        self._seen: dict[str, _Seen] = {}
        self._preparations: dict[str, Preparation] = {}

    @classmethod
    def for_account(cls, account: Account, env: Mapping[str, str], token: str | None, transport: str) -> Self:
        """Make the provider of an account, as `registry.make_provider` wants it."""
        return cls(GitHubClient(account, token_sources(account, env, token)), env=env, transport=transport)

    @property
    def git_host(self) -> str:
        """See `Provider.git_host`; an emulator on this machine plays github.com, and serves no clones itself."""
        api_url = self._client.account.api_url
        return "github.com" if is_loopback(api_url) else host_of(api_url)

    # Finding.

    async def list(self) -> list[Workspace]:
        """List the account's codespaces; see `Provider.list`."""
        return [workspace_of(codespace) for codespace in await self._api.list_codespaces()]

    async def resolve(self, name: str) -> Workspace:
        """Find a codespace by name, else by a display name, else by a repository that only one has."""
        if _CODESPACE_NAME.fullmatch(name):
            with contextlib.suppress(NotFoundError):
                return workspace_of(await self._api.get(name))
        return workspace_of(_chosen(await self._api.list_codespaces(), name))

    async def find(self, request: CreateRequest) -> Sequence[Workspace]:
        """Find codespaces that are like new ones; see `Provider.find`."""
        default_branch = "" if request.ref else (await self._api.repository(request.repository)).default_branch
        codespaces = await self._api.list_codespaces(request.repository)
        return [workspace_of(codespace) for codespace in fitting(codespaces, request, default_branch)]

    # Life.

    async def payer(self, request: CreateRequest) -> str:
        """Tell who would pay; see `Provider.payer`."""
        check_request(request)
        payer = (await self._api.terms(request.repository, request.ref)).payer
        if not payer:
            # GitHub answers 404 for a repository that is not there, too: then nobody is to be asked for consent.
            await self._api.repository(request.repository)
        return payer

    async def suggest_repositories(self, text: str = "") -> Sequence[str]:
        """Suggest repositories; see `Provider.suggest_repositories`."""
        return await suggested_repositories(self._api, text)

    async def choices(self, request: CreateRequest) -> Choices:
        """Tell what can be chosen; see `Provider.choices`."""
        return await codespace_choices(self._api, request)

    async def permissions_accepted(self, request: CreateRequest) -> bool | None:
        """Tell whether further permissions were granted; see `Provider.permissions_accepted`."""
        return await permissions_accepted(self._api, request)

    async def create(self, request: CreateRequest, progress: Progress) -> Workspace:
        """Create a codespace; see `codespace_creation.create_codespace` for what it raises."""
        return workspace_of(await create_codespace(self._api, request, progress, self._pace))

    async def ensure_running(
        self, name: str, progress: Progress, *, start: bool = True, timeout: float = 300.0
    ) -> Workspace:
        """Wait until the codespace can be connected to; see `Provider.ensure_running` and `ConnectableWait.run`."""
        codespace = await self._connectable(name, progress, start=start, timeout=timeout)
        self._seen[name] = _Seen(codespace, time.monotonic())
        return workspace_of(codespace)

    async def stop(self, name: str) -> Workspace:
        """Stop a codespace; see `Provider.stop`."""
        with _unknown_is_told(name):
            codespace = await self._api.get(name)
            if codespace.phase in (Phase.STOPPED, Phase.DOWN):
                return workspace_of(codespace)
            return workspace_of(await self._api.stop(name))

    async def delete(self, name: str) -> None:
        """Delete a codespace and everything in it."""
        with _unknown_is_told(name):
            await self._api.delete(name)

    async def change(self, name: str, request: ChangeRequest) -> Workspace:
        """Change a codespace; see `Provider.change`.

        Raises:
            PendingOperationError: Another operation on it is still running.
        """
        changes = checked_changes(request)
        with _unknown_is_told(name):
            if request.machine is not None:
                check_machine(request.machine, await self._api.machines_of(name), f"codespace {name}")
            return workspace_of(await self._api.update(name, changes))

    async def rebuild(self, name: str, progress: Progress, *, full: bool = False) -> None:
        """Begin to rebuild the container of a running codespace; see `Provider.rebuild`."""
        from codespace_kernels.tunnel.tunnel import open_tunnel

        tunnel = await open_tunnel(await self._tunnel_properties(name, progress), progress)
        try:
            progress(ProgressEvent("rebuild", f"Rebuilding the container of {name}"))
            await tunnel.services.rebuild(full=full)
            await self._left_availability(name)
        finally:
            await tunnel.close()

    async def _left_availability(self, name: str) -> None:
        """Wait until GitHub shows that the rebuild has begun: a wait for its end would else be over at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REBUILD_BEGIN_SECONDS):
                for pause in (self._pace or Pace()).pauses():
                    if (await self._api.get(name)).phase is not Phase.READY:
                        return
                    await asyncio.sleep(pause)

    # Reaching.

    def prepare(self, name: str) -> None:
        """Begin what needs no answer of GitHub; see `Provider.prepare`."""
        if self._transport != "gh":
            if (earlier := self._preparations.pop(name, None)) is not None:
                earlier.close()
            self._preparations[name] = self._make_preparation(name)

    def _make_preparation(self, name: str) -> Preparation:
        from codespace_kernels.tunnel.preparation import Preparation

        return Preparation(self._pin(name))

    def _take_preparation(self, name: str) -> Preparation:
        return self._preparations.pop(name, None) or self._make_preparation(name)

    async def connect(self, name: str, progress: Progress, *, api_down: bool = False) -> Connection:
        """Open a way to a running codespace; see `Provider.connect`. One that is stopped is not started.

        Raises:
            WorkspaceStoppedError: It is stopped.
        """
        if api_down:
            return await self._connect_as_before(name, progress)
        if self._transport == "gh":
            await self._connectable(name, progress, start=False)
            return await self._connect_by_gh(name, progress)
        try:
            return await self._connect_by_fresh_tunnel(name, progress)
        except TunnelError as error:
            # Where our own client has had the tunnel before, gh has no better one.
            if self._transport == "tunnel" or name in self._last_tunnels:
                raise
            return await self._fall_back(name, progress, error)

    async def _connect_by_fresh_tunnel(self, name: str, progress: Progress) -> Connection:
        """Connect with tokens that are fetched for it; fetched once more where they are refused."""
        from codespace_kernels.tunnel.errors import TunnelRefusedError

        preparation = self._take_preparation(name)
        try:
            properties = self._just_fetched(name) or await self._tunnel_properties(name, progress)
        except BaseException:
            preparation.close()
            raise
        try:
            return await self._connect_by_tunnel(properties, name, progress, preparation)
        except TunnelRefusedError as error:
            if not error.token_expired:
                raise
        return await self._connect_by_tunnel(await self._tunnel_properties(name, progress), name, progress)

    def _just_fetched(self, name: str) -> TunnelProperties | None:
        """Give what `ensure_running` has fetched a moment ago, once: each connection has tokens of its own."""
        seen = self._seen.pop(name, None)
        if seen is None or time.monotonic() - seen.at > FRESH_SECONDS:
            return None
        return _properties_of(seen.codespace)

    async def _connect_as_before(self, name: str, progress: Progress) -> Connection:
        properties = self._last_tunnels.get(name)
        if properties is None:
            raise WorkspaceConnectionError(f"Without GitHub's API no way to codespace {name} is known.")
        return await self._connect_by_tunnel(properties, name, progress, self._take_preparation(name))

    async def jupyter_url(self, name: str, progress: Progress) -> JupyterUrl:
        """Give the codespace's own JupyterLab on a local port, one for all callers; see `Provider.jupyter_url`."""
        from codespace_kernels.providers.codespace_jupyter import CodespaceJupyter

        if known := self._jupyters.get(name):
            await known.headers()
            return known

        async def open_tunnel() -> Tunnel:
            from codespace_kernels.tunnel.tunnel import open_tunnel

            return await open_tunnel(await self._tunnel_properties(name, silent), silent)

        jupyter = self._jupyters[name] = await CodespaceJupyter.open(open_tunnel, progress)
        self._ways.append(_Way(name, jupyter.notify_activity, jupyter.close))
        return jupyter

    async def notify_activity(self, name: str) -> None:
        """Tell the codespace that it is in use, through the way that is open; without one, nothing is done.

        Raises:
            WorkspaceConnectionError: The way was lost.
        """
        way = next((way for way in reversed(self._ways) if way.workspace == name), None)
        if way is not None:
            await way.notify_activity()

    async def close(self) -> None:
        """Close every way to a codespace, and the client; see `Provider.close`."""
        ways, self._ways = self._ways, []
        for way in ways:
            await way.close()
        while self._preparations:
            self._preparations.popitem()[1].close()
        await self._client.close()

    async def _connectable(self, name: str, progress: Progress, *, start: bool, timeout: float = 300.0) -> Codespace:
        with _unknown_is_told(name):
            wait = ConnectableWait(self._api, name, progress, start=start, timeout=timeout, pace=self._pace)
            return await wait.run()

    async def _tunnel_properties(self, name: str, progress: Progress) -> TunnelProperties:
        """Fetch what leads to the tunnel; its tokens expire, so each connection has its own where that can be."""
        return _properties_of(await self._connectable(name, progress, start=False))

    async def _connect_by_tunnel(
        self, properties: TunnelProperties, name: str, progress: Progress, preparation: Preparation | None = None
    ) -> Connection:
        # SSH and gRPC take a while to import: only who connects pays.
        from codespace_kernels.tunnel.codespace import connect_codespace

        connection = await connect_codespace(
            properties, name=self._pin(name), progress=progress, preparation=preparation
        )
        self._last_tunnels[name] = properties
        return self._kept(name, connection, lambda: connection.tunnel.services.notify_activity(["keepAlive"]))

    async def _connect_by_gh(self, name: str, progress: Progress) -> Connection:
        from codespace_kernels.ssh.gh import connect_by_gh

        env = gh_environment(self._env)
        program = find_gh(env)
        if program is None:
            raise SshError("The program gh is not installed, or not in PATH. Install it, or use transport `tunnel`.")
        env |= gh_account(self._client.account, await self._client.token())
        connection = await connect_by_gh(name, name=self._pin(name), environment=env, progress=progress, gh=program)

        async def notify() -> None:
            # gh reports input and output once a minute where bytes have moved; a command moves some.
            await connection.run(":")

        return self._kept(name, connection, notify)

    async def _fall_back(self, name: str, progress: Progress, error: TunnelError) -> Connection:
        """Try `gh` where our own tunnel cannot be had; when that fails too, our own error says more."""
        if find_gh(gh_environment(self._env)) is None:
            raise error
        _log.warning("Codespace %s is reached with gh, as the tunnel cannot be had: %s", name, error)
        progress(ProgressEvent("tunnel", "The dev tunnel cannot be opened, trying gh"))
        try:
            return await self._connect_by_gh(name, progress)
        except (WorkspaceConnectionError, WaitTimeoutError) as second:
            _log.warning("gh cannot reach codespace %s either: %s", name, second)
            raise error from None

    def _kept(self, name: str, connection: Connection, notify: Callable[[], Awaitable[None]]) -> Connection:
        way = _Way(name, notify, connection.close)
        self._ways.append(way)
        connection.closed.add_done_callback(lambda _: self._forget(way))
        return connection

    def _forget(self, way: _Way) -> None:
        with contextlib.suppress(ValueError):
            self._ways.remove(way)

    def _pin(self, name: str) -> str:
        return pin_name(name, self._client.account)


def _properties_of(codespace: Codespace) -> TunnelProperties:
    from codespace_kernels.tunnel.properties import TunnelProperties

    assert codespace.tunnel is not None
    return TunnelProperties(**dataclasses.asdict(codespace.tunnel))


def pin_name(name: str, account: Account) -> str:
    """Give the name under which a host key is pinned: names of codespaces are unique within a GitHub only."""
    return f"{name} at {account.api_url}"


def workspace_of(codespace: Codespace) -> Workspace:
    """Give a codespace in the terms that all providers share."""
    cores = (codespace.machine.cpus if codespace.machine else 0) or None
    return Workspace(
        name=codespace.name,
        title=codespace.display_name or codespace.name,
        state=WorkspaceState.BUSY if codespace.pending_operation else _STATES[codespace.phase],
        provider_state=codespace.state_text,
        repository=codespace.repository,
        ref=codespace.ref,
        machine=codespace.machine.title if codespace.machine else "",
        idle_timeout_minutes=codespace.idle_timeout_minutes,
        last_used_at=codespace.last_used_at,
        web_url=codespace.web_url,
        billable_owner=codespace.billable_owner,
        machine_name=codespace.machine.name if codespace.machine else "",
        devcontainer_path=codespace.devcontainer_path,
        location=codespace.location,
        created_at=codespace.created_at,
        retention_period_minutes=codespace.retention_period_minutes,
        idle_timeout_notice=codespace.idle_timeout_notice,
        stop_notice=codespace.last_known_stop_notice,
        has_uncommitted_changes=codespace.has_uncommitted_changes,
        has_unpushed_changes=codespace.has_unpushed_changes,
        cores=cores,
        dollars_per_hour=dollars_per_hour(cores),
    )


def _chosen(codespaces: list[Codespace], name: str) -> Codespace:
    """Choose by name, display name, then repository; letter case does not matter.

    Raises:
        WorkspaceNotFoundError: None, or more than one.
    """
    wanted = name.casefold()
    for key in ("name", "display_name", "repository"):
        found = [codespace for codespace in codespaces if str(getattr(codespace, key)).casefold() == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise WorkspaceNotFoundError(
                f"{name!r} fits more than one codespace: {_named(found)}. Give the name of one."
            )
    raise _unknown(name, f"There are: {_named(codespaces)}." if codespaces else "The account has none at all.")


def _named(codespaces: list[Codespace]) -> str:
    names = [f"{codespace.name} ({codespace.repository or 'no repository'})" for codespace in codespaces[:_MOST_NAMED]]
    more = len(codespaces) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _unknown(name: str, rest: str) -> WorkspaceNotFoundError:
    return WorkspaceNotFoundError(f"There is no codespace {name!r} in this account. {rest}")


@contextlib.contextmanager
def _unknown_is_told(name: str) -> Iterator[None]:
    """Turn GitHub's 404 about a codespace into the error that every provider has for it."""
    try:
        yield
    except NotFoundError as error:
        raise _unknown(name, "Look at `codespace-kernels list`.") from error
