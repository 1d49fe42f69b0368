"""A login that costs one round trip: service, authentication and what is to come behind it are asked for at once.

paramiko waits for the service to be accepted before it asks to be authenticated. Nothing of the answer is needed for
the question: RFC 4253, section 10, has no wait there, and RFC 4252, section 5.1, has what comes behind a request that
succeeds passed to the connection protocol.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import MSG_SERVICE_ACCEPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from paramiko.message import Message

    from codespace_kernels.ssh.session import SshSession

    class _AuthHandler(AuthHandler):
        """What paramiko's stubs leave out of its handler."""

        authenticated: bool
        transport: Any

        def _request_auth(self) -> None: ...
        def _parse_service_accept(self, m: Message) -> None: ...
        def _parse_userauth_failure(self, m: Message) -> None: ...

else:
    _AuthHandler = AuthHandler

_SERVICE = "ssh-userauth"


class _Login(_AuthHandler):
    """paramiko's messages, sent without waiting in between.

    Args:
        session: Whose.
        waits: Whether it waits for the service all the same.

    Attributes:
        refusal: Why the server did not let us in; None where it did not say so.
    """

    def __init__(self, session: SshSession, *, waits: bool) -> None:
        super().__init__(session)
        self._waits = waits
        self.refusal: Exception | None = None

    def _request_auth(self) -> None:
        super()._request_auth()
        if self._waits:
            return
        accepted = paramiko.Message()
        accepted.add_string(_SERVICE)
        accepted.rewind()
        # What paramiko does when the service was accepted.
        super()._parse_service_accept(accepted)

    def _parse_userauth_failure(self, m: Message) -> None:
        super()._parse_userauth_failure(m)
        # Kept: what was sent behind the request has the server end the session at once, for another reason.
        self.refusal = self.transport.saved_exception or paramiko.AuthenticationException("Authentication failed.")

    @property
    def _client_handler_table(self) -> dict[int, Callable[[Message], None]]:
        table: dict[int, Callable[[Message], None]] = super()._client_handler_table  # type: ignore[misc]
        return table if self._waits else {**table, MSG_SERVICE_ACCEPT: lambda _: None}


def log_in(
    session: SshSession,
    username: str,
    key: paramiko.PKey | None,
    timeout: float,
    *,
    behind: Callable[[], object] = lambda: None,
    waits: bool = False,
) -> None:
    """Authenticate a session whose keys were exchanged. Blocks.

    Args:
        session: Its host key has been checked, where there is something to be kept from others.
        username: At the server.
        key: That the server accepts; None for the method `none`.
        timeout: Seconds.
        behind: Called when everything was asked for: what it sends is taken by the server if it lets us in.
        waits: Whether the service is waited for, for a server that may not take what comes early.

    Raises:
        paramiko.AuthenticationException: It does not let us in.
        paramiko.SSHException: The session ended, or there was no answer in time.
    """
    answered = threading.Event()
    login = session.auth_handler = _Login(session, waits=waits)
    if key is None:
        login.auth_none(username, answered)
    else:
        login.auth_publickey(username, key, answered)
    behind()
    if not answered.wait(timeout):
        raise paramiko.SSHException(f"no answer to the login within {timeout:g} s")
    if not login.authenticated:
        raise login.refusal or paramiko.SSHException(session.end_reason())
