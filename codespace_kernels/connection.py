"""The way to a workspace, as the layers above see it: run, upload, open streams.

`ssh.SshConnection` implements it, over a dev tunnel, over `gh codespace ssh --stdio` or over plain TCP alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Callable


class CompletedCommand(NamedTuple):
    """A command that ended.

    Attributes:
        exit_status: 0 to 255; -1 where a signal or the connection's loss ended it.
        stdout, stderr: What it wrote, whole.
    """

    exit_status: int
    stdout: bytes
    stderr: bytes


class Stream(Protocol):
    """A stream of bytes through the connection. Methods are called on one event loop; none blocks it."""

    async def read(self, max_bytes: int = 262144) -> bytes:
        """Give what is there, at least one byte; `b""` at the end of the stream.

        Raises:
            WorkspaceConnectionError: The connection was lost.
        """

    async def write(self, data: bytes) -> None:
        """Hand data to the connection; returns when it was taken, so that a slow link slows the writer.

        Raises:
            WorkspaceConnectionError: The connection was lost or the stream is closed.
        """

    def close(self) -> None:
        """End the stream in both directions. Closing twice is no error."""


class Session(Stream, Protocol):
    """A shell or command that a person sits before: a stream that has an end of its own."""

    @property
    def carried(self) -> int:
        """Bytes that passed so far, both ways together."""

    @property
    def exit_status(self) -> int:
        """Exit status, once closed: 0 to 255, or -1 where a signal or the connection's loss ended it."""

    def write_eof(self) -> None:
        """Say that nothing more will be written; reading goes on."""

    def resize(self, size: os.terminal_size) -> None:
        """Tell that the window has another size now; without a terminal nothing happens."""

    async def wait_closed(self) -> None:
        """Wait until the other side has closed the session, or the connection was lost."""


class Connection(Protocol):
    """One open way to a workspace; many streams at once."""

    @property
    def description(self) -> str:
        """For a status line: "dev tunnel + SSH as codespace", "gh codespace ssh --stdio", …."""

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the connection is lost or closed; the result is the reason, a sentence for a person."""

    async def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60.0) -> CompletedCommand:
        """Run a shell command to its end.

        Args:
            command: For the remote user's shell.
            stdin: Sent whole, then closed. Secrets belong here, not into the command.
            timeout: Seconds.

        Raises:
            WorkspaceConnectionError: The connection was lost meanwhile.
            WaitTimeoutError: The command did not end in time; it was closed.
        """

    async def upload(self, data: bytes, path: str, *, mode: int = 0o600, timeout: float = 60.0) -> None:
        """Write a file: folders made, replaced atomically, never readable by others in between.

        Args:
            data: The whole content.
            path: Absolute, or relative to the remote home.
            mode: Permission bits.
            timeout: Seconds.

        Raises:
            WorkspaceConnectionError: The connection was lost, or the file cannot be written (says why).
            WaitTimeoutError: Not done in time.
        """

    async def open_command(self, command: str, *, timeout: float = 30.0) -> Stream:
        """Start a long-lived command; the stream is its stdin and stdout, its stderr is logged.

        Raises:
            WorkspaceConnectionError: The connection was lost or the channel was refused.
            WaitTimeoutError: No channel in time.
        """

    async def open_session(
        self,
        command: str,
        *,
        terminal: str = "",
        size: os.terminal_size | None = None,
        on_stderr: Callable[[bytes], None],
        timeout: float = 30.0,
    ) -> Session:
        """Start a command, or the user's shell, for a person.

        Args:
            command: For the remote user's shell; empty for that shell itself.
            terminal: Type of the person's terminal (`TERM`).
            size: Of its window; None where there is no terminal.
            on_stderr: Takes what is written to stderr; with a terminal there is none.
            timeout: Seconds.

        Raises:
            WorkspaceConnectionError: The connection was lost or the channel was refused.
            WaitTimeoutError: No channel in time.
        """

    async def open_tcp(self, host: str, port: int, *, timeout: float = 30.0) -> Stream:
        """Open a TCP connection from the workspace to `host:port` there.

        Raises:
            WorkspaceConnectionError: The connection was lost, or the port refused.
            WaitTimeoutError: No channel in time.
        """

    async def forward(self, host: str, port: int) -> int:
        """Listen on a free port of 127.0.0.1 here and carry its connections to `host:port` there.

        Returns:
            The local port. The listener lives until the connection is closed.

        Raises:
            WorkspaceConnectionError: The connection was lost.
        """

    async def close(self) -> None:
        """Close the connection and everything opened through it. Closing twice is no error."""
