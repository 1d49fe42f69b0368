"""Tokens in the system keyring: our own entry, and the one that `gh` keeps."""

from __future__ import annotations

import asyncio
import base64
import binascii
import concurrent.futures
import logging
import threading
from typing import TYPE_CHECKING, TypeVar

from codespace_kernels.github.tokens import Token, is_token_text

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

SERVICE_PREFIX = "codespace-kernels:"
GH_SERVICE_PREFIX = "gh:"
"""`gh` keeps a token under service `gh:HOST`, account LOGIN; the empty account is the active one."""

_GO_KEYRING_BASE64 = "go-keyring-base64:"
"""On macOS `gh`'s keyring library stores the value encoded, behind this prefix."""


class KeyringSource:
    """The system keyring, asked in a thread and for a bounded time: a locked one may put up a dialog or hang.

    Args:
        host: Host name that the token belongs to.
        login: Account name, or empty for the active one.
        timeout: Seconds.
    """

    name = "the system keyring"

    def __init__(self, host: str, login: str = "", *, timeout: float = 3.0) -> None:
        self._services = (SERVICE_PREFIX + host, GH_SERVICE_PREFIX + host)
        self._login = login
        self._timeout = timeout

    async def find(self) -> Token | None:
        """Look into both entries; a missing, locked or broken keyring has no token."""
        return await asked(self._read, self._timeout)

    def _read(self) -> Token | None:
        import keyring  # Scans entry points: only who needs it pays for that.

        for service in self._services:
            value = _decoded(keyring.get_password(service, self._login) or "")
            # gh may keep a JSON document with a refreshable token here; `gh auth token` is the way to that one.
            if is_token_text(value):
                return Token(value, f"{self.name} ({service})")
        return None


def _decoded(value: str) -> str:
    if not value.startswith(_GO_KEYRING_BASE64):
        return value.strip()
    try:
        return base64.b64decode(value.removeprefix(_GO_KEYRING_BASE64), validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""


async def asked(read: Callable[[], _T | None], timeout: float) -> _T | None:
    """Read from the keyring; None where there is nothing, and where it is missing, locked, broken or slow.

    Args:
        read: Blocks.
        timeout: Seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            return await in_daemon_thread(read)
    except TimeoutError:
        _log.info("The system keyring did not answer within %g s", timeout)
    except Exception as error:  # Backends raise whatever their system raises.
        _log.info("The system keyring cannot be used: %s", type(error).__name__)
    return None


async def in_daemon_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread that does not hold up the end of the process when it hangs."""
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()
    # From here on a cancelled waiter leaves the future to the thread.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="keyring", daemon=True).start()
    return await asyncio.wrap_future(future)
