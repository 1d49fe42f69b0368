"""Which ports of a tunnel a client has been told of, and what it answered."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import MSG_GLOBAL_REQUEST, MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS

if TYPE_CHECKING:
    from codespace_kernels.emulator.tunnel_host import HostTransport

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"

REPEAT_AFTER = (0.3, 1.0, 3.0, 10.0)
"""Seconds. A port that nobody opened is told again: `gh` can miss the news of a port in the moment between looking for
it and waiting for it, and then waits for ever (reference: 1 in 150 runs). Telling a port twice does no harm."""


class PortAnnouncer:
    """Tells one client the tunnel's ports and keeps account of its replies.

    Replies to global requests carry no name: they come in the order of the requests. So does the answer to the client's
    own `RefreshPorts`, which must wait until the client has replied to every port told before it.

    `registered`, `opened` and `replied` are called on the transport's thread, so that a channel which the client opens
    right after its reply finds the port registered; all others on its pump thread, which alone sends.
    """

    def __init__(self, transport: HostTransport, ports: Callable[[], list[int]]) -> None:
        self._transport = transport
        self._ports = ports
        self._lock = threading.Lock()
        self._told: set[int] = set()
        self._accepted: set[int] = set()
        self._opened: set[int] = set()
        # What the next reply is about: a port told (true) or withdrawn (false); None: an answer that waits its turn.
        self._awaited: deque[tuple[int, bool] | None] = deque()
        self._due = 0

    def registered(self, port: int) -> bool:
        """Tell whether the client accepted this port; only then it may open channels to it."""
        return port in self._accepted

    def opened(self, port: int) -> None:
        """Take note that the client used a port: it knows it."""
        self._opened.add(port)

    def announce(self) -> None:
        """Tell the ports that are new and withdraw those that are gone."""
        ports = self._ports()
        with self._lock:
            gone = sorted(self._told.difference(ports))
            new = [port for port in ports if port not in self._told]
            self._told = set(ports)
            for known in (self._accepted, self._opened):
                known.intersection_update(ports)
        for port in gone:
            self._request("cancel-tcpip-forward", port)
        for port in new:
            self._request("tcpip-forward", port)
            self._repeat_later(port, 0)

    def refresh(self, wants_reply: bool) -> None:
        """Serve `RefreshPorts`."""
        self.announce()
        if wants_reply:
            with self._lock:
                self._awaited.append(None)
            self.answer_in_turn()

    def answer(self, accepted: bool) -> None:
        """Reply to a global request of the client's."""
        message = paramiko.Message()
        message.add_byte(bytes([MSG_REQUEST_SUCCESS if accepted else MSG_REQUEST_FAILURE]))
        self._transport.send(message)

    def replied(self, accepted: bool) -> None:
        """Take the client's reply to the oldest request that has none yet."""
        with self._lock:
            self._take_turns()
            awaited = self._awaited.popleft() if self._awaited else None
            if awaited is None:
                logger.debug("a reply that nothing was asked for")
                return
            port, told = awaited
            if told and accepted and port in self._told:
                self._accepted.add(port)
            elif told:
                # As the real host: a refused port is forgotten, and opening it fails.
                self._told.discard(port)
                self._accepted.discard(port)

    def answer_in_turn(self) -> None:
        """Give the answers that waited for replies which have come."""
        with self._lock:
            self._take_turns()
            due, self._due = self._due, 0
        for _ in range(due):
            self.answer(accepted=True)

    def _take_turns(self) -> None:
        """Note the answers whose turn has come: the next reply may be here before the pump comes to give them."""
        while self._awaited and self._awaited[0] is None:
            self._awaited.popleft()
            self._due += 1

    def _request(self, kind: str, port: int) -> None:
        with self._lock:
            self._awaited.append((port, kind == "tcpip-forward"))
        message = paramiko.Message()
        message.add_byte(bytes([MSG_GLOBAL_REQUEST]))
        message.add_string(kind)
        message.add_boolean(True)
        message.add_string(ADDRESS)
        message.add_int(port)
        self._transport.send(message)

    def _repeat_later(self, port: int, turn: int) -> None:
        if turn < len(REPEAT_AFTER):
            self._transport.loop.call_later(REPEAT_AFTER[turn], self._repeat, port, turn)

    def _repeat(self, port: int, turn: int) -> None:
        if port not in self._told or port in self._opened:
            return
        # A client that has not even replied yet is not pressed, but looked at again.
        if port in self._accepted:
            self._request("tcpip-forward", port)
        self._repeat_later(port, turn + 1)
