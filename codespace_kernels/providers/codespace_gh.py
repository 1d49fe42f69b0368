"""The second way into a codespace: `gh codespace ssh --stdio` carries the SSH session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from typing import TYPE_CHECKING

from codespace_kernels.errors import NoSshServerError, SshError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.github.auth import find_gh, gh_environment
from codespace_kernels.github.hosts import is_github_hosted, is_loopback
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.hostkeys import HostKeyPins
from codespace_kernels.ssh.keys import load_or_create_user_key
from codespace_kernels.ssh.stream import splice
from codespace_kernels.ssh.threads import run_blocking
from codespace_kernels.ssh.wire import SocketWire

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping

    from codespace_kernels.github.client import GitHubClient
    from codespace_kernels.progress import Progress

_log = logging.getLogger(__name__)

_KEY_SECONDS = 15.0
_GH_SECONDS = 60.0
_END_SECONDS = 5.0
_STDERR_LINES = 5
_USER_LINE = re.compile(r"^\s*User\s+([A-Za-z0-9_][-.A-Za-z0-9_]*)\s*$", re.MULTILINE)


class GhCli:
    """The `gh` program, run for one account.

    Args:
        client: Its token is handed to `gh` in the environment.
        env: The environment of whoever asks; `gh` is searched in its PATH.
    """

    def __init__(self, client: GitHubClient, env: Mapping[str, str]) -> None:
        self._client = client
        self._env = gh_environment(env)

    @property
    def program(self) -> str | None:
        """Path of the program; None where it is not installed."""
        return find_gh(self._env)

    async def connect(self, name: str, pin: str, progress: Progress) -> SshConnection:
        """Connect to a running codespace.

        Args:
            name: The codespace.
            pin: Name under which its host key is pinned. `gh` verifies no key of the tunnel: a changed one is refused.
            progress: Told of each step.

        Raises:
            NoSshServerError: The image has no SSH server.
            HostKeyError: The codespace's host key is not the pinned one.
            SshError: `gh` is not installed, failed, or SSH through it failed.
            WaitTimeoutError: A step took too long.
        """
        progress(ProgressEvent("tunnel", "Opening a tunnel with gh"))
        key = await run_blocking("the SSH key", _KEY_SECONDS, load_or_create_user_key)
        user = await self._user(name)
        progress(ProgressEvent("ssh", f"Logging in as {user}"))
        proxy = await self._start("ssh", "-c", name, "--stdio", "--", "-i", str(key.path))
        process = GhProcess(proxy)
        try:
            return await SshConnection.connect(
                await process.wire(),
                username=user,
                key=key.private,
                check_host_key=HostKeyPins(pin).check,
                description=f"gh codespace ssh --stdio as {user}",
                release=process.close,
                timeout=_GH_SECONDS,
            )
        except SshError as error:
            await process.close()
            raise _error(name, process.stderr_tail or str(error)) from error
        except BaseException:
            await process.close()
            raise

    async def _user(self, name: str) -> str:
        """Ask for the user to log in as: `--stdio` does not tell, the configuration that `gh` prints does."""
        process = GhProcess(await self._start("ssh", "-c", name, "--config"))
        try:
            async with asyncio.timeout(_GH_SECONDS):
                output = await process.read_all()
        except TimeoutError:
            raise WaitTimeoutError.after(f"gh to connect to codespace {name}", _GH_SECONDS) from None
        finally:
            await process.close()
        found = _USER_LINE.search(output.decode(errors="replace"))
        if found is None:
            raise _error(name, process.stderr_tail or "it does not tell the SSH user")
        return found[1]

    async def _start(self, *args: str) -> Process:
        program = self.program
        if program is None:
            raise SshError("The program gh is not installed, or not in PATH. Install it, or use transport `tunnel`.")
        pipe = asyncio.subprocess.PIPE
        env = await self._environment()
        try:
            return await asyncio.create_subprocess_exec(
                program, "codespace", *args, env=env, stdin=pipe, stdout=pipe, stderr=pipe
            )
        except (OSError, NotImplementedError) as error:
            raise SshError(f"{program} cannot be run: {error}.") from error

    async def _environment(self) -> dict[str, str]:
        """Give the variables that make `gh` use this account: it takes the API's address from GITHUB_API_URL."""
        api_url, host = self._client.account.api_url, self._client.host
        token = (await self._client.token()).value
        variable = "GH_TOKEN" if is_github_hosted(host) else "GH_ENTERPRISE_TOKEN"
        named_host = {} if is_loopback(api_url) else {"GH_HOST": host}
        return {**self._env, "GITHUB_API_URL": api_url, variable: token, **named_host}


class GhProcess:
    """A running `gh`, its stdin and stdout a `Stream`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stderr: list[str] = []
        self._tasks = {asyncio.create_task(self._collect_stderr())}

    @property
    def stderr_tail(self) -> str:
        """The last lines it wrote to stderr, in one."""
        return "; ".join(self._stderr[-_STDERR_LINES:])

    async def wire(self) -> SocketWire:
        """Give its stdin and stdout as a wire for an SSH session."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        self._tasks.add(asyncio.create_task(splice(reader, writer, _ProcessStream(self._process), half_close=False)))
        return SocketWire(ours)

    async def read_all(self) -> bytes:
        """Give all that it writes to stdout, once it has ended."""
        assert self._process.stdout is not None
        output = await self._process.stdout.read()
        await self._process.wait()
        return output

    async def close(self) -> None:
        """End it, and everything that serves it. Closing twice is no error."""
        if self._process.returncode is None:
            await self._end()
        # What it said last is read before the pipes go.
        _, pending = await asyncio.wait(self._tasks, timeout=_END_SECONDS)
        for task in pending:
            task.cancel()

    async def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _collect_stderr(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="replace").strip()
            _log.debug("gh: %s", text)
            self._stderr = [*self._stderr, text][-_STDERR_LINES:]


class _ProcessStream:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def read(self, max_bytes: int = 262144) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(max_bytes)

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except OSError:
            raise WorkspaceConnectionError("gh has ended.") from None

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


def _error(name: str, reason: str) -> WorkspaceConnectionError:
    text = f"gh cannot connect to codespace {name}: {reason.rstrip('.')}."
    # The only trace of the refusal that gh lets through (measured with 2.103).
    return NoSshServerError(text) if "failed to start SSH server" in reason else SshError(text)
