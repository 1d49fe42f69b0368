"""One HTTP client for GitHub's REST API: headers, retries, conditional requests, pages, refusals as errors."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx

from codespace_kernels import __version__
from codespace_kernels.errors import GitHubError
from codespace_kernels.github.etags import EtagCache
from codespace_kernels.github.hosts import host_of, is_loopback
from codespace_kernels.github.refusals import Refusal, json_object, json_value, unavailable
from codespace_kernels.github.retry import Attempt, Backoff, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from codespace_kernels.github.tokens import Token, TokenFinder
    from codespace_kernels.target import Account

_log = logging.getLogger(__name__)

API_VERSION = "2022-11-28"
HEADERS = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": API_VERSION,
    "User-Agent": f"codespace-kernels/{__version__}",
}
"""What every request says of itself, but for the token."""

_TIMEOUT = httpx.Timeout(connect=10.0, read=60.0, write=30.0, pool=60.0)
"""Seconds. GitHub gives the creation of a codespace about 10 s before it answers 202, so reading is patient."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_MOST_REDIRECTS = 5
_PER_PAGE = 100
"""The most that GitHub gives in one page."""


class GitHubClient:
    """A client of one account's API; it keeps its connections open. Use it on one event loop.

    Args:
        account: Whose API.
        tokens: Asked for the token at the first request, and once more when GitHub refuses it.
        retry: When a request is repeated.
        transport: What carries requests; httpx's own by default.

    Raises:
        SettingsError: The account's address cannot be used.
    """

    def __init__(
        self,
        account: Account,
        tokens: TokenFinder,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.account = account
        self.host = host_of(account.api_url)
        self._tokens = tokens
        self._retry = retry or Backoff()
        self._token: Token | None = None
        # A keyring may ask the user something: once is enough.
        self._finding = asyncio.Lock()
        self._etags = EtagCache()
        self._deprecation_told = False
        self._http = httpx.AsyncClient(
            headers=HEADERS,
            timeout=_TIMEOUT,
            transport=transport,
            # A proxy has nothing to do with an emulator on this machine.
            trust_env=not is_loopback(account.api_url),
        )

    def __repr__(self) -> str:
        return f"<GitHubClient {self.account.api_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Closing twice is no error."""
        await self._http.aclose()

    async def token(self) -> Token:
        """Give the token that requests are sent with.

        Raises:
            AuthError: There is none, or none that can be used.
        """
        async with self._finding:
            if self._token is None:
                self._token = await self._tokens.find()
            return self._token

    async def get(
        self, path: str, what: str, *, params: Mapping[str, str] | None = None, cached: bool = False
    ) -> dict[str, Any]:
        """Get a JSON document; see `request`.

        Args:
            path: Below the account's API address, with a leading slash.
            what: What is to be done, an infinitive that error texts quote: "list codespaces".
            params: Query.
            cached: Whether the request may be conditional. Never for answers that hold secrets.
        """
        return self.document(await self.request("GET", path, what, params=params, cached=cached), what)

    async def pages(
        self, path: str, what: str, key: str, *, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Give the items of a list over all its pages, which GitHub names in the `Link` header.

        Args:
            path: Below the account's API address, with a leading slash.
            what: What is to be done, an infinitive that error texts quote.
            key: Name of the list in each page's object; empty where each page is a list.
            params: Query.
        """
        url: str | None = path
        query: Mapping[str, str] | None = {"per_page": str(_PER_PAGE), **(params or {})}
        seen: set[str] = set()
        while url and url not in seen:
            seen.add(url)
            response = await self.request("GET", url, what, params=query, cached=True)
            for item in self._items(response, what, key):
                yield item
            # The next address has its own query.
            url, query = response.links.get("next", {}).get("url"), None

    async def request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        cached: bool = False,
        repeatable: bool | None = None,
    ) -> httpx.Response:
        """Send a request, repeat it as the policy says, and give the answer if it is a success.

        Args:
            method: HTTP method.
            path: Below the account's API address, with a leading slash; or a full address of the same origin.
            what: What is to be done, an infinitive that error texts quote.
            params: Query.
            json: Body.
            cached: Whether the request may be conditional.
            repeatable: Whether doing it twice does no harm; by default what HTTP says of the method.

        Raises:
            AuthError: No token, or GitHub does not accept it, or not for this.
            GitHubError: GitHub refused (the subclass tells why), fails, or does not answer.
        """
        call = _Call(what, method in _IDEMPOTENT if repeatable is None else repeatable, cached)
        request = self._http.build_request(method, self._url(path), params=params, json=json)
        token = await self.token()
        response = await self._send(request, token, call)
        if response.status_code == httpx.codes.UNAUTHORIZED and (newer := await self._newer_token(token)):
            token = newer
            response = await self._send(request, token, call)
        self._notice(response, what)
        if response.is_success:
            return response
        raise Refusal(response, what, self.host, token, repeatable=call.repeatable).error()

    def document(self, response: httpx.Response, what: str) -> dict[str, Any]:
        """Give the JSON object of a success.

        Raises:
            GitHubError: It is something else: somebody other than GitHub answered.
        """
        document = json_object(response)
        if not document:
            raise _not_githubs(response, what)
        return document

    def _url(self, path: str) -> httpx.URL:
        url = httpx.URL(path if "://" in path else self.account.api_url + path)
        self._check_origin(url)
        return url

    def _check_origin(self, url: httpx.URL) -> None:
        own = httpx.URL(self.account.api_url)
        if (url.scheme, url.host, url.port) != (own.scheme, own.host, own.port):
            raise GitHubError(
                f"{own.host} refers to {url.scheme}://{url.host}, which is another place. The token is not sent there; "
                "check GITHUB_API_URL and proxies."
            )

    async def _newer_token(self, refused: Token) -> Token | None:
        """Ask the sources again: `gh` may have refreshed an expired token meanwhile."""
        async with self._finding:
            if self._token is refused:
                self._token = await self._tokens.find()
            return self._token if self._token != refused else None

    async def _send(self, request: httpx.Request, token: Token, call: _Call) -> httpx.Response:
        """Send with the token, and with the tag of the answer that is kept; follow redirects within the API."""
        url = str(request.url)
        request.headers["Authorization"] = f"Bearer {token.value}"
        # The condition of an earlier try belongs to the token of that try.
        request.headers.pop("If-None-Match", None)
        if call.cached:
            request.headers.update(self._etags.condition(url, token))
        response = await self._send_patiently(request, call)
        for _ in range(_MOST_REDIRECTS):
            if response.next_request is None:
                break
            self._check_origin(response.next_request.url)
            response = await self._send_patiently(response.next_request, call)
        return self._etags.settle(url, token, response) if call.cached else response

    async def _send_patiently(self, request: httpx.Request, call: _Call) -> httpx.Response:
        """Send as often as the policy says; gives the last answer, whatever it is."""
        number, waited = 1, 0.0
        while True:
            outcome = await self._outcome(request)
            if isinstance(outcome, httpx.Response) and outcome.status_code < 400:
                return outcome
            delay = self._retry(Attempt(number, waited, call.repeatable, outcome))
            if delay is None:
                break
            _log.info("Could not %s (%s); trying again in %.1f s", call.what, _in_words(outcome), delay)
            await asyncio.sleep(delay)
            number, waited = number + 1, waited + delay
        if isinstance(outcome, httpx.Response):
            return outcome
        raise unavailable(
            call.what, request.url.netloc.decode(), _in_words(outcome), repeatable=call.repeatable
        ) from outcome

    async def _outcome(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            return error

    def _notice(self, response: httpx.Response, what: str) -> None:
        """Tell operators what GitHub says beside its answer."""
        if "deprecation" in response.headers and not self._deprecation_told:
            self._deprecation_told = True
            sunset = response.headers.get("sunset", "a date that it does not name")
            _log.warning("%s will drop REST version %s at %s", self.host, API_VERSION, sunset)
        if "partial-results" in response.headers.get("x-github-sso", ""):
            _log.warning("To %s in full, the token must be authorised for single sign-on of more organisations", what)

    def _items(self, response: httpx.Response, what: str, key: str) -> list[dict[str, Any]]:
        items = self.document(response, what).get(key) if key else json_value(response)
        if not key and not isinstance(items, list):
            raise _not_githubs(response, what)
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


class _Call(NamedTuple):
    what: str
    repeatable: bool
    cached: bool


def _not_githubs(response: httpx.Response, what: str) -> GitHubError:
    return GitHubError(
        f"Could not {what}: {response.url.host} answered with something that is not GitHub's JSON. "
        "Check GITHUB_API_URL and proxies."
    )


def _in_words(outcome: httpx.Response | httpx.RequestError) -> str:
    if isinstance(outcome, httpx.Response):
        return f"status {outcome.status_code}"
    if isinstance(outcome, httpx.TimeoutException):
        return "no answer in time"
    return " ".join(str(outcome).split()) or type(outcome).__name__
