"""What the two kinds of sockets have in common that a kernel's channel can have at its client's end."""

from __future__ import annotations

import abc
import sys
from typing import Any, Callable, Dict, List, Optional

from .reactor import Reactor

READ_MESSAGES = 64
READ_BYTES = 512 * 1024
"""So much of one socket is handed on in a turn. By bytes too: 64 messages may be 64 MB, and others would wait."""

RECONNECT = 0.02
"""Seconds until a kernel that boots is called again; more would be seen in every start."""


class KernelSocket(abc.ABC):
    """A DEALER or SUB socket (RFC 28, RFC 29), connected to one kernel.

    Requests wait until it is connected. Where the connection ends it is made anew. A subscriber subscribes to
    everything.

    Args:
        reactor: The loop.
        info: A connection file's content.
        channel: `shell`, `iopub`, `stdin` or `control`.
        identity: For the kernel to answer to; none where this is a subscriber.
        take: Called with the parts of each message.
        connected: Called after a handshake, at least after the first.
        foreign: Called when something shows that it listens there and is not the kernel; not every kind can tell.
    """

    def __init__(
        self,
        reactor: Reactor,
        info: Dict[str, Any],
        channel: str,
        identity: Optional[bytes],
        take: Callable[[List[bytes]], Any],
        connected: Callable[[], Any] = lambda: None,
        foreign: Callable[[], Any] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._info = info
        self._channel = channel
        self._identity = identity
        self._take = take
        self._connected = connected
        self._foreign = foreign
        self._paused = False
        self._set_up()

    @abc.abstractmethod
    def _set_up(self) -> None:
        """Begin to connect."""

    @abc.abstractmethod
    def send(self, parts: List[bytes]) -> None:
        """Send a message, now or as soon as the kernel takes it."""

    @abc.abstractmethod
    def pause(self) -> None:
        """Read nothing until `resume`."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Go on reading."""

    @abc.abstractmethod
    def drain(self) -> None:
        """Hand on all that has arrived."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the connection, and of what was to be sent or handed on."""


def source_address(ip: str) -> Optional[str]:
    """Give the address to call a kernel from; None for whichever the system takes.

    A kernel is called until it listens, its ports are of those that the system gives to outgoing connections, and a
    socket that happens to be given the very port it calls is connected to itself: then the kernel finds its port taken
    and dies (seen at 1 in 300 starts). From another address of the loopback network that cannot happen.
    """
    return "127.0.0.2" if ip == "127.0.0.1" and sys.platform == "linux" else None
