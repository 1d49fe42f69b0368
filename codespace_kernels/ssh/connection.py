"""SSH to a workspace, over whatever byte stream leads there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import paramiko

from codespace_kernels.connection import CompletedCommand
from codespace_kernels.errors import SshError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.ssh.forward import Forwarder
from codespace_kernels.ssh.keepalive import KeepaliveOptions, watch
from codespace_kernels.ssh.login import log_in
from codespace_kernels.ssh.session import ChannelRefusedError, Opening, SshSession
from codespace_kernels.ssh.stream import ChannelStream
from codespace_kernels.ssh.threads import call_in_loop, run_blocking
from codespace_kernels.ssh.upload import upload_command

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable

    from codespace_kernels.ssh.channel import ClientChannel
    from codespace_kernels.ssh.wire import Wire

logger = logging.getLogger(__name__)

_END_SECONDS = 3.0
_CHANNEL_SECONDS = 30.0

MOST_OUTPUT = 16 * 1024 * 1024
"""Bytes that `SshConnection.run` takes from a command: what is longer has a stream of its own."""


class SshConnection:
    """An open SSH session to a workspace; implements `codespace_kernels.connection.Connection`.

    Made by `SshConnection.connect`.
    """

    def __init__(
        self,
        session: SshSession,
        first: Opening | None,
        *,
        description: str,
        keepalive: KeepaliveOptions,
        release: Callable[[], Awaitable[None]] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._session = session
        self._first = first
        self._description = description
        self._release = release
        self._closed: asyncio.Future[str] = loop.create_future()
        self._session_ended = asyncio.Event()
        self._forwarder = Forwarder(half_close=True)
        self._closing: asyncio.Task[None] | None = None
        self._warm_up: asyncio.Task[CompletedCommand] | None = None
        self._had_command = False
        self._watcher = asyncio.create_task(self._watch(keepalive))
        session.call_at_end(lambda: call_in_loop(loop, self._on_session_end))
        session.read_on_loop()

    @classmethod
    async def connect(
        cls,
        wire: Wire,
        *,
        username: str,
        key: paramiko.PKey,
        check_host_key: Callable[[paramiko.PKey], None],
        description: str,
        keepalive: KeepaliveOptions = KeepaliveOptions(),  # noqa: B008  (frozen)
        release: Callable[[], Awaitable[None]] | None = None,
        timeout: float = 30.0,
    ) -> SshConnection:
        """Negotiate a session, check the host key, and authenticate.

        Args:
            wire: What leads to the SSH server; owned from now on, also when this fails.
            username: Of the workspace's user.
            key: Private key that the server accepts.
            check_host_key: Raises `HostKeyError` for a key that is not to be trusted; called in another thread,
                before anything secret is sent.
            description: For a status line.
            keepalive: When a silent peer is given up.
            release: Called once, after everything else is closed: closes what the wire runs over.
            timeout: Seconds for the whole.

        Raises:
            SshError: No SSH server answered, or it does not accept the key.
            HostKeyError: From `check_host_key`.
            WaitTimeoutError: Not done in time.
        """
        session = await cls.negotiate(wire, timeout)
        return await cls.log_in(
            session,
            username=username,
            key=key,
            check_host_key=check_host_key,
            description=description,
            keepalive=keepalive,
            release=release,
            timeout=timeout,
        )

    @staticmethod
    async def negotiate(wire: Wire, timeout: float = 30.0) -> SshSession:
        """Exchange keys, the first half of `connect`: nothing is sent that tells who we are, and nothing is trusted.

        Raises:
            SshError: No SSH server answered.
            WaitTimeoutError: Not done in time.
        """
        session = SshSession(wire)
        try:
            await run_blocking("the SSH handshake", timeout, _exchange_keys, session, timeout)
        except BaseException:
            session.close()
            wire.close()
            raise
        return session

    @classmethod
    async def log_in(
        cls,
        session: SshSession,
        *,
        username: str,
        key: paramiko.PKey,
        check_host_key: Callable[[paramiko.PKey], None],
        description: str,
        keepalive: KeepaliveOptions = KeepaliveOptions(),  # noqa: B008  (frozen)
        release: Callable[[], Awaitable[None]] | None = None,
        timeout: float = 30.0,
    ) -> SshConnection:
        """Check the host key and authenticate, the second half of `connect`, whose other arguments and errors it has.

        `session` is from `negotiate`; it is owned from now on, also when this fails.
        """
        loop = asyncio.get_running_loop()
        try:
            first = await run_blocking(
                "the SSH login", timeout, _authenticate, session, username, key, check_host_key, timeout, loop
            )
        except BaseException:
            session.close()
            raise
        logger.info("connected: %s, %s", description, session.remote_version)
        return cls(session, first, description=description, keepalive=keepalive, release=release)

    @property
    def description(self) -> str:
        """What the connection runs over; see `Connection.description`."""
        return self._description

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the connection has ended; see `Connection.closed`. Wait for it with `asyncio.wait` or shielded."""
        return self._closed

    # Commands.

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60.0) -> CompletedCommand:
        """Run a shell command to its end; see `Connection.run`. Of its stderr, the first `MOST_OUTPUT` are kept.

        Raises:
            WorkspaceConnectionError: It writes more than `MOST_OUTPUT`, too.
        """
        stdout, stderr = _Output(), _Output()
        try:
            async with asyncio.timeout(timeout):
                stream = await self._start(command, stderr.add, _CHANNEL_SECONDS)
                with contextlib.closing(stream):
                    await asyncio.gather(_feed(stream, stdin), _collect(stream, stdout))
                    return CompletedCommand(stream.exit_status, bytes(stdout.data), bytes(stderr.data))
        except TimeoutError:
            raise WaitTimeoutError.after("a command in the workspace", timeout) from None

    async def upload(self, data: bytes, path: str, *, mode: int = 0o600, timeout: float = 60.0) -> None:
        """Write a file; see `Connection.upload`."""
        result = await self.run(upload_command(path, len(data), mode), stdin=data, timeout=timeout)
        if result.exit_status != 0:
            reason = result.stderr.decode(errors="replace").strip() or f"exit status {result.exit_status}"
            raise WorkspaceConnectionError(f"The file {path} could not be written in the workspace: {reason}")

    async def open_command(self, command: str, *, timeout: float = 30.0) -> ChannelStream:
        """Start a long-lived command; see `Connection.open_command`."""
        return await self._start(command, _log_stderr, timeout)

    async def open_session(
        self,
        command: str,
        *,
        terminal: str = "",
        size: os.terminal_size | None = None,
        on_stderr: Callable[[bytes], None],
        timeout: float = 30.0,
    ) -> ChannelStream:
        """Start a command or shell for a person; see `Connection.open_session`."""
        channel = await self._session_channel(timeout)
        self._had_command = True
        stream = ChannelStream(channel, on_stderr)
        if size is not None:
            channel.request_terminal(terminal, size.columns, size.lines)
        if command:
            channel.request_exec(command)
        else:
            channel.request_shell()
        return stream

    async def open_subsystem(self, name: str, *, timeout: float = _CHANNEL_SECONDS) -> ChannelStream:
        """Start a subsystem of the server, such as `sftp`; where it has none, the first read raises.

        Raises:
            WorkspaceConnectionError: The connection was lost or the channel was refused.
            WaitTimeoutError: No channel in time.
        """
        channel = await self._session_channel(timeout)
        stream = ChannelStream(channel, _log_stderr)
        channel.request_subsystem(name)
        return stream

    async def _session_channel(self, timeout: float) -> ClientChannel:
        """Give the channel that was asked for along with the login, or a new one."""
        what = "an SSH session channel"
        first, self._first = self._first, None
        if first is not None:
            with contextlib.suppress(ChannelRefusedError):
                return await self._session.opened(first, what=what, timeout=timeout)
        return await self._session.open("session", what=what, timeout=timeout)

    async def _start(self, command: str, on_stderr: Callable[[bytes], None], timeout: float) -> ChannelStream:
        channel = await self._session_channel(timeout)
        self._had_command = True
        stream = ChannelStream(channel, on_stderr)
        channel.request_exec(command)
        return stream

    # Ports.

    async def open_tcp(self, host: str, port: int, *, timeout: float = 30.0) -> ChannelStream:
        """Connect to a port in the workspace; see `Connection.open_tcp`."""
        self._remove_delay()
        channel = await self._session.open(
            "direct-tcpip", host, port, "127.0.0.1", 0, what=f"a connection to {host}:{port}", timeout=timeout
        )
        return ChannelStream(channel)

    async def forward(self, host: str, port: int) -> int:
        """Listen here for a port there; see `Connection.forward`."""
        if self._closed.done():
            raise self._session.lost_error()
        return await self._forwarder.listen(lambda: self.open_tcp(host, port))

    def _remove_delay(self) -> None:
        """Run a command once: OpenSSH sets TCP_NODELAY only for a session that runs one.

        Without it a forwarded port answers back-to-back requests in 44 ms instead of 4 (measured).
        """
        if not self._had_command:
            self._had_command = True
            self._warm_up = asyncio.create_task(self.run(":"))
            self._warm_up.add_done_callback(_drop_result)

    # The end.

    async def _watch(self, options: KeepaliveOptions) -> None:
        self._end(await watch(self._session, options))

    def _on_session_end(self) -> None:
        self._session_ended.set()
        self._end(self._session.end_reason())

    def _end(self, reason: str) -> None:
        """Tell why the connection ended, and release everything. The first reason counts."""
        if not self._closed.done():
            logger.info("connection ended (%s): %s", self._description, reason)
            self._closed.set_result(f"The SSH connection ended: {reason}.")
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(reason))

    async def _close(self, reason: str) -> None:
        self._forwarder.close()
        self._watcher.cancel()
        if self._warm_up is not None:
            self._warm_up.cancel()
        self._session.end(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._session_ended.wait()
        if self._release is not None:
            await self._release()

    async def close(self) -> None:
        """Close everything; see `Connection.close`."""
        self._end("it was closed here")
        assert self._closing is not None
        await asyncio.shield(self._closing)


def _exchange_keys(session: SshSession, timeout: float) -> None:
    """Bring a session up to where the host key is known; blocks."""
    session.banner_timeout = session.handshake_timeout = timeout
    try:
        session.start_client(timeout=timeout)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _failed(session, error) from error


def _authenticate(
    session: SshSession,
    username: str,
    key: paramiko.PKey,
    check_host_key: Callable[[paramiko.PKey], None],
    timeout: float,
    loop: asyncio.AbstractEventLoop,
) -> Opening:
    """Bring a session up to where channels can be opened, and ask for the first one; blocks."""
    asked: list[Opening] = []

    def ask() -> None:
        # Of a session that ended the login tells why.
        with contextlib.suppress(WorkspaceConnectionError):
            asked.append(session.ask(loop, "session"))

    try:
        check_host_key(session.get_remote_server_key())
        log_in(session, username, key, timeout, behind=ask)
    except paramiko.AuthenticationException as error:
        raise SshError(
            f"The SSH server in the workspace does not accept our key for user {username} ({error})."
        ) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _failed(session, error) from error
    if not asked:
        raise session.lost_error()
    return asked[0]


def _failed(session: SshSession, error: Exception) -> SshError:
    return SshError(f"The SSH handshake with the workspace failed: {str(error) or session.end_reason()}.")


async def _feed(stream: ChannelStream, data: bytes) -> None:
    # A command that ends without reading its stdin is no failure.
    with contextlib.suppress(WorkspaceConnectionError):
        await stream.write(data)
        stream.write_eof()


class _Output:
    """What a command wrote, as far as it is kept."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_whole = True

    def add(self, data: bytes) -> None:
        self.is_whole = self.is_whole and len(self.data) + len(data) <= MOST_OUTPUT
        if self.is_whole:
            self.data += data


async def _collect(stream: ChannelStream, output: _Output) -> None:
    while data := await stream.read():
        output.add(data)
        if not output.is_whole:
            raise WorkspaceConnectionError(f"A command in the workspace writes more than {MOST_OUTPUT >> 20} MiB.")
    await stream.wait_closed()


def _log_stderr(data: bytes) -> None:
    for line in data.decode(errors="replace").splitlines():
        logger.info("workspace: %s", line)


def _drop_result(task: asyncio.Task[CompletedCommand]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("no session command: %s", error)
