"""The gRPC services inside a codespace, on forwarded port 16634 (`codespace_rpc`).

The services decide nothing: they turn calls into calls of the machine and its results into answers.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from codespace_kernels import codespace_rpc
from codespace_kernels.errors import CodespaceKernelsError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SshAddress:
    """Where the SSH server of a machine answers.

    Attributes:
        port: The machine's port, as tunnel clients see it.
        user: Whom to log in as.
    """

    port: int
    user: str


@dataclasses.dataclass(frozen=True)
class JupyterAddress:
    """Where the Jupyter server of a machine answers.

    Attributes:
        port: The machine's port.
        url: Its address with its token, which is a secret.
    """

    port: int
    url: str = dataclasses.field(repr=False)


class ServiceBackend(Protocol):
    """What the services need of a machine. An error's text is what the user reads."""

    def on_activity(self, activities: list[str]) -> None:
        """Take note of a client's activity, such as `connected`, `keepAlive`, `input`, `output`."""

    async def start_ssh_server(self, public_key: str) -> SshAddress:
        """Start the SSH server and let it accept a key (empty: none more)."""

    async def start_jupyter_server(self) -> JupyterAddress:
        """Start the codespace's own Jupyter server, or find it running."""

    def rebuild(self) -> None:
        """Begin to rebuild the container."""


_Call = Callable[[Any], Awaitable[Any]]


class Services:
    """The gRPC server of one machine.

    Args:
        backend: The machine.
    """

    def __init__(self, backend: ServiceBackend) -> None:
        self._backend = backend
        self._server: Server | None = None
        self.address: tuple[str, int] = ("127.0.0.1", 0)

    async def start(self) -> None:
        """Listen on a free loopback port; `address` says which."""
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = sock.getsockname()[:2]
        self._server = Server([self])
        await self._server.start(sock=sock)

    async def close(self) -> None:
        """Stop listening and end calls that run."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def __mapping__(self) -> dict[str, Handler]:
        """Give grpclib the methods."""
        methods = {
            codespace_rpc.NOTIFY_ACTIVITY: self._notify,
            codespace_rpc.REBUILD_CONTAINER: self._rebuild,
            codespace_rpc.START_SSH_SERVER: self._start_ssh,
            codespace_rpc.GET_RUNNING_SERVER: self._get_jupyter,
        }
        return {
            method.path: Handler(_unary(method, call), Cardinality.UNARY_UNARY, method.request, method.response)
            for method, call in methods.items()
        }

    async def _notify(self, request: Any) -> Any:
        self._backend.on_activity(list(request.ClientActivities))
        return codespace_rpc.NotifyResponse(Result=True)

    async def _rebuild(self, request: Any) -> Any:
        self._backend.rebuild()
        return codespace_rpc.RebuildResponse(RebuildContainer=True)

    async def _start_ssh(self, request: Any) -> Any:
        try:
            address = await self._backend.start_ssh_server(request.UserPublicKey)
        except CodespaceKernelsError as error:
            return codespace_rpc.StartSshResponse(Result=False, Message=str(error))
        return codespace_rpc.StartSshResponse(Result=True, ServerPort=str(address.port), User=address.user)

    async def _get_jupyter(self, request: Any) -> Any:
        try:
            address = await self._backend.start_jupyter_server()
        except CodespaceKernelsError as error:
            return codespace_rpc.GetRunningServerResponse(Result=False, Message=str(error))
        return codespace_rpc.GetRunningServerResponse(Result=True, Port=str(address.port), ServerUrl=address.url)


def _unary(method: codespace_rpc.Method, call: _Call) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
    async def handle(stream: Stream[Any, Any]) -> None:
        expected = codespace_rpc.METADATA["authorization"]
        if stream.metadata is None or stream.metadata.get("authorization") != expected:
            raise GRPCError(Status.UNAUTHENTICATED, f"The metadata must have `authorization: {expected}`.")
        request = await stream.recv_message()
        logger.debug("%s", method.path)
        await stream.send_message(await call(request))

    return handle
