"""The way to a workspace, as the layers above see it: run, upload, open streams.

`ssh.SshConnection` implements it, over a dev tunnel, over `gh codespace ssh --stdio` or over plain TCP alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import asyncio


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
