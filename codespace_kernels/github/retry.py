"""When a request to GitHub is repeated, and after how long: one policy, asked after every answer."""

from __future__ import annotations

import dataclasses
import email.utils
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDARY_LIMIT_PAUSE = 60.0
"""Seconds. GitHub's docs: where a secondary limit names no time, wait at least a minute."""

_random = random.SystemRandom()


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One request that did not succeed, as a policy sees it.

    Attributes:
        number: 1 for the first try.
        waited: Seconds already spent waiting between tries of this request.
        repeatable: Whether doing it twice does no harm (reads, start, stop; never create).
        outcome: The answer, or what httpx raised where there was none.
    """

    number: int
    waited: float
    repeatable: bool
    outcome: httpx.Response | httpx.RequestError


RetryPolicy = Callable[[Attempt], float | None]
"""Gives the seconds to wait before the next try, or None to let the answer stand."""


@dataclasses.dataclass(frozen=True)
class Backoff:
    """The default policy.

    Server errors and broken connections are repeated where that does no harm; a rate limit says that nothing was done,
    so after it anything is repeated, but only as long as a person would wait.

    Attributes:
        tries: Requests in all.
        first: Seconds before the second try; doubled each time, with jitter of half up or down.
        longest_wait: Seconds that all waits of one request together may take.
    """

    tries: int = 4
    first: float = 0.25
    longest_wait: float = 60.0

    def __call__(self, attempt: Attempt) -> float | None:
        """Decide about one attempt."""
        delay = self._delay(attempt)
        if delay is None or attempt.number >= self.tries or attempt.waited + delay > self.longest_wait:
            return None
        return delay

    def _delay(self, attempt: Attempt) -> float | None:
        backoff = self.first * 2.0 ** (attempt.number - 1) * _random.uniform(0.5, 1.5)
        outcome = attempt.outcome
        if isinstance(outcome, httpx.RequestError):
            # A connection that was never made has carried no request.
            unsent = isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
            return backoff if attempt.repeatable or unsent else None
        if (pause := rate_limit_pause(outcome)) is not None:
            return max(pause, backoff)
        if outcome.status_code >= 500 and attempt.repeatable:
            return max(_retry_after(outcome.headers) or 0.0, backoff)
        return None


def rate_limit_pause(response: httpx.Response) -> float | None:
    """Give how long a rate limit wants us to wait, in seconds; None where the answer is no rate limit.

    Primary limit: `x-ratelimit-remaining: 0` and `x-ratelimit-reset` (seconds since 1970). Secondary: `retry-after`, or
    no time at all. Both come as 403 or 429.
    """
    if response.status_code not in (403, 429):
        return None
    headers = response.headers
    pause = _retry_after(headers)
    if pause is None and headers.get("x-ratelimit-remaining") == "0":
        pause = _until(headers.get("x-ratelimit-reset"), headers)
    if pause is None and (response.status_code == 429 or "rate limit" in response.text.lower()):
        pause = SECONDARY_LIMIT_PAUSE
    return pause


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - _now(headers))
    except ValueError:
        return None


def _until(reset: str | None, headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(reset or "") - _now(headers))
    except ValueError:
        return None


def _now(headers: Mapping[str, str]) -> float:
    """Give the time by the server's clock, since the local one may be wrong."""
    try:
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return time.time()
