"""The REST API of a Jupyter server that is not ours."""

from __future__ import annotations

import contextlib
import logging
import urllib.parse
from typing import TYPE_CHECKING, Any, TypeVar

from codespace_kernels.errors import (
    CodespaceKernelsError,
    KernelError,
    KernelNotFoundError,
    KernelStartError,
    RemoteServerError,
)
from codespace_kernels.jupyter.http import UNAVAILABLE, JupyterHttp
from codespace_kernels.jupyter.models import KernelModel, KernelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.providers.base import JupyterUrl

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_KERNEL_START_SECONDS = 120.0
"""A server answers a start or restart only when the kernel runs; conda environments take their time."""


class ServerClient:
    """Talks to one Jupyter server.

    Every method raises `AuthError` where the credentials are refused, `RemoteServerError` where the server fails,
    cannot be reached or is none, and `WaitTimeoutError` where it does not answer in time.

    Args:
        url: Where it is. Its credentials are asked for before each request, and stand in headers, never in an address.
        timeout: Seconds for a request that starts no kernel.
        settle: Seconds in which "not found", "bad gateway" and refused connections are waited out, until the server has
            answered once: a forwarded port is there before the server behind it.
    """

    def __init__(self, url: JupyterUrl, *, timeout: float = 30.0, settle: float = 30.0) -> None:
        self._http = JupyterHttp(url, timeout=timeout, settle=settle)

    def __repr__(self) -> str:
        return f"<ServerClient {self.base_url}>"

    @property
    def base_url(self) -> str:
        """The server's address, with a trailing slash and without secrets."""
        return self._http.base_url

    def channels_url(self, kernel_id: str, session_id: str) -> str:
        """Give the address of a kernel's websocket."""
        base = "ws" + self.base_url.removeprefix("http")
        return f"{base}api/kernels/{_quote(kernel_id)}/channels?session_id={_quote(session_id)}"

    async def headers(self) -> dict[str, str]:
        """Give the headers that authenticate a request made now."""
        return await self._http.headers()

    async def close(self) -> None:
        """Close the connections. Closing twice is no error."""
        await self._http.close()

    async def status(self) -> dict[str, Any]:
        """Give the server's own status: `started`, `last_activity`, `connections`, `kernels`."""
        return await self._object("GET", "api/status")

    async def kernelspecs(self) -> list[KernelSpec]:
        """List the server's kernelspecs, its default first."""
        data = await self._object("GET", "api/kernelspecs")
        try:
            specs = [KernelSpec.from_json(name, model) for name, model in data.get("kernelspecs", {}).items()]
        except (AttributeError, TypeError, ValueError):
            raise self._unlike() from None
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
        return (await self._http.fetch("GET", f"kernelspecs/{rest}")).content

    async def kernels(self) -> list[KernelModel]:
        """List the running kernels."""
        models = self._expect(list, await self._http.call("GET", "api/kernels"))
        return [KernelModel.from_json(model) for model in models]

    async def kernel(self, kernel_id: str) -> KernelModel:
        """Look at one running kernel.

        Raises:
            KernelNotFoundError: The server has no such kernel.
        """
        return KernelModel.from_json(await self._object("GET", _kernel_path(kernel_id), refused=_kernel_refused))

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
        body = {key: value for key, value in (("name", name), ("path", path), ("kernel_id", kernel_id)) if value}
        refused = _start_refused(name)
        try:
            model = await self._object("POST", "api/kernels", body=body, refused=refused, timeout=_KERNEL_START_SECONDS)
        except KernelStartError:
            await self._check_spec(name)
            raise
        except RemoteServerError:
            if not kernel_id:
                raise
            # The answer was lost; the kernel may run all the same.
            with contextlib.suppress(KernelNotFoundError):
                return await self.kernel(kernel_id)
            raise
        return KernelModel.from_json(model)

    async def _check_spec(self, name: str) -> None:
        """Tell an unknown name from a kernel that failed: jupyter_server 2.21 answers 500 "Unhandled error" to both."""
        if name not in [spec.name for spec in await self.kernelspecs()]:
            raise _no_spec(name)

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt a kernel, by signal or message as its spec says.

        Raises:
            KernelNotFoundError: The server has no such kernel.
            KernelError: The server refused.
        """
        await self._http.call("POST", f"{_kernel_path(kernel_id)}/interrupt", refused=_kernel_refused)

    async def restart(self, kernel_id: str) -> None:
        """Replace a kernel's process; returns when the new one answers.

        Raises:
            KernelNotFoundError: The server has no such kernel.
            KernelError: The new process did not start.
            WaitTimeoutError: No answer in time.
        """
        path = f"{_kernel_path(kernel_id)}/restart"
        try:
            await self._http.call("POST", path, refused=_kernel_refused, timeout=_KERNEL_START_SECONDS)
        except KernelNotFoundError:
            raise
        except KernelError:
            # jupyter_server 2.21 answers 500 here even where there is no such kernel.
            await self.kernel(kernel_id)
            raise

    async def shutdown(self, kernel_id: str) -> None:
        """End a kernel; one that is gone already is no error."""
        try:
            await self._http.call("DELETE", _kernel_path(kernel_id), refused=_kernel_refused)
        except KernelNotFoundError:
            _log.debug("kernel %s was gone already", kernel_id)

    async def _object(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        return self._expect(dict, await self._http.call(method, path, **kwargs))

    def _expect(self, kind: type[_T], data: Any) -> _T:
        if not isinstance(data, kind):
            raise self._unlike()
        return data

    def _unlike(self) -> RemoteServerError:
        return RemoteServerError(f"{self.base_url} does not answer like a Jupyter server. Check the address.")


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _kernel_path(kernel_id: str) -> str:
    return f"api/kernels/{_quote(kernel_id)}"


def _kernel_refused(status: int, reason: str) -> CodespaceKernelsError | None:
    if status == 404:
        return KernelNotFoundError("The kernel is gone: it was ended, or its server was started anew.")
    if status >= 500 and status not in UNAVAILABLE:
        return KernelError(f"The Jupyter server failed with the kernel: {reason}. Its log says why.")
    return None


def _no_spec(name: str) -> KernelNotFoundError:
    return KernelNotFoundError(f"The Jupyter server has no kernelspec {name}. Refresh the list of its kernels.")


def _start_refused(name: str) -> Callable[[int, str], CodespaceKernelsError | None]:
    def refused(status: int, reason: str) -> CodespaceKernelsError | None:
        if status in (404, 501):
            return _no_spec(name)
        if status >= 500 and status not in UNAVAILABLE:
            return KernelStartError(f"The kernel {name} did not start: {reason}. The Jupyter server's log says why.")
        return None

    return refused
