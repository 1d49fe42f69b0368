"""The REST API of a Jupyter server that is not ours."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx

from codespace_kernels.errors import (
    AuthError,
    CodespaceKernelsError,
    KernelError,
    KernelNotFoundError,
    KernelStartError,
    RemoteServerError,
    WaitTimeoutError,
)
from codespace_kernels.jupyter.models import KernelModel, KernelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.providers.base import JupyterUrl

_log = logging.getLogger(__name__)

_KERNEL_START_SECONDS = 120.0
"""A server answers a start or restart only when the kernel runs; conda environments take their time."""

_UNAVAILABLE = frozenset({404, 502, 503, 504})
_SETTLE_PAUSE = 0.3


class ServerClient:
    """Talks to one Jupyter server.

    Args:
        url: Where it is. Its credentials are asked for before each request, and stand in headers, never in an address.
        timeout: Seconds for a request that starts no kernel.
        settle: Seconds in which "not found", "bad gateway" and refused connections are waited out, until the server has
            answered once: a forwarded port is there before the server behind it.
    """

    def __init__(self, url: JupyterUrl, *, timeout: float = 30.0, settle: float = 30.0) -> None:
        self._url = url
        self._timeout = timeout
        self._settle = settle
        self._settled = False
        self._xsrf = ""
        self._http = httpx.AsyncClient(follow_redirects=False)

    def __repr__(self) -> str:
        return f"<ServerClient {self.base_url}>"

    @property
    def base_url(self) -> str:
        """The server's address, with a trailing slash and without secrets."""
        return self._url.base_url

    def channels_url(self, kernel_id: str, session_id: str) -> str:
        """Give the address of a kernel's websocket."""
        base = "ws" + self.base_url.removeprefix("http")
        return f"{base}api/kernels/{_quote(kernel_id)}/channels?session_id={_quote(session_id)}"

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

    async def status(self) -> dict[str, Any]:
        """Give the server's own status: `started`, `last_activity`, `connections`, `kernels`.

        Raises:
            AuthError: The credentials are refused.
            RemoteServerError: The server failed or cannot be reached.
            WaitTimeoutError: No answer in time.
        """
        return _object(await self._call("GET", "api/status"))

    async def kernelspecs(self) -> list[KernelSpec]:
        """List the server's kernelspecs, its default first. Raises as `status` does."""
        data = _object(await self._call("GET", "api/kernelspecs"))
        specs = [
            KernelSpec(name, dict(model.get("spec") or {}), dict(model.get("resources") or {}))
            for name, model in data.get("kernelspecs", {}).items()
        ]
        return sorted(specs, key=lambda spec: (spec.name != data.get("default"), spec.name))

    async def resource(self, spec: KernelSpec, name: str) -> bytes:
        """Fetch a file of a kernelspec, such as `logo-64x64`.

        Raises:
            KernelNotFoundError: The spec has no such file.
        """
        path = spec.resources.get(name, "")
        # The path begins with the server's own base, which a proxy may show under another one.
        _, found, rest = path.partition("kernelspecs/")
        if not found:
            raise KernelNotFoundError(f"The kernelspec {spec.name} has no {name}.")
        return (await self._call("GET", f"kernelspecs/{rest}")).content

    async def kernels(self) -> list[KernelModel]:
        """List the running kernels. Raises as `status` does."""
        data = _json(await self._call("GET", "api/kernels"))
        if not isinstance(data, list):
            raise RemoteServerError(f"{self.base_url} does not answer like a Jupyter server. Check the address.")
        return [KernelModel.from_json(model) for model in data]

    async def kernel(self, kernel_id: str) -> KernelModel:
        """Look at one running kernel.

        Raises:
            KernelNotFoundError: The server has no such kernel.
        """
        return KernelModel.from_json(_object(await self._call("GET", _kernel_path(kernel_id), refused=_kernel_refused)))

    async def start_kernel(self, name: str, *, kernel_id: str = "", path: str = "") -> KernelModel:
        """Start a kernel and wait until its process runs.

        Args:
            name: Kernelspec.
            kernel_id: A UUID of our choice, so that asking twice starts one kernel; where a server chooses its own, the
                returned model says which.
            path: Working folder relative to the server's root; a missing one falls back to its nearest parent.

        Raises:
            KernelNotFoundError: The server has no such kernelspec.
            KernelStartError: The kernel did not start.
            WaitTimeoutError: No answer in time.
        """
        body = {"name": name, "path": path or None, "kernel_id": kernel_id or None}
        body = {key: value for key, value in body.items() if value}
        try:
            response = await self._call(
                "POST", "api/kernels", body=body, refused=_start_refused(name), timeout=_KERNEL_START_SECONDS
            )
        except KernelStartError as error:
            # jupyter_server 2.21 answers 500 "Unhandled error" to an unknown name here; 501 is what its sessions say.
            if name not in [spec.name for spec in await self.kernelspecs()]:
                raise _no_spec(name) from error
            raise
        except RemoteServerError:
            if not kernel_id:
                raise
            # The answer was lost; the kernel may run all the same.
            try:
                return await self.kernel(kernel_id)
            except KernelNotFoundError:
                pass
            raise
        return KernelModel.from_json(_object(response))

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt a kernel, by signal or message as its spec says.

        Raises:
            KernelNotFoundError: The server has no such kernel.
            KernelError: The server refused.
        """
        await self._call("POST", f"{_kernel_path(kernel_id)}/interrupt", refused=_kernel_refused)

    async def restart(self, kernel_id: str) -> None:
        """Replace a kernel's process; returns when the new one answers.

        Raises:
            KernelNotFoundError: The server has no such kernel.
            KernelError: The new process did not start.
            WaitTimeoutError: No answer in time.
        """
        path = f"{_kernel_path(kernel_id)}/restart"
        try:
            await self._call("POST", path, refused=_kernel_refused, timeout=_KERNEL_START_SECONDS)
        except KernelNotFoundError:
            raise
        except KernelError:
            # jupyter_server 2.21 answers 500 here even where there is no such kernel.
            await self.kernel(kernel_id)
            raise

    async def shutdown(self, kernel_id: str) -> None:
        """End a kernel; one that is gone already is no error."""
        try:
            await self._call("DELETE", _kernel_path(kernel_id), refused=_kernel_refused)
        except KernelNotFoundError:
            _log.debug("kernel %s was gone already", kernel_id)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        refused: Callable[[int, str], CodespaceKernelsError | None] = lambda status, text: None,
        timeout: float | None = None,
    ) -> httpx.Response:
        seconds = (timeout or self._timeout) + (0 if self._settled else self._settle)
        try:
            async with asyncio.timeout(seconds):
                response = await self._until_settled(method, path, body, seconds)
        except TimeoutError:
            raise WaitTimeoutError.after(f"{self.base_url} to answer {method} {path}", seconds) from None
        if response.is_success:
            return response
        raise refused(response.status_code, _reason(response)) or self._failure(response, path)

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
                    raise RemoteServerError(
                        f"The Jupyter server at {self.base_url} cannot be reached: {error}."
                    ) from None
            else:
                if self._is_final(response) or time.monotonic() > deadline:
                    self._settled = True
                    return response
            await asyncio.sleep(_SETTLE_PAUSE)

    def _is_final(self, response: httpx.Response) -> bool:
        """Whether the answer is the server's own, not that of a proxy that still waits for it."""
        if self._settled or response.status_code not in _UNAVAILABLE:
            return True
        return response.status_code == 404 and response.headers.get("content-type", "").startswith("application/json")

    async def _send(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> httpx.Response:
        response = await self._send_once(method, path, body, seconds)
        if method != "GET" and response.status_code == 403 and "_xsrf" in response.text:
            page = await self._http.get(self.base_url + "login", headers=await self._url.headers(), timeout=seconds)
            self._xsrf = page.cookies.get("_xsrf") or self._xsrf
            response = await self._send_once(method, path, body, seconds)
        return response

    async def _send_once(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> httpx.Response:
        headers = await self.headers()
        return await self._http.request(method, self.base_url + path, json=body, headers=headers, timeout=seconds)

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


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _kernel_path(kernel_id: str) -> str:
    return f"api/kernels/{_quote(kernel_id)}"


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise RemoteServerError(
            f"{response.url.host} does not answer like a Jupyter server. Check the address."
        ) from None


def _object(response: httpx.Response) -> dict[str, Any]:
    data = _json(response)
    if not isinstance(data, dict):
        raise RemoteServerError(f"{response.url.host} does not answer like a Jupyter server. Check the address.")
    return data


def _reason(response: httpx.Response) -> str:
    """Give the server's own words, else the standard text of the status."""
    try:
        data = json.loads(response.content)
    except ValueError:
        return response.reason_phrase
    return str(data.get("message") or response.reason_phrase) if isinstance(data, dict) else response.reason_phrase


def _kernel_refused(status: int, reason: str) -> CodespaceKernelsError | None:
    if status == 404:
        return KernelNotFoundError("The kernel is gone: it was ended, or its server was started anew.")
    if status >= 500 and status not in _UNAVAILABLE:
        return KernelError(f"The Jupyter server failed with the kernel: {reason}. Its log says why.")
    return None


def _no_spec(name: str) -> KernelNotFoundError:
    return KernelNotFoundError(f"The Jupyter server has no kernelspec {name}. Refresh the list of its kernels.")


def _start_refused(name: str) -> Callable[[int, str], CodespaceKernelsError | None]:
    def refused(status: int, reason: str) -> CodespaceKernelsError | None:
        if status in (404, 501):
            return _no_spec(name)
        if status >= 500 and status not in _UNAVAILABLE:
            return KernelStartError(f"The kernel {name} did not start: {reason}. The Jupyter server's log says why.")
        return None

    return refused
