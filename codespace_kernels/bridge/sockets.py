"""The five local ZMQ sockets that clients take for a kernel's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from codespace_kernels.bridge.connection import Allowance
from codespace_kernels.bridge.echo import Echo
from codespace_kernels.bridge.endpoint import listen
from codespace_kernels.bridge.publisher import Publisher
from codespace_kernels.bridge.router import Router
from codespace_kernels.errors import SettingsError
from codespace_kernels.messages import Channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from codespace_kernels.bridge.endpoint import Endpoint
    from codespace_kernels.bridge.takings import Takings
    from codespace_kernels.zmtp.curve import CurveKeys


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
    """Binds the sockets, carries messages both ways, and answers heartbeats; nothing here ever blocks.

    Each write is one of ours, so that it is known what has left the process (`send`). There is no high-water mark: a
    full queue would silently drop messages, `status: idle` included; a client that never reads costs memory instead,
    which `waiting` tells.

    Args:
        ip: Address to listen on.
        ports: Exactly these; None lets the operating system choose free ones.
        curve: Keys of the kernel, where its clients use CurveZMQ; others are then turned away.
        takings: Where it is noted what is handed to clients; None for nowhere.

    Attributes:
        has_inherited: Whether subscribers of another process are here, who have noticed nothing.

    Raises:
        SettingsError: A port is taken or cannot be listened on; none is left bound.
    """

    def __init__(
        self, ip: str, ports: Ports | None, curve: CurveKeys | None = None, takings: Takings | None = None
    ) -> None:
        self.ip = ip
        self.curve = curve
        self._takings = takings
        self.has_inherited = False
        self._listeners: dict[str, socket.socket] = {}
        self._routers: dict[Channel, Router] = {}
        self._publisher: Publisher | None = None
        self._endpoints: list[Endpoint] = []
        try:
            for name, port in (ports or Ports(0, 0, 0, 0, 0))._asdict().items():
                self._listeners[name] = listen(ip, name, port)
        except BaseException:
            self.close()
            raise
        self.ports = Ports(**{name: int(sock.getsockname()[1]) for name, sock in self._listeners.items()})

    @property
    def waiting(self) -> int:
        """Bytes that were published and that some subscriber has not taken yet."""
        return self._publisher.waiting if self._publisher is not None else 0

    def start(self, received: Callable[[Channel, list[bytes]], bool], subscribed: Callable[[bytes], None]) -> None:
        """Let clients connect.

        Subscriptions are handed over before anything that came after them, so that a subscriber misses nothing of what
        it asks for later; control before shell.

        Args:
            received: Given the frames of each message, the routing id of its sender first. Tells whether the message
                proves that its sender knows the kernel's key; strangers may send less.
            subscribed: Given the topic of each subscription.
        """
        allowance = Allowance()
        self._publisher = Publisher("iopub", self._listeners["iopub"], allowance, self.curve, subscribed)
        for channel in (Channel.CONTROL, Channel.STDIN, Channel.SHELL):
            name = channel.name.lower()
            self._routers[channel] = Router(
                name,
                self._listeners[name],
                allowance,
                self.curve,
                functools.partial(received, channel),
                patient=channel is Channel.STDIN,
            )
        in_order = [self._publisher, *self._routers.values()]
        for index, endpoint in enumerate(in_order):
            endpoint.takings = self._takings
            endpoint.start(in_order[:index])
        self.has_inherited = self._publisher.inherit()
        for router in self._routers.values():
            router.inherit()
        heartbeat = Echo("hb", self._listeners["hb"], allowance, self.curve)
        heartbeat.start()
        self._endpoints = [*in_order, heartbeat]

    def send(self, channel: Channel, frames: Sequence[bytes], done: Callable[[], None] | None = None) -> None:
        """Send a message to one client, or on iopub to who subscribed to it; never blocks, order is kept.

        Args:
            channel: Of the message.
            frames: The client's routing id first; on iopub the topic.
            done: Called once, as soon as the operating system has taken the message whole for everyone that it goes to,
                or they are gone: maybe before this returns. Never for what is dropped by `close`.
        """
        if channel is Channel.IOPUB:
            assert self._publisher is not None
            self._publisher.send(frames, done)
        else:
            self._routers[channel].send(frames, done)

    def expect(self, routing_id: bytes) -> None:
        """Let replies to a client wait for a while until it connects again: it knew this kernel's last process."""
        for router in self._routers.values():
            router.expect(routing_id)

    def forget(self, channel: Channel) -> None:
        """Drop what waits for clients that are not connected to a channel other than iopub."""
        self._routers[channel].forget()

    def leave(self) -> None:
        """Close everything, so that another process can go on with the connections that are kept for it."""
        for endpoint in self._endpoints:
            endpoint.leave()
        self.close()

    def close(self) -> None:
        """Close everything; when this returns, the ports are free. Closing twice is no error."""
        for endpoint in self._endpoints:
            endpoint.close()
        for listener in self._listeners.values():
            listener.close()
