"""One open websocket to a kernel's channels."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.typing import Subprotocol

from codespace_kernels.errors import AuthError, RemoteServerError, WaitTimeoutError
from codespace_kernels.jupyter import legacy, v1
from codespace_kernels.jupyter.url import is_loopback
from codespace_kernels.messages import Channel, MalformedMessageError, Message

if TYPE_CHECKING:
    from codespace_kernels.jupyter.rest import ServerClient

_log = logging.getLogger(__name__)

_websockets_log = logging.getLogger(f"{__name__}.websockets")
# At debug level websockets logs each header, the token among them.
_websockets_log.setLevel(logging.INFO)

_OPEN_SECONDS = 90.0
"""jupyter_server answers only when the kernel does, or after its own `kernel_info_timeout` of 60 s."""

_MAX_MESSAGE = 1 << 30
"""Bytes of one message of a server that are taken; a larger one ends the connection."""

_CHANNELS = {channel.name.lower(): channel for channel in Channel}


class ChannelSocket:
    """Carries messages until one side closes; made by `open`.

    Attributes:
        largest_sent: Size in bytes of the largest message sent; stock servers cut the connection above 10 MiB.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._v1 = connection.subprotocol == v1.SUBPROTOCOL
        self._tcp: socket.socket | None = connection.transport.get_extra_info("socket")
        self.largest_sent = 0

    @classmethod
    async def open(cls, client: ServerClient, kernel_id: str, session_id: str) -> ChannelSocket:
        """Connect; the server chooses between v1 and the legacy form.

        Pings are answered by `websockets`; its own find a dead link after 90 s at the latest. Giving up earlier would
        lose what a link that recovers still brings: TCP carried all output over a 15 s black-out (measured).

        Raises:
            KernelNotFoundError: The server has no such kernel.
            AuthError: The credentials are refused.
            RemoteServerError: The server cannot be reached or speaks no websocket.
            WaitTimeoutError: No answer in time.
        """
        try:
            connection = await connect(
                client.channels_url(kernel_id, session_id),
                additional_headers=await client.headers(),
                subprotocols=[Subprotocol(v1.SUBPROTOCOL)],
                compression=None,
                max_size=_MAX_MESSAGE,
                open_timeout=_OPEN_SECONDS,
                ping_interval=30,
                ping_timeout=60,
                close_timeout=2,
                proxy=None if is_loopback(client.base_url) else True,
                logger=_websockets_log,
            )
        except InvalidStatus as error:
            if error.response.status_code == 404:
                # May be a proxy's; the REST API tells them apart.
                await client.kernel(kernel_id)
            raise _refusal(client, error.response.status_code) from None
        except TimeoutError:
            raise WaitTimeoutError.after(f"{client.base_url} to open a kernel's websocket", _OPEN_SECONDS) from None
        except (OSError, InvalidHandshake) as error:
            raise RemoteServerError(f"The Jupyter server at {client.base_url} cannot be reached: {error}.") from None
        return cls(connection)

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return self._connection.state is State.OPEN

    @property
    def closed_cleanly(self) -> bool:
        """Whether the server said goodbye: only then it knows that it must keep messages for us."""
        return self._connection.protocol.close_rcvd is not None

    async def send(self, channel: Channel, message: Message) -> None:
        """Send a message; returns when the socket took it.

        Raises:
            ConnectionError: The connection is closed; whether the server got the message is not known.
        """
        data = v1.encode(channel, message) if self._v1 else legacy.encode(channel, message)
        self.largest_sent = max(self.largest_sent, len(data))
        try:
            await self._connection.send(data)
        except ConnectionClosed as error:
            raise ConnectionError(str(error)) from None
        self._acknowledge_at_once()

    async def receive(self) -> tuple[Channel, Message]:
        """Wait for the next message; unknown channels and malformed messages are left out.

        Raises:
            ConnectionError: The connection is closed.
        """
        while True:
            try:
                data = await self._connection.recv()
            except ConnectionClosed as error:
                raise ConnectionError(str(error)) from None
            self._acknowledge_at_once()
            try:
                name, message = self._decode(data)
            except MalformedMessageError as error:
                _log.warning("left out a message of the server: %s", error)
                continue
            if name in _CHANNELS:
                return _CHANNELS[name], message
            _log.debug("left out a message of the unknown channel %r", name)

    async def close(self) -> None:
        """Close with a goodbye, so that the server keeps messages for the next connection of the same session."""
        await self._connection.close()

    def _decode(self, data: str | bytes) -> tuple[str, Message]:
        if not self._v1:
            return legacy.decode(data)
        if isinstance(data, str):
            raise MalformedMessageError("v1 message that is text")
        return v1.decode(data)

    def _acknowledge_at_once(self) -> None:
        """Ask the kernel for immediate TCP acknowledgements.

        jupyter_server leaves Nagle's algorithm on: its second small message waits for our acknowledgement of the first,
        which Linux delays by 40 ms. The option does not last, hence each time.
        """
        if self._tcp is not None and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _refusal(client: ServerClient, status: int) -> AuthError | RemoteServerError:
    if status in (401, 403):
        return AuthError(f"The Jupyter server at {client.base_url} does not accept our credentials ({status}).")
    return RemoteServerError(f"The Jupyter server at {client.base_url} refuses a kernel's websocket ({status}).")
