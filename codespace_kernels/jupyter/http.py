"""HTTP to a Jupyter server: fresh credentials, a server that is not up yet, XSRF, and what its refusals mean."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import httpx

from codespace_kernels.errors import AuthError, CodespaceKernelsError, RemoteServerError, WaitTimeoutError
from codespace_kernels.jupyter.url import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.providers.base import JupyterUrl

    Refused = Callable[[int, str], CodespaceKernelsError | None]

UNAVAILABLE = frozenset({404, 502, 503, 504})
"""Statuses of proxies whose server is not up."""

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read."""

_SETTLE_PAUSE = 0.3


class JupyterHttp:
    """Makes requests to one server.

    Args:
        url: Where it is, and who knows the credentials.
        timeout: Seconds for a request that names none of its own.
        settle: Seconds, see `rest.ServerClient`.
    """

    def __init__(self, url: JupyterUrl, *, timeout: float, settle: float) -> None:
        self._url = url
        self._timeout = timeout
        self._settle = settle
        self._settled = False
        self._xsrf = ""
        # A corporate proxy cannot reach a port of this machine.
        self._http = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=not is_loopback(url.base_url),
            # What is compressed may be a thousand times as large as what was sent.
            headers={"Accept-Encoding": "identity"},
        )

    @property
    def base_url(self) -> str:
        """The server's address, with a trailing slash and without secrets."""
        return self._url.base_url

    async def headers(self) -> dict[str, str]:
        """Give the headers that authenticate a request made now."""
        headers = await self._url.headers()
        if self._xsrf:
            cookies = [value for name, value in headers.items() if name.lower() == "cookie"]
            headers = {name: value for name, value in headers.items() if name.lower() != "cookie"}
            headers |= {"Cookie": "; ".join([*cookies, f"_xsrf={self._xsrf}"]), "X-XSRFToken": self._xsrf}
        return headers

    async def close(self) -> None:
        """Close the connections. Closing twice is no error."""
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        refused: Refused = lambda status, reason: None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request and give the JSON it answers; None where it answers nothing.

        Args:
            method: Of HTTP.
            path: Relative to the server's base.
            body: Sent as JSON.
            refused: Makes an error from a status and the server's own words; None leaves it to the general ones.
            timeout: Seconds.

        Raises:
            AuthError: The credentials are refused.
            RemoteServerError: The server failed, cannot be reached, or is no Jupyter server.
            WaitTimeoutError: No answer in time.
        """
        response = await self.fetch(method, path, body=body, refused=refused, timeout=timeout)
        return _json(response) if response.content else None

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        refused: Refused = lambda status, reason: None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Make a request and give the successful answer; arguments and errors as for `call`."""
        seconds = (timeout or self._timeout) + (0 if self._settled else self._settle)
        try:
            async with asyncio.timeout(seconds):
                response = await self._until_settled(method, path, body, seconds)
        except TimeoutError:
            raise WaitTimeoutError.after(f"{self.base_url} to answer {method} {path}", seconds) from None
        if response.is_success:
            return response
        # A proxy's 404 says nothing of a kernel: only the server's own may count it as dead.
        specific = refused(response.status_code, _reason(response)) if _is_json(response) else None
        raise specific or self._failure(response, path)

    async def _until_settled(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> httpx.Response:
        deadline = time.monotonic() + self._settle
        while True:
            try:
                response = await self._send(method, path, body, seconds)
            except httpx.TimeoutException:
                raise TimeoutError from None
            except httpx.HTTPError as error:
                # A request whose answer was lost may have been carried out; only looking twice is harmless.
                again = method == "GET" or isinstance(error, httpx.ConnectError)
                if self._settled or not again or time.monotonic() > deadline:
                    reason = str(error) or type(error).__name__
                    raise RemoteServerError(
                        f"The Jupyter server at {self.base_url} cannot be reached: {reason}."
                    ) from None
            else:
                if self._is_final(response) or time.monotonic() > deadline:
                    self._settled = True
                    return response
            await asyncio.sleep(_SETTLE_PAUSE)

    def _is_final(self, response: httpx.Response) -> bool:
        """Whether the answer is the server's own, not that of a proxy that still waits for it."""
        if self._settled or response.status_code not in UNAVAILABLE:
            return True
        return response.status_code == 404 and _is_json(response)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> httpx.Response:
        response = await self._send_once(method, path, body, seconds)
        if method != "GET" and response.status_code == 403 and "_xsrf" in response.text:
            page = await self._ask("GET", "login", None, await self._url.headers(), seconds)
            self._xsrf = page.cookies.get("_xsrf") or self._http.cookies.get("_xsrf") or ""
            response = await self._send_once(method, path, body, seconds)
        return response

    async def _send_once(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> httpx.Response:
        return await self._ask(method, path, body, await self.headers(), seconds)

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str], seconds: float
    ) -> httpx.Response:
        """Send a request and read its answer, but no more of it than `MAX_ANSWER`."""
        url = self.base_url + path
        async with self._http.stream(method, url, json=body, headers=headers, timeout=seconds) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise RemoteServerError(f"{self.base_url} compresses its answers although it was asked not to.")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise RemoteServerError(f"{self.base_url} answers {path} with more than {MAX_ANSWER >> 20} MiB.")
        return httpx.Response(
            response.status_code, headers=response.headers, content=bytes(content), request=response.request
        )

    def _failure(self, response: httpx.Response, path: str) -> CodespaceKernelsError:
        status, reason = response.status_code, _reason(response)
        if status in (401, 403) or response.is_redirect:
            return AuthError(
                f"The Jupyter server at {self.base_url} does not accept our credentials ({status}). "
                "Give its current token: `jupyter server list` shows it there."
            )
        if status == 404:
            return RemoteServerError(f"There is no Jupyter server at {self.base_url} (no {path}). Check the address.")
        return RemoteServerError(f"The Jupyter server at {self.base_url} failed at {path}: {status} {reason}")


def _is_json(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("application/json")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise RemoteServerError(
            f"{response.url.host} does not answer like a Jupyter server. Check the address."
        ) from None


def _reason(response: httpx.Response) -> str:
    """Give the server's own words, else the standard text of the status."""
    try:
        data = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.reason_phrase
    return str(data.get("message") or response.reason_phrase) if isinstance(data, dict) else response.reason_phrase
