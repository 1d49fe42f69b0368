"""What runs the kernels of a connected workspace: our own server by the link, or a server that is not ours."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import secrets
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from codespace_kernels import __version__
from codespace_kernels.bootstrap import RemoteServer, ensure_server, install_ipykernel
from codespace_kernels.broker.state import links_folder, set_aside
from codespace_kernels.errors import (
    CodespaceKernelsError,
    LinkError,
    NoSshServerError,
    RemoteServerError,
    WaitTimeoutError,
)
from codespace_kernels.jupyter import KernelSpec, ServerClient, WebsocketKernel
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.durable import DurableSession
from codespace_kernels.link.journal import JournalError, paths_of
from codespace_kernels.offered_specs import LOGOS, MOST, accepted
from codespace_kernels.progress import Progress, ProgressEvent
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.settings import link_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.connection import Connection
    from codespace_kernels.providers.base import Provider
    from codespace_kernels.remote_kernel import RemoteKernel

log = logging.getLogger(__name__)

CONNECT_SECONDS = 30.0
"""For one try to have another connection; its steps have their own limits, which are more in all."""


class KernelHost(Protocol):
    """The kernels of one workspace."""

    @property
    def description(self) -> str:
        """How they are reached, for a status line."""

    @property
    def promise(self) -> dict[str, str]:
        """What is promised of a connection that breaks: `output` is `kept` or `may be lost`; where lost, `why`."""

    @property
    def link_session(self) -> str:
        """Id of the session that another process can go on with; empty for none."""

    @property
    def round_trip(self) -> float | None:
        """Seconds of a round trip, as measured lately; None where it is not measured."""

    @property
    def heard_at(self) -> float | None:
        """Unix time of the workspace's last sign of life; None where none is asked for."""

    @property
    def offers(self) -> list[str]:
        """Python environments there that lack ipykernel."""

    async def kernelspecs(self) -> dict[str, RemoteKernelSpec]:
        """Give the kernelspecs that are installed there, by name."""

    async def start_kernel(self, name: str, *, kernel_id: str, env: dict[str, str], folder: str = "") -> RemoteKernel:
        """Start a kernel under an id of ours, in a folder of the working folder if it has it, else in that itself."""

    async def kernels(self) -> list[dict[str, Any]]:
        """Give the models of all kernels there, whoever started them, as the REST of a Jupyter server has them.

        Raises:
            CodespaceKernelsError: They cannot be seen now.
        """

    async def install_ipykernel(self, python: str, progress: Progress) -> None:
        """Install ipykernel into a Python of the workspace, so that it has a kernel. Only on a person's request.

        Raises:
            RemoteServerError: It cannot be done; says why.
        """

    async def era(self) -> str:
        """Give a text that another connection gets, too, but only until the workspace is started anew; empty for none.

        Raises:
            CodespaceKernelsError: It cannot be had now.
        """

    def watch_closely(self, needed: Callable[[], bool]) -> None:
        """Have a dead way found within seconds while this is true, and within half a minute otherwise."""

    def probe(self, limit: float) -> None:
        """Find out now whether the way is alive; it is given up without a sign of life within so many seconds."""

    async def disconnected(self) -> str:
        """Wait until the way to the workspace is lost; give the reason."""

    async def reconnect(
        self, provider: Provider, workspace: str, progress: Progress, *, api_down: bool = False
    ) -> None:
        """Try once to have a new way to the same kernels.

        Args:
            provider: Of the workspace.
            workspace: Its name.
            progress: Hears of the steps.
            api_down: See `Provider.connect`.

        Raises:
            WorkspaceConnectionError: Not now; another try may succeed.
            CodespaceKernelsError: The kernels are gone; no try will succeed.
        """

    async def attach_kernel(self, kernel_id: str) -> RemoteKernel:
        """Have a kernel that runs there already.

        Raises:
            KernelNotFoundError: It does not.
        """

    async def close(self) -> None:
        """Let go of everything; kernels go on."""

    async def leave(self) -> None:
        """The same, for another process to go on with it."""


async def open_host(provider: Provider, workspace: str, progress: Progress) -> KernelHost:
    """Reach a running workspace in the best way that it allows.

    Raises:
        CodespaceKernelsError: No way at all; says why.
    """
    try:
        connection = await provider.connect(workspace, progress)
    except NoSshServerError as error:
        return await _open_foreign(provider, workspace, progress, error)
    try:
        return await LinkHost.open(connection, progress)
    except BaseException:
        await connection.close()
        raise


async def _open_foreign(provider: Provider, workspace: str, progress: Progress, cause: NoSshServerError) -> KernelHost:
    """Use the workspace's own Jupyter server; if there is none, the missing SSH server is what the user can mend."""
    progress(ProgressEvent("server", f"{workspace} has no SSH server; asking for its own Jupyter server"))
    try:
        host = ForeignHost(ServerClient(await provider.jupyter_url(workspace, progress)), str(cause))
        await host.kernelspecs()
    except CodespaceKernelsError as error:
        log.info("%s: no Jupyter server either: %s", workspace, error)
        raise cause from None
    return host


def new_session() -> DurableSession:
    """Begin a link's session that outlives this process."""
    return DurableSession(secrets.token_hex(16), links_folder(), software=__version__)


def restored_link(session: str) -> tuple[LinkClient, bool]:
    """Go on with a link that another process had.

    Args:
        session: Id of its session.

    Returns:
        The link, and whether it is a new one because the journal of that session cannot be used; it is set aside then.
    """
    folder = links_folder()
    try:
        return LinkClient(
            session=DurableSession.restored(session, folder, software=__version__), **link_seconds()
        ), False
    except JournalError as error:
        log.warning("a link is not gone on with, but made anew: %s", error)
        for path in paths_of(folder, session):
            if path.exists():
                set_aside(path)
        return LinkClient(session=new_session(), **link_seconds()), True


class LinkHost:
    """Our own server in the workspace, its kernels carried by the link: nothing is lost when the connection breaks."""

    def __init__(self, connection: Connection | None, server: RemoteServer | None, link: LinkClient) -> None:
        self._connection = connection
        self._server = server
        self._link = link

    @classmethod
    def restored(cls, link: LinkClient) -> LinkHost:
        """Go on with a link that another process had; `reconnect` makes the way to it."""
        return cls(None, None, link)

    @property
    def link_session(self) -> str:
        """Id of the link's session."""
        return self._link.session_id

    @classmethod
    async def open(cls, connection: Connection, progress: Progress) -> LinkHost:
        """Find or start the server behind a connection and attach the link."""
        link = LinkClient(session=new_session(), **link_seconds())
        server = None
        try:
            server = await ensure_server(connection, progress, greeting=link.greeting())
            try:
                await link.attach(await server.open_link(connection))
            except (LinkError, WaitTimeoutError) as error:
                # Something in the workspace's shell may have read what was said before the server was there.
                log.info("not attached at once: %s", error)
                await link.attach(await server.open_link(connection))
        except BaseException:
            if server is not None:
                server.close()
            await link.close()
            raise
        return cls(connection, server, link)

    @property
    def description(self) -> str:
        """How the kernels are reached."""
        return f"{self._connection.description}, link" if self._connection is not None else ""

    @property
    def promise(self) -> dict[str, str]:
        """Nothing is lost."""
        return {"output": "kept", "why": ""}

    @property
    def round_trip(self) -> float | None:
        """Seconds of the link's pings."""
        return self._link.rtt

    @property
    def heard_at(self) -> float | None:
        """Unix time of the link's last answer to a ping."""
        return self._link.heard_at

    @property
    def offers(self) -> list[str]:
        """Python environments there that lack ipykernel."""
        return [offer["python"] for offer in self._server.offers] if self._server is not None else []

    async def kernelspecs(self) -> dict[str, RemoteKernelSpec]:
        """Give the kernelspecs that are installed there."""
        return await self._link.kernelspecs()

    async def start_kernel(self, name: str, *, kernel_id: str, env: dict[str, str], folder: str = "") -> RemoteKernel:
        """Start a kernel under an id of ours, in a folder of the working folder."""
        return await self._link.start_kernel(name, kernel_id=kernel_id, env=env, folder=folder)

    async def kernels(self) -> list[dict[str, Any]]:
        """Ask the server, which has those of all computers."""
        return await self._link.kernels()

    async def attach_kernel(self, kernel_id: str) -> RemoteKernel:
        """Have a kernel that runs there already."""
        return await self._link.attach_kernel(kernel_id)

    async def install_ipykernel(self, python: str, progress: Progress) -> None:
        """Install ipykernel into a Python of the workspace."""
        if self._connection is None:
            raise RemoteServerError("There is no connection to the workspace yet. Try again.")
        await install_ipykernel(self._connection, python, progress)

    async def era(self) -> str:
        """Give a digest of the server's token: it is made anew with each server, and no server outlives a stop."""
        token = str((await self._link.server_info()).get("token") or "")
        return hashlib.sha256(token.encode()).hexdigest()[:16] if token else ""

    def watch_closely(self, needed: Callable[[], bool]) -> None:
        """Have the link ask often while this is true."""
        self._link.is_running = needed

    def probe(self, limit: float) -> None:
        """Have the link ask now."""
        self._link.probe(limit)

    async def disconnected(self) -> str:
        """Wait until the link has no stream any more."""
        return await self._link.wait_detached()

    async def reconnect(
        self, provider: Provider, workspace: str, progress: Progress, *, api_down: bool = False
    ) -> None:
        """Attach the same link over a new connection; both ends replay what the other has not seen."""
        if self._connection is not None:
            await self._connection.close()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await provider.connect(workspace, progress, api_down=api_down)
        except TimeoutError:
            raise WaitTimeoutError.after(f"a connection to {workspace}", CONNECT_SECONDS) from None
        try:
            self._server = await ensure_server(connection, progress)
            await self._link.attach(await self._server.open_link(connection))
        except BaseException:
            await connection.close()
            raise
        self._connection = connection

    async def close(self) -> None:
        """Detach the link and close the connection."""
        await self._link.close()
        if self._connection is not None:
            await self._connection.close()

    async def leave(self) -> None:
        """Let go of the link without ending its session: another process goes on with it."""
        await self._link.leave()
        if self._connection is not None:
            await self._connection.close()


class ForeignHost:
    """The workspace's own Jupyter server: standard REST and websockets, and so the weaker promise.

    Output that was on its way when a connection broke may be missing, and the server's rate limit applies.
    """

    def __init__(self, client: ServerClient, why: str = "") -> None:
        self._client = client
        self._why = why

    @property
    def description(self) -> str:
        """How the kernels are reached, and that the promise is weaker."""
        return "the codespace's own Jupyter server (output may be lost when the connection breaks)"

    @property
    def promise(self) -> dict[str, str]:
        """The weaker one."""
        return {"output": "may be lost", "why": self._why}

    @property
    def link_session(self) -> str:
        """There is none."""
        return ""

    @property
    def round_trip(self) -> float | None:
        """Not measured."""
        return None

    @property
    def heard_at(self) -> float | None:
        """Not known."""
        return None

    @property
    def offers(self) -> list[str]:
        """Unknown without a shell."""
        return []

    async def kernelspecs(self) -> dict[str, RemoteKernelSpec]:
        """Give the kernelspecs of that server."""
        offers = (await self._client.kernelspecs())[:MOST]
        return accepted([await self._spec(spec) for spec in offers])

    async def _spec(self, spec: KernelSpec) -> RemoteKernelSpec:
        files = {name: PurePosixPath(path).name for name, path in spec.resources.items()}
        wanted = {name: file for name, file in files.items() if file in LOGOS}
        resources = {file: await self._client.resource(spec, name) for name, file in wanted.items()}
        return RemoteKernelSpec(
            spec.name,
            spec.display_name,
            spec.language,
            str(spec.spec.get("interrupt_mode") or "signal"),
            dict(spec.spec.get("metadata") or {}),
            resources,
        )

    async def start_kernel(self, name: str, *, kernel_id: str, env: dict[str, str], folder: str = "") -> RemoteKernel:
        """Start a kernel; the standard REST takes no variables, so `env` does not reach it."""
        model = await self._client.start_kernel(name, kernel_id=kernel_id, path=folder)
        try:
            return await WebsocketKernel.connect(self._client, model.id)
        except BaseException:
            await self._client.shutdown(model.id)
            raise

    async def kernels(self) -> list[dict[str, Any]]:
        """Ask the server."""
        return [dataclasses.asdict(model) for model in await self._client.kernels()]

    async def attach_kernel(self, kernel_id: str) -> RemoteKernel:
        """Have a kernel that runs there already."""
        return await WebsocketKernel.connect(self._client, kernel_id)

    async def install_ipykernel(self, python: str, progress: Progress) -> None:
        """Refuse: without SSH nothing can be installed."""
        raise RemoteServerError(f"Without an SSH server in the codespace, ipykernel cannot be installed into {python}.")

    async def era(self) -> str:
        """Nothing is known of that server."""
        return ""

    def watch_closely(self, needed: Callable[[], bool]) -> None:
        """Nothing to do: the tunnel and the websockets look after themselves."""

    def probe(self, limit: float) -> None:
        """Nothing to do, as for `watch_closely`."""

    async def disconnected(self) -> str:
        """Never: each kernel's websocket mends itself."""
        await asyncio.Event().wait()
        return ""

    async def reconnect(
        self, provider: Provider, workspace: str, progress: Progress, *, api_down: bool = False
    ) -> None:
        """Nothing to do: each kernel's websocket mends itself."""

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def leave(self) -> None:
        """Close the client: there is no session to be left."""
        await self.close()
