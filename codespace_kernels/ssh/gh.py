"""The second way to a codespace: `gh codespace ssh --stdio` carries the bytes of the SSH session.

gh opens the tunnel and has the codespace's SSH server accept our key, but it does not tell for which user. Its
`--config` output does (measured with gh 2.103), by a connection of its own, so both run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from typing import TYPE_CHECKING

from codespace_kernels import platforms
from codespace_kernels.errors import NoSshServerError, SshError, WaitTimeoutError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.hostkeys import HostKeyPins
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.ssh.keys import load_or_create_user_key
from codespace_kernels.ssh.proxy import ProxyProcess
from codespace_kernels.ssh.threads import run_blocking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codespace_kernels.progress import Progress
    from codespace_kernels.ssh.keys import UserKey

# A stopped codespace is started by gh, which waits for it for five minutes.
_GH_SECONDS = 330.0
_KEY_SECONDS = 15.0
_USER_LINE = re.compile(r"^\s*User\s+([A-Za-z0-9_][-.A-Za-z0-9_]*)\s*$", re.MULTILINE)
_NO_SERVER = "failed to start SSH server"


async def connect_by_gh(
    codespace: str,
    *,
    name: str,
    environment: Mapping[str, str],
    progress: Progress,
    gh: str = "gh",
    user: str = "",
    keepalive: KeepaliveOptions = KeepaliveOptions(),  # noqa: B008  (frozen)
) -> SshConnection:
    """Log in to a codespace through the `gh` program.

    Args:
        codespace: The codespace's name, as gh knows it.
        name: The codespace, uniquely among all accounts and hosts; its host key is pinned under this name.
        environment: The program's whole environment; the token stands there and nowhere else.
        progress: Told of the step.
        gh: The program.
        user: The user in the codespace; empty: gh is asked.
        keepalive: When a silent peer is given up.

    Raises:
        NoSshServerError: The image has no SSH server.
        HostKeyError: The host key is not the pinned one. gh verifies nothing, so a change is never accepted here.
        SshError: gh cannot be started or fails, or the login does.
        WaitTimeoutError: A step took too long.
    """
    key = await run_blocking("the SSH key", _KEY_SECONDS, load_or_create_user_key)
    progress(ProgressEvent("ssh", "Connecting through gh"))
    asking = asyncio.create_task(_give(user) if user else _ask_user(gh, codespace, environment))
    argv = [gh, "codespace", "ssh", "-c", codespace, "--stdio", "--", "-i", str(key.path)]
    try:
        proxy = await ProxyProcess.start(argv, environment)
        try:
            return await _log_in(proxy, await asking, key, name, keepalive)
        except BaseException:
            await proxy.close()
            raise
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _give(user: str) -> str:
    return user


async def _log_in(
    proxy: ProxyProcess, user: str, key: UserKey, name: str, keepalive: KeepaliveOptions
) -> SshConnection:
    try:
        return await SshConnection.connect(
            proxy.wire,
            username=user,
            key=key.private,
            check_host_key=HostKeyPins(name).check,
            description=f"gh codespace ssh --stdio as {user}",
            keepalive=keepalive,
            release=proxy.close,
            timeout=_GH_SECONDS,
        )
    except SshError as error:
        said = await proxy.failure()
        if not said:
            raise
        raise _gh_error(said) from error


async def _ask_user(gh: str, codespace: str, environment: Mapping[str, str]) -> str:
    argv = [gh, "codespace", "ssh", "--config", "-c", codespace]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            **platforms.own_terminal_group(),
        )
    except OSError as error:
        raise SshError(f"{gh} cannot be started: {error.strerror or error}.") from None
    try:
        async with asyncio.timeout(_GH_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        raise WaitTimeoutError.after("gh to tell the codespace's SSH user", _GH_SECONDS) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if found := _USER_LINE.search(output.decode(errors="replace")):
        return found[1]
    raise _gh_error(errors.decode(errors="replace").strip() or "it names no user")


def _gh_error(said: str) -> SshError | NoSshServerError:
    if _NO_SERVER in said:
        return NoSshServerError(
            f'The codespace has no SSH server ({said}). Add the feature "ghcr.io/devcontainers/features/sshd:1" to its '
            "devcontainer.json and rebuild it."
        )
    return SshError(f"gh could not connect to the codespace: {said.rstrip('.')}.")
