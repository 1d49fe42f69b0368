"""A client whose answers a test writes down, through httpx's own transport for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from codespace_kernels.github import Backoff, GitHubClient, Token
from codespace_kernels.target import Account

CANARY = "gho_CANARYcanary0123456789"
API = "https://api.github.com"


class Tokens:
    """Gives its tokens one after another, then the last one for ever."""

    def __init__(self, *values: str, source: str = "GH_TOKEN") -> None:
        self.left = [Token(value, source) for value in values or (CANARY,)]

    async def find(self) -> Token:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


class Script:
    """Answers requests in order and remembers them; the last answer is repeated."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        # The client sends one request object several times: what it was now is what counts.
        sent = httpx.Request(request.method, request.url, headers=request.headers.copy(), content=request.content)
        self.requests.append(sent)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            # An answer object serves one request only.
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return answer(request)


def answer(status: int, body: Any = None, **headers: str) -> httpx.Response:
    """Build an answer; an underscore in a header's name stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json={} if body is None else body)


def client_for(
    script: Script, *tokens: str, api_url: str = API, retry: Any = None, source: str = "GH_TOKEN"
) -> GitHubClient:
    return GitHubClient(
        Account(api_url=api_url),
        Tokens(*tokens, source=source),
        retry=retry or Backoff(first=0.001),
        transport=httpx.MockTransport(script),
    )


@pytest.fixture
def canary() -> str:
    return CANARY
