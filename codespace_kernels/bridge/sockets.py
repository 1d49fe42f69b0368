"""The five local ZMQ sockets that clients take for a kernel's."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

import zmq

from codespace_kernels.errors import SettingsError, WaitTimeoutError
from codespace_kernels.messages import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0


class Ports(NamedTuple):
    """TCP ports of a kernel's channels; the names of a connection file without their `_port`."""

    shell: int
    iopub: int
    stdin: int
    control: int
    hb: int

    @classmethod
    def from_connection_info(cls, info: Mapping[str, object]) -> Ports:
        """Read the ports of a connection file.

        Raises:
            SettingsError: A port is missing or no port number.
        """
        return cls(*(_port(info, name) for name in cls._fields))

    def to_connection_info(self) -> dict[str, int]:
        """Give the entries of a connection file: `shell_port`, …."""
        return {f"{name}_port": port for name, port in self._asdict().items()}


def _port(info: Mapping[str, object], name: str) -> int:
    value = info.get(f"{name}_port")
    if not isinstance(value, int) or not 0 < value < 65536:
        raise SettingsError(f"The connection file has no usable {name}_port ({value!r}). Start the kernel anew.")
    return value


class LocalSockets:
    """Binds the sockets, answers heartbeats, and frees everything at the end.

    The sockets have a ZMQ context of their own: ending it is the only way to know that the ports are free again, and
    one kernel's 50 MB display does not hold up another kernel's I/O thread. There is no high-water mark, since a full
    queue would silently drop messages, `status: idle` included; a client that never reads costs memory instead.

    Args:
        ip: Address to listen on.
        ports: Exactly these; None lets the operating system choose free ones.

    Raises:
        SettingsError: A port is taken or cannot be listened on; none is left bound.
    """

    def __init__(self, ip: str, ports: Ports | None) -> None:
        self.ip = ip
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._closing: asyncio.Future[None] | None = None
        try:
            self.by_channel, heartbeat, self.ports = self._bind_all(ports)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._heartbeat = threading.Thread(target=_echo, args=(heartbeat,), name="bridge-heartbeat", daemon=True)
        self._heartbeat.start()

    def _bind_all(self, ports: Ports | None) -> tuple[dict[Channel, zmq.Socket[bytes]], zmq.Socket[bytes], Ports]:
        wanted = ports or Ports(0, 0, 0, 0, 0)
        sockets, bound = {}, {}
        for name, port in wanted._asdict().items():
            socket = self._make(zmq.XPUB if name == "iopub" else zmq.ROUTER)
            if name == "stdin":
                # Who sends on it hears of a client that is not connected; see `PatientDelivery`.
                socket.set(zmq.ROUTER_MANDATORY, 1)
            sockets[name], bound[name] = socket, _bind(socket, name, self.ip, port)
        heartbeat = sockets.pop("hb")
        return {Channel[name.upper()]: socket for name, socket in sockets.items()}, heartbeat, Ports(**bound)

    def _make(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)
        if kind == zmq.ROUTER:
            # A client that reconnects with its old identity takes it over, as ipykernel has it.
            socket.set(zmq.ROUTER_HANDOVER, 1)
        else:
            # Every subscriber is greeted, not only the first of each topic.
            socket.set(zmq.XPUB_VERBOSE, 1)
        return socket

    async def close(self) -> None:
        """Close everything; when this returns, the ports are free. Closing twice is no error.

        Raises:
            WaitTimeoutError: ZMQ did not let go of the sockets.
        """
        if self._closing is None:
            for socket in self.by_channel.values():
                socket.close(linger=0)
            # Ends the heartbeat's echo, too, and returns when its thread has closed its socket.
            self._closing = asyncio.get_running_loop().run_in_executor(None, self._context.term)
        try:
            await asyncio.wait_for(asyncio.shield(self._closing), _CLOSE_SECONDS)
        except TimeoutError:
            raise WaitTimeoutError.after("the kernel's local sockets to close", _CLOSE_SECONDS) from None
        self._heartbeat.join(_CLOSE_SECONDS)


def _bind(socket: zmq.Socket[bytes], name: str, ip: str, port: int) -> int:
    try:
        socket.bind(f"tcp://{ip}:{port or '*'}")
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} of {ip}, meant for the kernel's {name} channel, is taken by another program. "
                "Start the kernel again to get other ports."
            ) from None
        raise SettingsError(
            f"Cannot listen on {ip}:{port} for the kernel's {name} channel: {os.strerror(error.errno or 0)}."
        ) from None
    return int(socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0").rpartition(":")[2])


def _echo(socket: zmq.Socket[bytes]) -> None:
    """Answer heartbeats without Python's interpreter lock, so that no work of the process delays them."""
    while True:
        try:
            zmq.proxy(socket, socket)
        except zmq.ContextTerminated:
            break
        except zmq.ZMQError as error:
            if error.errno != errno.EINTR:
                _log.warning("the heartbeat of a kernel ended: %s", error)
                break
    socket.close(linger=0)
