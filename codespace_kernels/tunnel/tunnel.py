"""An open dev tunnel: its ports and the services behind one of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from typing import TYPE_CHECKING

import paramiko

from codespace_kernels import codespace_rpc as rpc
from codespace_kernels.errors import HostKeyError, TunnelError, WaitTimeoutError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.ssh.forward import Forwarder
from codespace_kernels.ssh.guess import FirstChoices
from codespace_kernels.ssh.keepalive import KeepaliveOptions, watch
from codespace_kernels.ssh.login import log_in
from codespace_kernels.ssh.session import drop
from codespace_kernels.ssh.stream import ChannelStream
from codespace_kernels.ssh.threads import call_in_loop, run_blocking
from codespace_kernels.ssh.wire import ChannelWire
from codespace_kernels.tunnel.errors import TunnelRefusedError
from codespace_kernels.tunnel.management import (
    INTERNAL_PORT_LABEL,
    USER_PORT_LABEL,
    TunnelEndpoint,
    TunnelManagement,
)
from codespace_kernels.tunnel.preparation import Preparation
from codespace_kernels.tunnel.relay import RelayWire, open_relay
from codespace_kernels.tunnel.services import CodespaceServices
from codespace_kernels.tunnel.session import USER, TunnelSession

if TYPE_CHECKING:
    import socket
    import ssl

    from codespace_kernels.progress import Progress
    from codespace_kernels.ssh.channel import ClientChannel
    from codespace_kernels.tunnel.properties import TunnelProperties
    from codespace_kernels.tunnel.ways import KnownWay

logger = logging.getLogger(__name__)

_RELAY_SECONDS = 30.0
_HANDSHAKE_SECONDS = 20.0
PORT_SECONDS = 20.0
"""How long a port may take to open."""
# gh gives the services so long.
_SERVICES_SECONDS = 5.0
_END_SECONDS = 3.0


class _NotMetError(TunnelError):
    """The relay was reached, and no SSH session with the host behind it came of that."""


class Tunnel:
    """An open tunnel to a codespace. Made by `open_tunnel`.

    Attributes:
        services: The codespace's gRPC services.
        verified: Whether the host's key was one that the management API publishes; false where it publishes none.
        relay_uri: Address of the relay.
        first_choices: What the host named first when keys were exchanged.
    """

    def __init__(
        self,
        session: TunnelSession,
        management: TunnelManagement,
        endpoint: TunnelEndpoint,
        keepalive: KeepaliveOptions,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.verified = bool(endpoint.host_public_keys)
        self.relay_uri = endpoint.relay_uri
        self.first_choices = session.first_choices
        self.services = CodespaceServices(self._open_services)
        self._session = session
        self._management = management
        self._known_ports = set(endpoint.ports)
        # Hosts do not pass the end of one direction on (measured with Microsoft's TypeScript host).
        self._forwarder = Forwarder(half_close=False)
        self._closed: asyncio.Future[str] = loop.create_future()
        self._session_ended = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._watcher = asyncio.create_task(self._watch(keepalive))
        session.call_at_end(lambda: call_in_loop(loop, self._on_session_end))
        session.read_on_loop()

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the tunnel has ended; the result is the reason, a sentence. Do not cancel it."""
        return self._closed

    @property
    def offered_ports(self) -> frozenset[int]:
        """The ports that the host has announced to this session."""
        return self._session.ports

    def has_port(self, port: int) -> bool:
        """Tell whether the tunnel had a port when it was opened, or has been given it since."""
        return port in self._known_ports or port in self._session.ports

    async def open_port(self, port: int, *, timeout: float = PORT_SECONDS) -> ChannelWire:
        """Connect to a port of the codespace's loopback interface; the result is a wire for an SSH session.

        The port is added to the tunnel where it is not there yet.

        Raises:
            ChannelRefusedError: Nothing listens there.
            TunnelError: The port cannot be added.
            WorkspaceConnectionError: The tunnel was lost.
            WaitTimeoutError: Not open in time.
        """
        return ChannelWire(await self._open(port, USER_PORT_LABEL, timeout))

    async def open_stream(self, port: int, *, timeout: float = PORT_SECONDS) -> ChannelStream:
        """Connect to a port, as `open_port` does; the result is a stream."""
        return ChannelStream(await self._open(port, USER_PORT_LABEL, timeout))

    async def forward(self, port: int) -> int:
        """Listen on a free port of 127.0.0.1 here and carry its connections to `port` there.

        Returns:
            The local port. The listener lives until the tunnel is closed.

        Raises:
            WorkspaceConnectionError: The tunnel was lost.
        """
        if self._closed.done():
            raise self._session.lost_error()
        return await self._forwarder.listen(lambda: self.open_stream(port))

    async def _open_services(self) -> ChannelStream:
        return ChannelStream(await self._open(rpc.PORT, INTERNAL_PORT_LABEL, _SERVICES_SECONDS))

    async def _open(self, port: int, label: str, timeout: float) -> ClientChannel:
        if port not in self._session.ports:
            await self._offer(port, label, timeout)
        return await self._session.open_port(port, timeout=timeout)

    async def _offer(self, port: int, label: str, timeout: float) -> None:
        """Have the host offer a port."""
        if port not in self._known_ports:
            await self._management.add_port(port, label=label)
            self._known_ports.add(port)
        # Some hosts answer before they announce, some after. The port is what counts; a refusal ends the wait.
        refreshed = asyncio.create_task(self._session.refresh_ports(timeout=timeout))
        announced = asyncio.create_task(self._session.wait_for_port(port, timeout=timeout))
        try:
            await asyncio.wait({refreshed, announced}, return_when=asyncio.FIRST_COMPLETED)
            if not announced.done():
                await refreshed
            await announced
        finally:
            refreshed.cancel()
            announced.cancel()
            await asyncio.gather(refreshed, announced, return_exceptions=True)

    # The end.

    async def _watch(self, options: KeepaliveOptions) -> None:
        self._end(await watch(self._session, options))

    def _on_session_end(self) -> None:
        self._session_ended.set()
        self._end(self._session.end_reason())

    def _end(self, reason: str) -> None:
        if not self._closed.done():
            logger.info("dev tunnel ended: %s", reason)
            self._closed.set_result(f"The dev tunnel ended: {reason}.")
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(reason))

    async def _close(self, reason: str) -> None:
        self._forwarder.close()
        self.services.close()
        self._watcher.cancel()
        self._session.end(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._session_ended.wait()
        await self._management.close()

    async def close(self) -> None:
        """Close the tunnel and everything opened through it. Closing twice is no error."""
        self._end("it was closed here")
        assert self._closing is not None
        await asyncio.shield(self._closing)


async def open_tunnel(
    properties: TunnelProperties,
    progress: Progress,
    *,
    keepalive: KeepaliveOptions = KeepaliveOptions(),  # noqa: B008  (frozen)
    preparation: Preparation | None = None,
) -> Tunnel:
    """Open a codespace's dev tunnel.

    Args:
        properties: Fetched for this connection: its tokens expire.
        progress: Told of the step.
        keepalive: When a silent host is given up.
        preparation: What was begun beforehand; closed in any case.

    Raises:
        TunnelError: The tunnel has no host, or cannot be reached; `TunnelRefusedError` where the service refuses.
        HostKeyError: The host's key is not one of those published for the tunnel.
        WaitTimeoutError: A step took too long.
    """
    progress(ProgressEvent("tunnel", "Opening the dev tunnel"))
    preparation = preparation or Preparation()
    try:
        context = await preparation.context()
        management = TunnelManagement(properties, context)
        try:
            session, endpoint = await _reach(properties, management, context, preparation)
            try:
                # Nothing but the login has passed, which has no secret: the token is the relay's.
                await _check_host_key(session.get_remote_server_key(), management, endpoint)
            except BaseException:
                session.close()
                raise
        except BaseException:
            await management.close()
            raise
    finally:
        preparation.close()
    return Tunnel(session, management, endpoint, keepalive)


async def _reach(
    properties: TunnelProperties, management: TunnelManagement, context: ssl.SSLContext, preparation: Preparation
) -> tuple[TunnelSession, TunnelEndpoint]:
    """Log in to the tunnel's host: where it was last, while the service is asked where it is now and which key it has.

    What the service says counts: a session by another relay than it names is dropped, whatever came of it.
    """
    token = properties.connect_access_token
    way = await preparation.way()
    early: asyncio.Task[TunnelSession] | None = None
    if way is not None and way.leads_to(properties):
        early = asyncio.create_task(_meet_early(way, token, context, preparation))
    try:
        endpoint = await management.get_endpoint()
        if early is not None and way is not None and way.relay_uri == endpoint.relay_uri:
            try:
                return await asyncio.shield(early), endpoint
            except TunnelRefusedError:
                # Who was asked, and for what, was right.
                raise
            except (TunnelError, WaitTimeoutError) as error:
                logger.info("not by the way that is known: %s", error)
    except BaseException:
        drop(early)
        raise
    drop(early)
    try:
        return await _meet(endpoint.relay_uri, token, context), endpoint
    except _NotMetError as error:
        # A host that does not take what comes early, or one that was just going.
        logger.info("tried again, step by step: %s", error)
        return await _meet(endpoint.relay_uri, token, context, patient=True), endpoint


async def _meet_early(way: KnownWay, token: str, context: ssl.SSLContext, preparation: Preparation) -> TunnelSession:
    sock = await preparation.take_socket()
    return await _meet(way.relay_uri, token, context, sock, FirstChoices(way.kex, way.host_key))


async def _meet(
    relay_uri: str,
    token: str,
    context: ssl.SSLContext,
    sock: socket.socket | None = None,
    guess: FirstChoices | None = None,
    *,
    patient: bool = False,
) -> TunnelSession:
    """Open the relay's websocket, exchange keys with the host behind it, and log in.

    Args:
        relay_uri: Its address.
        token: The tunnel's connect token.
        context: TLS settings.
        sock: A connection to the relay, if there is one.
        guess: What the host is expected to name first.
        patient: Whether each step of the login waits for the one before.
    """
    wire = await run_blocking(
        "the dev tunnel's relay",
        _RELAY_SECONDS + 1,
        open_relay,
        relay_uri,
        token,
        context,
        _RELAY_SECONDS,
        sock,
        discard=RelayWire.close,
    )
    session = TunnelSession(wire, guess)
    session.banner_timeout = session.handshake_timeout = _HANDSHAKE_SECONDS
    try:
        await run_blocking(
            "the tunnel's SSH handshake", _HANDSHAKE_SECONDS, session.start_client, None, _HANDSHAKE_SECONDS
        )
        await run_blocking("the tunnel's SSH login", _HANDSHAKE_SECONDS, _log_in, session, patient)
    except (paramiko.SSHException, EOFError, OSError) as error:
        session.close()
        reason = str(error) or session.end_reason()
        raise _NotMetError(f"The codespace's tunnel host did not complete the SSH handshake: {reason}.") from None
    except BaseException:
        session.close()
        raise
    return session


def _log_in(session: TunnelSession, patient: bool) -> None:
    log_in(session, USER, None, _HANDSHAKE_SECONDS, waits=patient)


async def _check_host_key(key: paramiko.PKey, management: TunnelManagement, endpoint: TunnelEndpoint) -> None:
    """Compare the host's key with the published ones, which are read once more on a mismatch.

    Where none is published any key is accepted, as Microsoft's TypeScript SDK does (gh compares nothing): the relay's
    TLS and token are then all that vouches for the host. `Tunnel.verified` tells.
    """
    shown = base64.b64encode(key.asbytes()).decode()
    if not endpoint.host_public_keys:
        logger.warning("the dev tunnel publishes no host key: its host cannot be verified")
        return
    # The host may have been restarted with a new key between reading and connecting.
    if shown in endpoint.host_public_keys or shown in (await management.get_endpoint()).host_public_keys:
        return
    raise HostKeyError(
        "The host of the codespace's dev tunnel shows another key than the tunnel service publishes. Somebody may be "
        "intercepting the connection; try again from another network."
    )
