"""The shell, control and stdin channels: each client has an id, by which it is answered."""

from __future__ import annotations

import asyncio
import collections
import logging
import os
import time
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from codespace_kernels.bridge.connection import UNTRUSTED_BYTES
from codespace_kernels.bridge.endpoint import Endpoint
from codespace_kernels.bridge.outgoing import Outgoing

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from codespace_kernels.bridge.connection import Allowance, Connection
    from codespace_kernels.zmtp.curve import CurveKeys

_log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a message waits for its client to connect."""

_GIVEN_ID_BYTES = 8


class _Waiting(NamedTuple):
    outgoing: Outgoing
    until: float


class Router(Endpoint):
    """Sends by routing id (RFC 28, ROUTER); a client that connects again with its id takes it over.

    A client connects its channels one by one and may run `input()` before its stdin channel is up. A ROUTER drops what
    it cannot route, a kernel's own, too: the cell then waits for an answer to a question that nobody has seen. So may
    messages wait here for their client.

    Args:
        name, listener, allowance, curve: As for every endpoint.
        received: Given each message, the client's id before its frames; tells whether it proves that its sender knows
            the kernel's key.
        patient: Whether messages wait for every client that is not connected, not only for those that are expected.
    """

    socket_type: ClassVar[bytes] = b"ROUTER"
    message_bytes: ClassVar[int] = UNTRUSTED_BYTES

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        allowance: Allowance,
        curve: CurveKeys | None,
        received: Callable[[list[bytes]], bool],
        *,
        patient: bool,
    ) -> None:
        super().__init__(name, listener, allowance, curve)
        self._received = received
        self._patient = patient
        self._expected: set[bytes] = set()
        self._by_id: dict[bytes, Connection] = {}
        self._waiting: dict[bytes, collections.deque[_Waiting]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, routing_id: bytes) -> None:
        """Let messages for a client wait until it connects, each for `PATIENCE` seconds; a no-op where it is there."""
        if routing_id not in self._by_id:
            self._expected.add(routing_id)

    def send(self, frames: Sequence[bytes], done: Callable[[], None] | None) -> None:
        """Send to the client that the first frame names; see `LocalSockets.send`."""
        client, outgoing = frames[0], Outgoing(frames[1:], 1, done)
        connection = self._by_id.get(client)
        if connection is not None:
            connection.send(outgoing)
        elif self._patient or client in self._expected:
            self._wait(client, outgoing)
        else:
            outgoing.finished()

    def forget(self) -> None:
        """Drop what waits for clients that are not connected."""
        waiting, self._waiting = self._waiting, {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for queue in waiting.values():
            for outgoing, _ in queue:
                outgoing.finished()

    def close(self) -> None:
        """See `Endpoint.close`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()

    def connected(self, connection: Connection, routing_id: bytes) -> None:
        """Send what waited for this client, first of all what an older connection of it did not take."""
        client = routing_id or b"\0" + os.urandom(_GIVEN_ID_BYTES)
        connection.routing_id = client
        connection.introduced(client)
        before = self._by_id.get(client)
        self._by_id[client] = connection
        self._expected.discard(client)
        unsent: list[Outgoing] = []
        if before is not None:
            self._connections.discard(before)
            unsent += before.close()
        unsent += [waiting.outgoing for waiting in self._waiting.pop(client, ())]
        for outgoing in unsent:
            connection.send(outgoing)

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Pass a message on."""
        if self._received([connection.routing_id, *frames]):
            connection.trust()

    def disconnected(self, connection: Connection, unsent: list[Outgoing]) -> None:
        """Forget who is gone."""
        if self._by_id.get(connection.routing_id) is connection:
            del self._by_id[connection.routing_id]
        if connection.is_torn:
            self._expected.add(connection.routing_id)
            for outgoing in unsent:
                self._wait(connection.routing_id, outgoing)
        else:
            super().disconnected(connection, unsent)

    def _wait(self, client: bytes, outgoing: Outgoing) -> None:
        queue = self._waiting.setdefault(client, collections.deque())
        queue.append(_Waiting(outgoing, time.monotonic() + PATIENCE))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        given_up: list[Outgoing] = []
        for client, queue in list(self._waiting.items()):
            while queue and queue[0].until <= time.monotonic():
                given_up.append(queue.popleft().outgoing)
                _log.warning(
                    "dropped a message for local client %s: its %s channel did not connect in %g s",
                    client[:16].hex(),
                    self.name,
                    PATIENCE,
                )
            if not queue:
                del self._waiting[client]
        if self._waiting:
            next_end = min(queue[0].until for queue in self._waiting.values())
            self._timer = asyncio.get_running_loop().call_later(next_end - time.monotonic(), self._give_up)
        for outgoing in given_up:
            outgoing.finished()
