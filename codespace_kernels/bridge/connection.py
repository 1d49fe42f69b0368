"""One connection of a local client: reads and writes its socket on the event loop, and never blocks."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from tornado.ioloop import IOLoop

from codespace_kernels.bridge.outgoing import Outgoing, SendQueue
from codespace_kernels.bridge.resumption import Resumption
from codespace_kernels.zmtp.frames import ZmtpError
from codespace_kernels.zmtp.peer import Peer, Ready

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from codespace_kernels.bridge.takings import Past, Takings
    from codespace_kernels.zmtp.peer import Subscription

    class ConnectionOwner(Protocol):
        """What a connection belongs to."""

        def readable(self, connection: Connection) -> None:
            """Hear that a connection has something to read."""

        def said(self, connection: Connection, event: Ready | Subscription | list[bytes]) -> None:
            """Hear what the client said."""

        def lost(self, connection: Connection, unsent: list[Outgoing], reason: str) -> None:
            """Hear that a connection ended.

            Args:
                connection: It is closed.
                unsent: Messages that did not leave whole.
                reason: What was wrong with it; empty where the client closed it.
            """


_log = logging.getLogger(__name__)

MAX_MESSAGES = 64
"""How many messages a client may hand over before others, and the rest of the loop, get their turn."""

MAX_BYTES = 512 * 1024
"""The same in bytes, for what belongs to one large frame: a client that sends 100 MB does not hold up others."""

_READ_BYTES = 65536
_HANDSHAKE_SECONDS = 30.0

TRUSTED_BYTES = 1 << 30
"""Bytes of a message from a client that knows the key; as much as the link carries."""

UNTRUSTED_BYTES = 256 * 1024 * 1024
"""Bytes of all unfinished messages together from clients that have not shown yet that they know the key."""


class Allowance:
    """What the strangers among a kernel's clients make us keep, together."""

    def __init__(self) -> None:
        self._kept = 0

    def change(self, by: int) -> None:
        """Count bytes that are kept from now on, or no longer.

        Raises:
            ZmtpError: That is too much.
        """
        self._kept += by
        if by > 0 and self._kept > UNTRUSTED_BYTES:
            raise ZmtpError(f"unfinished messages of more than {UNTRUSTED_BYTES >> 20} MiB, with those of others")


class Connection:
    """A connection that was accepted.

    Args:
        sock: Not blocking.
        peer: The state of the protocol.
        owner: Told of everything.
        allowance: What it and other strangers may make us keep.
        takings: Where it is noted what was handed over; None for nowhere.
        lasting: Whether another process may go on with it.
        past: What another process had handed over.

    Attributes:
        routing_id: What the client is called; set by the owner.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        owner: ConnectionOwner,
        allowance: Allowance,
        takings: Takings | None = None,
        *,
        lasting: bool = False,
        past: Past | None = None,
    ) -> None:
        self.routing_id = b""
        self._socket = sock
        self._peer = peer
        self._owner = owner
        self._allowance: Allowance | None = allowance
        self._kept = 0
        self._said: collections.deque[Ready | Subscription | list[bytes]] = collections.deque()
        self._slot = takings.open(sock, lasting=lasting) if takings is not None else None
        taken = past.taken if past is not None else 0
        self._queue = SendQueue(sock, self._watch_for_room, self._gather, self._slot, taken)
        self._resumption = Resumption(past, self._send_pieces) if past is not None else None
        if self._slot is not None and past is not None:
            self._slot.restore(past)
            self._slot.name(past.routing_id)
        self._is_simple = past is not None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        # Tornado watches in a thread where the loop cannot: the Proactor loop of Windows, without which no program
        # could be started from a coroutine there.
        self._watch = IOLoop.current()
        self._watch.add_handler(sock, self._happened, IOLoop.READ)
        self._deadline = self._loop.call_later(_HANDSHAKE_SECONDS, self._too_late)
        self._send_own()
        self._note_state()

    @property
    def waits(self) -> bool:
        """Whether something is queued that the client does not take."""
        return bool(self._queue)

    def introduced(self, routing_id: bytes = b"", *, wants_all: bool = True) -> None:
        """Hear what another process would have to know of the client to go on with the connection.

        Args:
            routing_id: What it is called.
            wants_all: Whether a subscriber has subscribed to everything, and once.
        """
        self._is_simple = wants_all and self._peer.mechanism.plain
        if self._slot is not None:
            self._slot.name(routing_id)

    @property
    def is_torn(self) -> bool:
        """Whether the client has a part of a message whose rest did not come again."""
        return self._resumption is not None and not self._resumption.is_whole

    def trust(self) -> None:
        """The client has shown that it knows the key: it may send what the link carries."""
        if self._allowance is not None:
            self._allowance.change(-self._kept)
            self._allowance = None
            self._peer.limit = TRUSTED_BYTES

    def send(self, outgoing: Outgoing) -> None:
        """Send a message; never blocks."""
        if self._closed:
            outgoing.finished()
        elif self._resumption is None:
            mechanism = self._peer.mechanism
            self._send_pieces(outgoing.pieces if mechanism.plain else mechanism.encode(outgoing.frames), outgoing)
        elif not self._resumption.send(outgoing):
            self.end("what it has a part of does not come again")

    def _send_pieces(self, pieces: Sequence[bytes], outgoing: Outgoing) -> None:
        try:
            self._queue.send(pieces, outgoing)
        except OSError as error:
            self._not_sent(error)

    def read(self) -> None:
        """Read what is there, within the limits, unless what was read before is not handed over yet."""
        if self._said or self._closed:
            return
        try:
            data = self._socket.recv(min(MAX_BYTES, max(_READ_BYTES, self._peer.missing)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.end(_reason(error))
            return
        if data:
            self._receive(data)
        else:
            self.end("")

    def leave(self) -> None:
        """Let go of the socket; a connection that the keeper holds stays open, for another process."""
        self._slot = None
        self.close()

    def close(self, reason: str = "") -> list[Outgoing]:
        """Close the socket; give the messages that did not leave whole. Closing twice is no error."""
        if self._closed:
            return []
        self._closed = True
        with contextlib.suppress(OSError):
            self._queue.send_gathered()
        self._said.clear()
        self._deadline.cancel()
        self._watch.remove_handler(self._socket)
        if self._slot is not None:
            self._slot.close()
        self._socket.close()
        if self._allowance is not None:
            self._allowance.change(-self._kept)
            self._allowance = None
        held = self._resumption.take_all() if self._resumption is not None else []
        return self._queue.take_all() + held

    def _happened(self, _socket: object, events: int) -> None:
        if events & IOLoop.WRITE and not self._closed:
            try:
                self._queue.flush()
            except OSError as error:
                self._not_sent(error)
        if events & IOLoop.READ:
            self._owner.readable(self)

    def _gather(self) -> None:
        self._loop.call_soon(self._send_gathered)

    def _send_gathered(self) -> None:
        if not self._closed:
            try:
                self._queue.send_gathered()
            except OSError as error:
                self._not_sent(error)

    def _watch_for_room(self, wanted: bool) -> None:
        self._watch.update_handler(self._socket, IOLoop.READ | IOLoop.WRITE if wanted else IOLoop.READ)

    def _note_state(self) -> None:
        """Note whether another process would know all that this one does of the client."""
        if self._slot is not None:
            self._slot.ready(self._is_simple and not self._said and not self._peer.kept)

    def _too_late(self) -> None:
        if not self._peer.ready:
            self.end("no handshake in time")
        elif self.is_torn:
            self.end("what it has a part of does not come again")

    def _receive(self, data: bytes) -> None:
        if self._slot is not None:
            self._slot.ready(False)
        try:
            self._said += self._peer.receive_data(data)
            self._count()
        except ZmtpError as error:
            self.end(str(error))
            return
        if self._peer.ready and self._resumption is None:
            self._deadline.cancel()
        self._send_own()
        self._hand_over()

    def _count(self) -> None:
        if self._allowance is not None:
            before, self._kept = self._kept, self._peer.kept
            self._allowance.change(self._kept - before)

    def _send_own(self) -> None:
        data = self._peer.data_to_send()
        # A PONG says that we live, as does what waits already: a client that never reads cannot pile them up.
        if data and not self._queue and not self.is_torn:
            try:
                self._queue.send([data])
            except OSError as error:
                self._not_sent(error)

    def _hand_over(self) -> None:
        for _ in range(MAX_MESSAGES):
            if not self._said:
                break
            try:
                self._owner.said(self, self._said.popleft())
            except Exception:
                # An error in one message must not end the channel for all that follow.
                _log.exception("a message from a local client was not handled")
        if self._said:
            self._loop.call_soon(self._hand_over)
        elif not self._closed:
            self._note_state()

    def _not_sent(self, error: OSError) -> None:
        if isinstance(error, ConnectionError):
            # Who is gone may have said something before; reading finds the end after that.
            self._queue.stop()
        else:
            self.end(_reason(error))

    def end(self, reason: str) -> None:
        """End the connection for a reason that is logged; empty where the client closed it."""
        if not self._closed:
            self._owner.lost(self, self.close(), reason)


def _reason(error: OSError) -> str:
    # What a client does that is killed, or that leaves without reading everything.
    return "" if isinstance(error, ConnectionError) else f"{error.strerror or error}"
