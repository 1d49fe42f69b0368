"""Answers that GitHub need not send again: a request that is answered 304 costs no quota."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import httpx

if TYPE_CHECKING:
    from codespace_kernels.github.tokens import Token


class _Entry(NamedTuple):
    etag: str
    headers: httpx.Headers
    content: bytes


class EtagCache:
    """The last answers to conditional GETs, by address and token: another account must not see them.

    Args:
        size: Answers kept; the least recently used goes first.
    """

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, Token], _Entry] = OrderedDict()

    def condition(self, url: str, token: Token) -> dict[str, str]:
        """Give the headers that make a request conditional; none where nothing is kept."""
        entry = self._entries.get((url, token))
        return {"If-None-Match": entry.etag} if entry else {}

    def settle(self, url: str, token: Token, response: httpx.Response) -> httpx.Response:
        """Keep a new answer, or put the kept one in place of a 304."""
        key = (url, token)
        if response.status_code == httpx.codes.NOT_MODIFIED and key in self._entries:
            self._entries.move_to_end(key)
            entry = self._entries[key]
            return httpx.Response(200, headers=entry.headers, content=entry.content, request=response.request)
        if response.status_code == httpx.codes.OK and (etag := response.headers.get("etag")):
            self._keep(key, etag, response)
        return response

    def _keep(self, key: tuple[str, Token], etag: str, response: httpx.Response) -> None:
        # The body is kept decoded, so the headers that describe its coding do not belong to it any more.
        coded = ("content-encoding", "content-length", "transfer-encoding")
        headers = httpx.Headers([(name, value) for name, value in response.headers.multi_items() if name not in coded])
        self._entries[key] = _Entry(etag, headers, response.content)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
