"""How a connection goes on that another process had until it was killed: its client notices nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codespace_kernels.bridge.outgoing import Outgoing
    from codespace_kernels.bridge.takings import Past


class Resumption:
    """Leaves out what the client has, and first of all sends the rest of what it has a part of.

    Args:
        past: What it has.
        send: Sends the bytes of a message.
    """

    def __init__(self, past: Past, send: Callable[[Sequence[bytes], Outgoing], None]) -> None:
        self._past = past
        self._rest = past.rest
        self._send = send
        self._held: list[Outgoing] = []

    @property
    def is_whole(self) -> bool:
        """Whether the client has no part of a message."""
        return self._rest is None

    def send(self, outgoing: Outgoing) -> bool:
        """Send a message, or hold it until the rest was sent; false where that will never come."""
        token, rest = outgoing.token, self._rest
        if self._past.has(token):
            outgoing.finished()
        elif rest is None:
            self._send(outgoing.pieces, outgoing)
        else:
            self._held.append(outgoing)
            if token is not None and token[:3] >= rest.token[:3]:
                return self._complete()
        return True

    def take_all(self) -> list[Outgoing]:
        """Give what is held."""
        held, self._held = self._held, []
        return held

    def _complete(self) -> bool:
        outgoing, rest = self._held[-1], self._rest
        assert rest is not None
        assert outgoing.token is not None
        # A kernel's restart, or what was given up meanwhile: another message than the one that began.
        if outgoing.token[:3] != rest.token[:3] or sum(map(len, outgoing.pieces)) != rest.size:
            return False
        self._rest = None
        self._held.pop()
        self._send([b"".join(outgoing.pieces)[-rest.left :]], outgoing)
        for held in self.take_all():
            self._send(held.pieces, held)
        return True
