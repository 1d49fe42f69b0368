"""The gRPC services inside a codespace, reached through its tunnel."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

import grpclib
from google.protobuf.message import DecodeError
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import StreamTerminatedError

from codespace_kernels import codespace_rpc as rpc
from codespace_kernels.errors import NoJupyterError, NoSshServerError, TunnelError, WaitTimeoutError
from codespace_kernels.ssh.stream import splice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from grpclib.protocol import H2Protocol

    from codespace_kernels.connection import Stream

CLIENT_ID = "codespace-kernels"
SSHD_FEATURE = "ghcr.io/devcontainers/features/sshd:1"

_CALL_SECONDS = 30.0
_USERNAME = re.compile(r"[A-Za-z0-9_][-.A-Za-z0-9_]*")
_PORTS = range(1, 65536)


class SshServer(NamedTuple):
    """The SSH server in a codespace.

    Attributes:
        port: Where it listens, on loopback.
        user: Whom the key was installed for.
    """

    port: int
    user: str


class RunningServer(NamedTuple):
    """The codespace's own Jupyter server.

    Attributes:
        port: Where it listens, on loopback.
        url: Its address inside the codespace, with its token: secret.
    """

    port: int
    url: str

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"RunningServer(port={self.port})"


class _StreamChannel(Channel):
    """grpclib's HTTP/2 connection, over a stream instead of a socket."""

    def __init__(self, open_stream: Callable[[], Awaitable[Stream]]) -> None:
        super().__init__("127.0.0.1", rpc.PORT)
        self._open_stream = open_stream
        self._pumps: set[asyncio.Task[None]] = set()

    async def _create_connection(self) -> H2Protocol:
        stream = await self._open_stream()
        # A socket pair and not a loopback port: no other user of this machine can connect to it.
        ours, theirs = socket.socketpair()
        _, protocol = await asyncio.get_running_loop().create_connection(self._protocol_factory, sock=theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        pump = asyncio.create_task(splice(reader, writer, stream, half_close=False))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        # Also where it is cancelled before its first step.
        pump.add_done_callback(lambda _: writer.close())
        return protocol

    def close(self) -> None:
        super().close()
        for pump in self._pumps:
            pump.cancel()


class CodespaceServices:
    """The services that start SSH and Jupyter in a codespace and keep it awake.

    Args:
        open_stream: Opens a stream to the services' port (`codespace_rpc.PORT`).

    Every call raises `TunnelError` where the service cannot be reached or fails, and `WaitTimeoutError` after 30
    seconds, the limit that gh has.
    """

    def __init__(self, open_stream: Callable[[], Awaitable[Stream]]) -> None:
        self._channel = _StreamChannel(open_stream)

    async def _call(self, method: rpc.Method, what: str, **fields: Any) -> Any:
        call = UnaryUnaryMethod(self._channel, method.path, method.request, method.response)
        try:
            return await call(method.request(**fields), timeout=_CALL_SECONDS, metadata=rpc.METADATA)
        except TimeoutError:
            raise WaitTimeoutError.after(f"the codespace to {what}", _CALL_SECONDS) from None
        except grpclib.GRPCError as error:
            reason = error.message or error.status.name
        except (StreamTerminatedError, OSError) as error:
            reason = str(error) or "connection lost"
        except DecodeError:
            reason = "its answer cannot be understood"
        raise TunnelError(f"The codespace's agent failed to {what}: {reason}.")

    async def notify_activity(self, activities: Sequence[str]) -> None:
        """Tell that the codespace is in use, so that its idle timeout starts anew.

        Args:
            activities: `connected` once, then `keepAlive`, `input` or `output`.
        """
        answer = await self._call(
            rpc.NOTIFY_ACTIVITY, "note the activity", ClientId=CLIENT_ID, ClientActivities=list(activities)
        )
        if not answer.Result:
            raise TunnelError(f"The codespace did not note the activity: {answer.Message or 'no reason given'}.")

    async def start_ssh_server(self, public_key: str) -> SshServer:
        """Start the SSH server, and have a key accepted for the container's user.

        Args:
            public_key: As it stands in `authorized_keys`.

        Raises:
            NoSshServerError: The image has none.
        """
        answer = await self._call(rpc.START_SSH_SERVER, "start its SSH server", UserPublicKey=public_key)
        if not answer.Result:
            raise NoSshServerError(
                f"The codespace has no SSH server ({answer.Message.strip() or 'no reason given'}). Add the feature "
                f'"{SSHD_FEATURE}" to its devcontainer.json and rebuild it.'
            )
        if not _USERNAME.fullmatch(answer.User):
            raise TunnelError(f"The codespace names an SSH user that cannot be one: {answer.User!r}.")
        return SshServer(_port(answer.ServerPort), answer.User)

    async def get_running_server(self) -> RunningServer:
        """Give the codespace's own JupyterLab, which is started when need be.

        Raises:
            NoJupyterError: It cannot be started.
        """
        answer = await self._call(rpc.GET_RUNNING_SERVER, "start JupyterLab")
        if not answer.Result:
            raise NoJupyterError(
                f"The codespace cannot start JupyterLab: {answer.Message.strip() or 'no reason given'}. "
                'Add "installJupyterlab": true to the python feature in its devcontainer.json and rebuild it.'
            )
        if not _is_loopback_url(answer.ServerUrl):
            raise TunnelError("The codespace gave an address of JupyterLab that is not on its own loopback interface.")
        return RunningServer(_port(answer.Port), answer.ServerUrl)

    async def rebuild(self, *, full: bool = False) -> None:
        """Rebuild the container, which ends everything in it.

        Args:
            full: Whether cached layers are left unused.
        """
        answer = await self._call(rpc.REBUILD_CONTAINER, "rebuild its container", Incremental=not full)
        if not answer.RebuildContainer:
            raise TunnelError("The codespace refuses to rebuild its container. Try again in a moment.")

    def close(self) -> None:
        """Close the connection to the services; calls under way fail."""
        self._channel.close()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) not in _PORTS:
        raise TunnelError(f"The codespace's agent names a port that cannot be one: {text!r}.")
    return int(text)


def _is_loopback_url(url: str) -> bool:
    try:
        parsed = urllib.parse.urlsplit(url)
        host = parsed.hostname or ""
        return parsed.scheme in ("http", "https") and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
