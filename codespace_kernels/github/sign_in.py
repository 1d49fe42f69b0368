"""Tokens that this program signed in for: where they are kept, and how they are kept fresh."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import filelock

from codespace_kernels.errors import AuthError, CodespaceKernelsError, SettingsError
from codespace_kernels.github.device_flow import DeviceFlow, IssuedToken
from codespace_kernels.github.hosts import host_of, is_loopback
from codespace_kernels.github.keyrings import SERVICE_PREFIX, asked, in_daemon_thread
from codespace_kernels.github.tokens import Token
from codespace_kernels.settings import data_dir
from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 600.0
"""A token that expires sooner is replaced first, as `gh` does it."""

_KEYRING_SECONDS = 10.0
"""A locked keyring may put up a dialog."""

_USER = "signed in"
"""Whom the keyring is told that the token belongs to; some keyrings take no empty name."""

_LOCK_SECONDS = 60.0


class SignIns:
    """Keeps one token a host, in the system keyring or, where a person asks for that, in a file for their eyes only.

    Args:
        api_url: Of the host's REST API.
    """

    def __init__(self, api_url: str) -> None:
        # On this machine each port may be another emulator, with tokens of its own.
        self.host = urlsplit(api_url).netloc if is_loopback(api_url) else host_of(api_url)
        self._api_url = api_url

    @property
    def file(self) -> Path:
        """Where a token is kept that is not in the keyring."""
        return data_dir() / "tokens" / f"{self.host.replace(':', '_')}.json"

    async def save(self, token: IssuedToken, *, in_file: bool) -> None:
        """Keep a token in place of the one before.

        Raises:
            SettingsError: The keyring or the file cannot be used.
        """
        text = json.dumps(token.to_json())
        if in_file:
            await asyncio.to_thread(self._write_file, text)
            return
        try:
            async with asyncio.timeout(_KEYRING_SECONDS):
                await in_daemon_thread(lambda: _keyring_set(self.host, text))
        except Exception as error:  # Backends raise whatever their system raises.
            raise SettingsError(
                f"The system keyring cannot keep the token ({type(error).__name__}). Unlock or install one, or use "
                f"`codespace-kernels login --insecure-storage` to keep it in {self.file}, which only you can read."
            ) from None
        self.file.unlink(missing_ok=True)

    def _write_file(self, text: str) -> None:
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.file, text.encode())
        except OSError as error:
            raise SettingsError(f"The token cannot be kept in {self.file}: {error.strerror}.") from None

    async def load(self) -> tuple[IssuedToken, bool] | None:
        """Give the token that is kept, and whether it is in the file; None where there is none of ours."""
        text = await asyncio.to_thread(self._read_file)
        in_file = bool(text)
        if not text:
            text = await asked(lambda: _keyring_get(self.host), _KEYRING_SECONDS) or ""
        try:
            return (IssuedToken.from_json(json.loads(text)), in_file) if text.startswith("{") else None
        except (ValueError, KeyError, TypeError):
            _log.warning("What is kept for %s is no sign-in of this program", self.host)
            return None

    def _read_file(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except OSError:
            return ""

    async def forget(self) -> bool:
        """Forget the token; tell whether there was one.

        Raises:
            SettingsError: The keyring does not let go of it.
        """
        found = await self.load()
        if found is None:
            return False
        if found[1]:
            await asyncio.to_thread(self.file.unlink, missing_ok=True)
            return True
        try:
            async with asyncio.timeout(_KEYRING_SECONDS):
                await in_daemon_thread(lambda: _keyring_delete(self.host))
        except Exception as error:
            raise SettingsError(
                f"The system keyring does not let go of the token ({type(error).__name__}). Unlock it and try again."
            ) from None
        return True

    async def fresh(self) -> IssuedToken | None:
        """Give a token that will last for a while; one that is about to expire is replaced first, by one process only.

        Raises:
            AuthError: It cannot be replaced, and is of no use any more.
        """
        found = await self.load()
        if found is None or not _expires_soon(found[0]):
            return found[0] if found else None
        folder = data_dir()
        lock = filelock.AsyncFileLock(folder / f"refresh-{self.file.stem}.lock", timeout=_LOCK_SECONDS)
        async with lock:
            found = await self.load()
            if found is None or not _expires_soon(found[0]):
                return found[0] if found else None
            return await self._refreshed(*found)

    async def _refreshed(self, token: IssuedToken, in_file: bool) -> IssuedToken:
        flow = DeviceFlow(self._api_url, token.client_id)
        try:
            newer = await flow.refresh(token.refresh_token)
            await self.save(newer, in_file=in_file)
            return newer
        except AuthError:
            # Kept all the same: what is stored says who was signed in, and a new sign-in replaces it.
            if token.expires_at is not None and token.expires_at > time.time():
                return token
            raise
        finally:
            await flow.close()


class SignInSource:
    """The sign-in of this program, as a source of tokens.

    Args:
        api_url: Of the host's REST API.
    """

    name = "`codespace-kernels login`"

    def __init__(self, api_url: str) -> None:
        self._sign_ins = SignIns(api_url)

    async def find(self) -> Token | None:
        """Give the token that was signed in for, kept fresh."""
        try:
            token = await self._sign_ins.fresh()
        except AuthError:
            raise
        except (CodespaceKernelsError, filelock.Timeout) as error:
            _log.info("The sign-in cannot be used: %s", error)
            return None
        return Token(token.access_token, self.name) if token else None


def _expires_soon(token: IssuedToken) -> bool:
    return (
        bool(token.refresh_token) and token.expires_at is not None and token.expires_at < time.time() + REFRESH_SECONDS
    )


def _keyring_get(host: str) -> str:
    import keyring  # Scans entry points: only who needs it pays for that.

    return keyring.get_password(SERVICE_PREFIX + host, _USER) or ""


def _keyring_set(host: str, text: str) -> None:
    import keyring

    keyring.set_password(SERVICE_PREFIX + host, _USER, text)


def _keyring_delete(host: str) -> None:
    import keyring

    keyring.delete_password(SERVICE_PREFIX + host, _USER)
