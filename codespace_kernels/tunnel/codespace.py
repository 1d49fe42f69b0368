"""A codespace, reached in pure Python: dev tunnel, its services, and SSH inside it, over one websocket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from codespace_kernels.errors import SshError, WaitTimeoutError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.guess import FirstChoices
from codespace_kernels.ssh.hostkeys import HostKeyPins
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.ssh.keys import load_or_create_user_key
from codespace_kernels.ssh.session import SshSession, drop
from codespace_kernels.ssh.threads import call_in_loop, run_blocking
from codespace_kernels.tunnel.preparation import Preparation
from codespace_kernels.tunnel.tunnel import Tunnel, open_tunnel
from codespace_kernels.tunnel.ways import KnownWay, save_way

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import paramiko

    from codespace_kernels.connection import CompletedCommand, Session, Stream
    from codespace_kernels.progress import Progress
    from codespace_kernels.ssh.keys import UserKey
    from codespace_kernels.tunnel.properties import TunnelProperties
    from codespace_kernels.tunnel.services import SshServer

logger = logging.getLogger(__name__)

_KEY_SECONDS = 15.0
_SSH_SECONDS = 30.0


class CodespaceConnection:
    """A `Connection` to a codespace, and the tunnel that carries it. Made by `connect_codespace`."""

    def __init__(self, tunnel: Tunnel, ssh: SshConnection) -> None:
        self._tunnel = tunnel
        self._ssh = ssh

    @property
    def tunnel(self) -> Tunnel:
        """The tunnel: `tunnel.services.notify_activity`, `tunnel.forward`, …."""
        return self._tunnel

    @property
    def description(self) -> str:
        """What the connection runs over; see `Connection.description`."""
        return self._ssh.description

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the connection has ended; see `Connection.closed`."""
        return self._ssh.closed

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60.0) -> CompletedCommand:
        """Run a shell command to its end; see `Connection.run`."""
        return await self._ssh.run(command, stdin=stdin, timeout=timeout)

    async def upload(self, data: bytes, path: str, *, mode: int = 0o600, timeout: float = 60.0) -> None:
        """Write a file; see `Connection.upload`."""
        await self._ssh.upload(data, path, mode=mode, timeout=timeout)

    async def open_command(self, command: str, *, timeout: float = 30.0) -> Stream:
        """Start a long-lived command; see `Connection.open_command`."""
        return await self._ssh.open_command(command, timeout=timeout)

    async def open_session(
        self,
        command: str,
        *,
        terminal: str = "",
        size: os.terminal_size | None = None,
        on_stderr: Callable[[bytes], None],
        timeout: float = 30.0,
    ) -> Session:
        """Start a command or shell for a person; see `Connection.open_session`."""
        return await self._ssh.open_session(command, terminal=terminal, size=size, on_stderr=on_stderr, timeout=timeout)

    async def open_tcp(self, host: str, port: int, *, timeout: float = 30.0) -> Stream:
        """Connect to a port in the codespace; see `Connection.open_tcp`."""
        return await self._ssh.open_tcp(host, port, timeout=timeout)

    async def forward(self, host: str, port: int) -> int:
        """Listen here for a port there; see `Connection.forward`."""
        return await self._ssh.forward(host, port)

    async def close(self) -> None:
        """Close the SSH session, then the tunnel. Closing twice is no error."""
        await self._ssh.close()
        await self._tunnel.close()


async def connect_codespace(
    properties: TunnelProperties,
    *,
    name: str,
    progress: Progress,
    keepalive: KeepaliveOptions = KeepaliveOptions(),  # noqa: B008  (frozen)
    preparation: Preparation | None = None,
) -> CodespaceConnection:
    """Open the tunnel of a running codespace, have its SSH server started, and log in with the user's own key.

    Args:
        properties: Fetched for this connection: its tokens expire.
        name: The codespace, uniquely among all accounts and hosts; its host key is pinned under this name.
        progress: Told of each step.
        keepalive: When a silent peer is given up.
        preparation: For the codespace of this name, begun beforehand; closed in any case.

    Raises:
        TunnelError: The tunnel cannot be opened, or its services fail.
        NoSshServerError: The image has no SSH server.
        HostKeyError: The tunnel's host key is not the published one, or the codespace's not the pinned one.
        SshError: SSH failed, or the user's key cannot be used.
        WaitTimeoutError: A step took too long.
    """
    preparation = preparation or Preparation(name)
    try:
        key = await run_blocking("the SSH key", _KEY_SECONDS, load_or_create_user_key)
        known = await preparation.way()
    except BaseException:
        preparation.close()
        raise
    tunnel = await open_tunnel(properties, progress, keepalive=keepalive, preparation=preparation)
    try:
        loop = asyncio.get_running_loop()
        pins = HostKeyPins(
            name,
            verified_tunnel=tunnel.verified,
            notify=lambda notice: call_in_loop(loop, progress, ProgressEvent("ssh", notice)),
        )
        ssh, server = await _log_in(tunnel, key, pins.check, progress, keepalive, known.ssh_port if known else 0)
    except BaseException:
        await tunnel.close()
        raise
    await _remember(name, known, properties, tunnel, server)
    return CodespaceConnection(tunnel, ssh)


async def log_in(
    tunnel: Tunnel,
    key: UserKey,
    check_host_key: Callable[[paramiko.PKey], None],
    progress: Progress,
    *,
    keepalive: KeepaliveOptions = KeepaliveOptions(),  # noqa: B008  (frozen)
) -> SshConnection:
    """Have the SSH server of a codespace started and log in, through a tunnel that is open.

    Args:
        tunnel: Closed with the session.
        key: The user's own; the codespace accepts it from now on.
        check_host_key: See `SshConnection.connect`.
        progress: Told of each step.
        keepalive: When a silent peer is given up.

    Raises:
        NoSshServerError, HostKeyError, SshError, WaitTimeoutError: As `connect_codespace`.
    """
    return (await _log_in(tunnel, key, check_host_key, progress, keepalive, 0))[0]


async def _log_in(
    tunnel: Tunnel,
    key: UserKey,
    check_host_key: Callable[[paramiko.PKey], None],
    progress: Progress,
    keepalive: KeepaliveOptions,
    likely_port: int,
) -> tuple[SshConnection, SshServer]:
    progress(ProgressEvent("ssh", "Starting the codespace's SSH server"))
    # Keys are exchanged with what listens at the port of the last time, while the codespace is asked which one it is.
    early = asyncio.create_task(_negotiate(tunnel, likely_port)) if tunnel.has_port(likely_port) else None

    async def enter(session: SshSession) -> SshConnection:
        return await SshConnection.log_in(
            session,
            username=server.user,
            key=key.private,
            check_host_key=check_host_key,
            description=f"dev tunnel + SSH as {server.user}",
            keepalive=keepalive,
            release=tunnel.close,
            timeout=_SSH_SECONDS,
        )

    try:
        server = await _start_ssh_server(tunnel, key)
        progress(ProgressEvent("ssh", f"Logging in as {server.user}"))
        if early is not None and server.port == likely_port:
            try:
                return await enter(await asyncio.shield(early)), server
            except (SshError, WaitTimeoutError) as error:
                # The server had not been started yet, or was started anew.
                logger.info("not by what listened before it was started: %s", error)
    except BaseException:
        drop(early)
        raise
    drop(early)
    return await enter(await _negotiate(tunnel, server.port)), server


async def _negotiate(tunnel: Tunnel, port: int) -> SshSession:
    return await SshConnection.negotiate(await tunnel.open_port(port), _SSH_SECONDS)


async def _remember(
    name: str, known: KnownWay | None, properties: TunnelProperties, tunnel: Tunnel, server: SshServer
) -> None:
    """Keep what was found on the way for the next connection."""
    choices = tunnel.first_choices or FirstChoices("", "")
    way = KnownWay(
        properties.service_uri, properties.tunnel_id, properties.cluster_id, tunnel.relay_uri, server.port, *choices
    )
    if way != known:
        with contextlib.suppress(WaitTimeoutError):
            await run_blocking("the way to the codespace to be kept", _KEY_SECONDS, save_way, name, way)


async def _start_ssh_server(tunnel: Tunnel, key: UserKey) -> SshServer:
    """Say that somebody is here and start the server, both in one round trip."""
    notified, server = await asyncio.gather(
        tunnel.services.notify_activity(["connected"]),
        tunnel.services.start_ssh_server(key.public_line),
        return_exceptions=True,
    )
    if isinstance(notified, asyncio.CancelledError):
        raise notified
    if isinstance(server, BaseException):
        raise server
    return server
