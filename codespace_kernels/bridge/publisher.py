"""The iopub channel: what is published goes to those who subscribed to it."""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, ClassVar

from codespace_kernels.bridge.endpoint import Endpoint
from codespace_kernels.bridge.outgoing import Outgoing, Tally
from codespace_kernels.zmtp.peer import Subscription

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from codespace_kernels.bridge.connection import Allowance, Connection
    from codespace_kernels.zmtp.curve import CurveKeys
    from codespace_kernels.zmtp.peer import Ready

RETURN_SECONDS = 5.0
"""How long a subscriber that we cut off may take to connect again. ZMQ tries every 0.1 s."""

_MAX_TOPICS = 1024
_MAX_TOPIC_BYTES = 1024


class Publisher(Endpoint):
    """Sends to subscribers by topic (RFC 29, XPUB); nothing is ever dropped here.

    Args:
        name, listener, allowance, curve: As for every endpoint.
        subscribed: Told each topic that a client subscribes to, also where another has it already.
    """

    socket_type: ClassVar[bytes] = b"XPUB"

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        allowance: Allowance,
        curve: CurveKeys | None,
        subscribed: Callable[[bytes], None],
    ) -> None:
        super().__init__(name, listener, allowance, curve)
        self._subscribed = subscribed
        self._topics: dict[Connection, dict[bytes, None]] = {}
        self._prefixes: dict[Connection, tuple[bytes, ...]] = {}
        self._tally = Tally()
        self._returning: collections.deque[tuple[list[Outgoing], asyncio.TimerHandle]] = collections.deque()

    @property
    def waiting(self) -> int:
        """Bytes that subscribers have not taken yet."""
        return self._tally.waiting

    def send(self, frames: Sequence[bytes], done: Callable[[], None] | None) -> None:
        """Send to whom it concerns; see `LocalSockets.send`."""
        topic = frames[0]
        receivers = [connection for connection, prefixes in self._prefixes.items() if topic.startswith(prefixes)]
        # Before anything is sent: who is cut off by this message has it among what was not sent.
        returning = [queue for queue, _ in self._returning]
        count = len(receivers) + len(returning)
        outgoing = Outgoing(frames, count + 1, done, self._tally)
        outgoing.connections = count
        for connection in receivers:
            connection.send(outgoing)
        for queue in returning:
            queue.append(outgoing)
        outgoing.finished()

    def said(self, connection: Connection, event: Ready | Subscription | list[bytes]) -> None:
        """See `ConnectionOwner`."""
        if isinstance(event, Subscription):
            self._change(connection, event)
        else:
            super().said(connection, event)

    def connected(self, connection: Connection, routing_id: bytes) -> None:
        """A client that has subscribed to nothing gets nothing."""
        self._topics[connection] = {}

    def inherited(self, connection: Connection, routing_id: bytes) -> None:
        """Only what has subscribed to everything is passed on."""
        self._topics[connection] = {b"": None}
        self._prefixes[connection] = (b"",)

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """An XSUB may send what is no subscription; a kernel has no use for it."""

    def disconnected(self, connection: Connection, unsent: list[Outgoing]) -> None:
        """Send it nothing more."""
        self._topics.pop(connection, None)
        self._prefixes.pop(connection, None)
        if connection.is_torn:
            self._await_return(unsent)
        else:
            super().disconnected(connection, unsent)

    def close(self) -> None:
        """See `Endpoint.close`."""
        for _, timer in self._returning:
            timer.cancel()
        self._returning.clear()
        super().close()

    def _await_return(self, queue: list[Outgoing]) -> None:
        """Keep what is published for a subscriber that is cut off by us: who subscribes next is taken to be it."""
        timer = asyncio.get_running_loop().call_later(RETURN_SECONDS, lambda: self._returned(None))
        self._returning.append((queue, timer))

    def _returned(self, connection: Connection | None) -> None:
        queue, timer = self._returning.popleft()
        timer.cancel()
        for outgoing in queue:
            if connection is not None:
                connection.send(outgoing)
            else:
                outgoing.finished()

    def _change(self, connection: Connection, subscription: Subscription) -> None:
        topics, topic = self._topics[connection], subscription.topic
        if not subscription.wanted:
            topics.pop(topic, None)
        elif len(topic) <= _MAX_TOPIC_BYTES and (topic in topics or len(topics) < _MAX_TOPICS):
            topics[topic] = None
        else:
            connection.end(f"more than {_MAX_TOPICS} subscriptions, or one of more than {_MAX_TOPIC_BYTES} bytes")
            return
        if self._returning and subscription.wanted and connection not in self._prefixes:
            self._returned(connection)
        self._prefixes[connection] = tuple(topics)
        connection.introduced(wants_all=[*topics] == [b""])
        if subscription.wanted:
            self._subscribed(topic)
