"""Which local client asked for what: a websocket carries no ZMQ identities, so answers are matched by `msg_id`."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codespace_kernels.messages import Message

_MOST = 20_000


@dataclasses.dataclass
class _Route:
    identities: tuple[bytes, ...]
    has_reply: bool
    sent: bool = False
    seen: bool = False


class Routes:
    """Identities of the requests that may still be answered; the oldest are forgotten beyond 20 000."""

    def __init__(self) -> None:
        self._routes: collections.OrderedDict[str, _Route] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, message: Message) -> str:
        """Note a request that is to be sent, and give its `msg_id`.

        Raises:
            MalformedMessageError: The header is no JSON object.
        """
        header = message.header_dict()
        msg_id = str(header.get("msg_id", ""))
        has_reply = str(header.get("msg_type", "")).endswith("_request")
        self._routes[msg_id] = _Route(message.identities, has_reply)
        if len(self._routes) > _MOST:
            self._routes.popitem(last=False)
        return msg_id

    def sent(self, msg_id: str) -> None:
        """Note that a request was written to the connection."""
        if msg_id in self._routes:
            self._routes[msg_id].sent = True

    def find(self, msg_id: str) -> tuple[bytes, ...] | None:
        """Give who asked; None for a request of somebody else."""
        route = self._routes.get(msg_id)
        if route is None:
            return None
        route.seen = True
        return route.identities

    def replied(self, msg_id: str) -> tuple[bytes, ...] | None:
        """Give who asked, and forget the request; None for a request of somebody else."""
        route = self._routes.pop(msg_id, None)
        return route.identities if route else None

    def done(self, msg_id: str) -> None:
        """Note that the kernel is idle again; what has no reply (`comm_msg`) ends here."""
        route = self._routes.get(msg_id)
        if route is not None:
            route.seen = True
            if not route.has_reply:
                del self._routes[msg_id]

    def unseen(self) -> int:
        """Count the requests that were written but of which the kernel has shown no sign yet."""
        return sum(route.sent and not route.seen for route in self._routes.values())

    def clear(self) -> None:
        """Forget all: the process that had them is gone."""
        self._routes.clear()
