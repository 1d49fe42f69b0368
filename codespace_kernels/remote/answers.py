"""What clients were answered, so that a command that is sent again is not done again.

The link sends each message once, but the child process that carries it may die with what it had taken: then the client
asks its successor the same again, under the same number, and only the server knows whether it was done.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, Awaitable, Callable, Dict, List, Tuple

CHANGES = frozenset({"start", "interrupt", "restart", "shutdown"})
"""Commands that are remembered; all others only look, and may be done twice."""

REMEMBERED = 64
"""Answers of each client, and clients, that are remembered. A client asks again only what it has no answer to."""

Answer = Tuple[Dict[str, Any], List[bytes]]


class Answers:
    """Does each client's command once.

    Args:
        do: Does a command; what it raises is an answer, too.
    """

    def __init__(self, do: Callable[[Dict[str, Any]], Awaitable[Answer]]) -> None:
        self._do = do
        self._clients: "OrderedDict[str, OrderedDict[int, asyncio.Future[Answer]]]" = OrderedDict()

    async def to(self, client: str, request: Dict[str, Any]) -> Answer:
        """Do a command, or give the answer to the same one from before, waiting for it where it is under way."""
        if request.get("do") not in CHANGES:
            return await self._do(request)
        known = self._of(client)
        answer = known.get(request["id"])
        if answer is None:
            answer = known[request["id"]] = asyncio.ensure_future(self._do(request))
            self._shorten(known)
        return await asyncio.shield(answer)

    def forget(self, client: str) -> None:
        """Forget a client that will not come back."""
        self._clients.pop(client, None)

    def _of(self, client: str) -> "OrderedDict[int, asyncio.Future[Answer]]":
        known = self._clients.setdefault(client, OrderedDict())
        self._clients.move_to_end(client)
        while len(self._clients) > REMEMBERED:
            self._clients.popitem(last=False)
        return known

    def _shorten(self, known: "OrderedDict[int, asyncio.Future[Answer]]") -> None:
        """Forget the oldest answers; commands that are under way stay."""
        for number in [number for number, answer in known.items() if answer.done()][: len(known) - REMEMBERED]:
            del known[number]
