"""The SSH session of a dev tunnel: paramiko's client, made to let the host announce its ports."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import cMSG_REQUEST_FAILURE, cMSG_REQUEST_SUCCESS

from codespace_kernels.errors import TunnelError, WaitTimeoutError
from codespace_kernels.ssh.guess import FirstChoices, GuessedKeyExchange
from codespace_kernels.ssh.threads import call_in_loop

if TYPE_CHECKING:
    from paramiko.message import Message

    from codespace_kernels.ssh.channel import ClientChannel
    from codespace_kernels.ssh.wire import Wire

logger = logging.getLogger(__name__)

USER = "tunnel"
_ADDRESS = "127.0.0.1"


class TunnelSession(GuessedKeyExchange):
    """An SSH session with a tunnel's host, protocol version 1.

    The host announces each port by a `tcpip-forward` request, the wrong way round for SSH: paramiko's client refuses
    those, and a host forgets a port whose announcement was refused. The client then opens `forwarded-tcpip` channels.

    Made on the event loop that uses it.

    Args:
        wire: As `SshSession` has it.
        guess: What the host is expected to name first; see `GuessedKeyExchange`.
    """

    # Hosts offer aes256 only.
    _preferred_ciphers: tuple[str, ...] = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr")

    def __init__(self, wire: Wire, guess: FirstChoices | None = None) -> None:
        super().__init__(wire, guess)
        self._loop = asyncio.get_running_loop()
        self._ports: set[int] = set()
        self._port_waiters: dict[int, asyncio.Future[None]] = {}
        self.call_at_end(lambda: call_in_loop(self._loop, self._wake_waiters))

    @property
    def ports(self) -> frozenset[int]:
        """The ports that the host offers now."""
        return frozenset(self._ports)

    def _parse_global_request(self, message: Message) -> None:
        """Answer a request of the host; called in the session's thread."""
        kind, want_reply = message.get_text(), message.get_boolean()
        if kind == "tcpip-forward":
            port = _port_of(message)
            if not 0 < port < 65536:
                # Else the set of ports could grow without end.
                self._answer(want_reply, success=False)
                return
            self._answer(want_reply, port)
            # Only now: the host refuses a channel that is opened before it has the answer.
            self._ports.add(port)
            call_in_loop(self._loop, self._announced, port)
            logger.debug("the tunnel's host offers port %d", port)
        elif kind == "cancel-tcpip-forward":
            self._ports.discard(_port_of(message))
            self._answer(want_reply)
        else:
            self._answer(want_reply, success=kind == "keepalive@openssh.com")

    def _answer(self, want_reply: bool, *fields: int, success: bool = True) -> None:
        if want_reply:
            reply = paramiko.Message()
            reply.add_byte(cMSG_REQUEST_SUCCESS if success else cMSG_REQUEST_FAILURE)
            reply.add(*fields)
            self._send_message(reply)

    def _announced(self, port: int) -> None:
        waiter = self._port_waiters.pop(port, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake_waiters(self) -> None:
        for port in list(self._port_waiters):
            self._announced(port)

    async def refresh_ports(self, *, timeout: float) -> None:
        """Have the host read the tunnel again and announce what is new.

        Raises:
            TunnelError: It refuses.
            WorkspaceConnectionError: The session ended.
            WaitTimeoutError: No answer in time.
        """
        if await self.request("RefreshPorts", timeout=timeout) is None:
            if not self.active:
                raise self.lost_error()
            raise TunnelError("The codespace's tunnel host refuses to look for new ports. Restart the codespace.")

    async def wait_for_port(self, port: int, *, timeout: float) -> None:
        """Wait until the host has announced a port.

        Raises:
            WorkspaceConnectionError: The session ended.
            WaitTimeoutError: It did not in time.
        """
        if port in self._ports:
            return
        if not self.active:
            raise self.lost_error()
        waiter = self._port_waiters.setdefault(port, self._loop.create_future())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(waiter)
        except TimeoutError:
            raise WaitTimeoutError.after(
                f"the codespace's tunnel host to offer port {port}", timeout, "Restart the codespace if that stays so."
            ) from None
        if not self.active:
            raise self.lost_error()

    async def open_port(self, port: int, *, timeout: float) -> ClientChannel:
        """Connect to a port that the host has announced.

        Raises:
            ChannelRefusedError: Nothing listens there (code 2), or the port was not announced.
            WorkspaceConnectionError: The session ended.
            WaitTimeoutError: No answer in time.
        """
        what = f"a connection to port {port} of the codespace"
        return await self.open("forwarded-tcpip", _ADDRESS, port, "", 0, what=what, timeout=timeout)


def _port_of(message: Message) -> int:
    message.get_text()
    return message.get_int()
