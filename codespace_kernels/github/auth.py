"""Where a GitHub token comes from: small classes that are asked in order.

The environment is a mapping that the caller hands in: one broker finds tokens for front ends that were born in other
environments than its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from typing import TYPE_CHECKING

from codespace_kernels import platforms
from codespace_kernels.errors import NoTokenError, SettingsError
from codespace_kernels.github.hosts import host_of, is_github_hosted, is_loopback
from codespace_kernels.github.keyrings import KeyringSource
from codespace_kernels.github.sign_in import SignInSource
from codespace_kernels.github.tokens import Token, TokenSource, is_token_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codespace_kernels.target import Account

_log = logging.getLogger(__name__)


class ExplicitSource:
    """A token that was set by hand, in a setting or an argument."""

    name = "the explicit setting"

    def __init__(self, value: str) -> None:
        self._value = value

    async def find(self) -> Token | None:
        """Give the token that was set."""
        return Token(self._value.strip(), self.name)


class EnvironmentSource:
    """GH_TOKEN, GITHUB_TOKEN for GitHub's own hosts; GH_ENTERPRISE_TOKEN and its pair for every other, as `gh` does.

    Args:
        host: Host name that the token belongs to.
        env: The environment of whoever asks.
    """

    def __init__(self, host: str, env: Mapping[str, str]) -> None:
        names = ("GH_TOKEN", "GITHUB_TOKEN")
        self._names = names if is_github_hosted(host) else ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
        self._env = env

    @property
    def name(self) -> str:
        """The variables of this host."""
        return ", ".join(self._names)

    async def find(self) -> Token | None:
        """Give the first variable that is set and not empty."""
        for name in self._names:
            if value := self._env.get(name, "").strip():
                return Token(value, name)
        return None


class GhSource:
    """`gh auth token`: the token of the signed-in `gh`, which refreshes one that is about to expire.

    Args:
        host: Host name that the token belongs to.
        env: The environment of whoever asks; `gh` is searched and run in it.
        login: Account name, or empty for the active one.
        timeout: Seconds.
    """

    name = "`gh auth token`"

    def __init__(self, host: str, env: Mapping[str, str], login: str = "", *, timeout: float = 10.0) -> None:
        self._args = ("auth", "token", "-h", host, *(("-u", login) if login else ()))
        self._env = gh_environment(env)
        self._timeout = timeout

    async def find(self) -> Token | None:
        """Run `gh`; it may be absent, signed out, or hang."""
        program = find_gh(self._env)
        if program is None:
            return None
        try:
            value = await _output_of(program, self._args, self._env, self._timeout)
        except (OSError, NotImplementedError) as error:
            _log.info("%s cannot be run: %s", program, error)
            return None
        return Token(value, self.name) if is_token_text(value) else None


class EmulatorSource:
    """The emulator on this machine, which keeps the token of its account in its state."""

    name = "the emulator's state"

    def __init__(self, api_url: str) -> None:
        self._api_url = api_url

    async def find(self) -> Token | None:
        """Give the token of the emulator that listens at the address; None when there is none."""
        from codespace_kernels.emulator.state import emulator_token

        try:
            value = emulator_token(self._api_url)
        except (OSError, SettingsError) as error:
            _log.info("The emulator's state cannot be read: %s", error)
            return None
        return Token(value, self.name) if value else None


class TokenChain:
    """Token sources in the order in which they are asked; the first token wins.

    Args:
        host: Host name, for the log and the error text.
        sources: In order.
        advice: What to do where none has a token, a sentence; by default how to sign in to the host.
    """

    def __init__(self, host: str, sources: Sequence[TokenSource], advice: str = "") -> None:
        variable = "GH_TOKEN" if is_github_hosted(host) else "GH_ENTERPRISE_TOKEN"
        self._host = host
        self._sources = tuple(sources)
        self._advice = advice or (
            f"Sign in with `codespace-kernels login` or `gh auth login -h {host} -s codespace`, or set {variable}."
        )

    async def find(self) -> Token:
        """Give the first token.

        Raises:
            NoTokenError: No source has one; names all that were asked.
            BadTokenError: A person set something that cannot be a token.
        """
        for source in self._sources:
            if token := await source.find():
                _log.debug("Token for %s from %s", self._host, token.source)
                return token
        tried = ", ".join(source.name for source in self._sources)
        raise NoTokenError(f"No GitHub token for {self._host} (tried {tried}). {self._advice}")


def token_sources(account: Account, env: Mapping[str, str], token: str | None = None) -> TokenChain:
    """Give the sources for an account: explicit, environment, our own sign-in, keyring, `gh`.

    For an address on this machine the emulator comes before the environment: a GH_ENTERPRISE_TOKEN there is most likely
    meant for a real server, and must not be shown to whatever listens on a local port.

    Args:
        account: Whose token.
        env: The environment of whoever asks.
        token: The explicit setting, None or empty where there is none.
    """
    host, advice = host_of(account.api_url), ""
    sources: list[TokenSource] = [ExplicitSource(token)] if token else []
    own = [] if account.login else [SignInSource(account.api_url)]
    if is_loopback(account.api_url):
        sources += [*own, EmulatorSource(account.api_url)]
        own = []
        advice = (
            f"No emulator of yours runs at {account.api_url}: start one with `codespace-kernels emulator start`, "
            "or set GH_ENTERPRISE_TOKEN."
        )
    sources += [EnvironmentSource(host, env), *own, KeyringSource(host, account.login)]
    sources.append(GhSource(host, env, account.login))
    return TokenChain(host, sources, advice)


def gh_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Give the environment to run `gh` in: the asker's, over this process's without its own idea of an account."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GH_", "GITHUB_", "XDG_CONFIG_"))}
    return {**own, **env, "GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1"}


def gh_account(account: Account, token: Token) -> dict[str, str]:
    """Give the variables that make `gh codespace` use an account; it takes the API's address from GITHUB_API_URL."""
    host = host_of(account.api_url)
    variable = "GH_TOKEN" if is_github_hosted(host) else "GH_ENTERPRISE_TOKEN"
    # A name without a port is no host that gh could ask; on this machine the address alone does.
    named_host = {} if is_loopback(account.api_url) else {"GH_HOST": host}
    return {"GITHUB_API_URL": account.api_url, variable: token.value, **named_host}


def find_gh(env: Mapping[str, str]) -> str | None:
    """Find the `gh` program in an environment; None where it is not installed."""
    return shutil.which("gh", path=env.get("PATH"))


async def _output_of(program: str, args: Sequence[str], env: Mapping[str, str], timeout: float) -> str:
    """Run a program to its end; gives what it wrote to stdout, empty when it failed or took too long."""
    devnull, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    apart = platforms.own_terminal_group()
    process = await asyncio.create_subprocess_exec(
        program, *args, env=env, stdin=devnull, stdout=pipe, stderr=devnull, **apart
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except TimeoutError:
        _log.info("%s %s did not end within %g s", program, args[0], timeout)
        return ""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return output.decode(errors="replace").strip() if process.returncode == 0 else ""
