"""The heartbeat: what comes goes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from codespace_kernels.bridge.endpoint import Endpoint
from codespace_kernels.bridge.outgoing import Outgoing

if TYPE_CHECKING:
    from codespace_kernels.bridge.connection import Connection


class Echo(Endpoint):
    """Answers each message with itself."""

    socket_type: ClassVar[bytes] = b"ROUTER"

    def connected(self, connection: Connection, routing_id: bytes) -> None:
        """Nobody has to be called anything here."""

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Send it back, unless its sender does not even take the last one."""
        if not connection.waits:
            connection.send(Outgoing(frames, 1, None))
