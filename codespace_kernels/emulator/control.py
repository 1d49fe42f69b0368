"""The control endpoint of an emulator, `/_emulator/…`, and its client. It wants the secret of the state file."""

from __future__ import annotations

import asyncio
import hmac
import json
import ssl
from typing import TYPE_CHECKING

import httpx
from tornado.web import RequestHandler

from codespace_kernels.emulator.rendering import codespace_json
from codespace_kernels.errors import EmulatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from codespace_kernels.emulator.faults import OptionValue
    from codespace_kernels.emulator.rendering import Json
    from codespace_kernels.emulator.server import Emulator
    from codespace_kernels.emulator.state import EmulatorRecord

ANSWER_SECONDS = 10.0
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. Its address is plain HTTP, and to load the public authorities takes longer than to ask."""

_SHOWN = ("name", "display_name", "state", "last_used_at", "idle_timeout_minutes", "last_known_stop_notice")


class _ControlHandler(RequestHandler):
    def initialize(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def prepare(self) -> None:
        given = self.request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.emulator.record.secret}".encode()):
            self.set_status(403)
            self.finish({"message": "The control secret is missing or wrong."})


class StatusHandler(_ControlHandler):
    """`/_emulator/status`."""

    def get(self) -> None:
        """Give what the emulator has and does."""
        self.finish(status_json(self.emulator))


class StopHandler(_ControlHandler):
    """`/_emulator/stop`."""

    async def post(self) -> None:
        """Answer, then end: the end itself is not waited for, because it waits for this connection."""
        await self.finish({})
        self.emulator.begin_close()


class FaultsHandler(_ControlHandler):
    """`/_emulator/faults`."""

    async def post(self) -> None:
        """Set the fault `{kind, codespace, options}`."""
        body: Json = json.loads(self.request.body)
        await self._change(self.emulator.faults.set, body["kind"], body["codespace"], **body["options"])

    async def delete(self) -> None:
        """Clear faults: `?kind=&codespace=`, each optional."""
        kind, codespace = (self.get_query_argument(name, None) for name in ("kind", "codespace"))
        await self._change(self.emulator.faults.clear, kind, codespace)

    async def _change(
        self, change: Callable[..., None], kind: str | None, codespace: str | None, **options: OptionValue
    ) -> None:
        try:
            self._check_codespace(codespace)
            # In a thread: what a fault does to processes takes a while.
            await asyncio.to_thread(change, kind, codespace, **options)
        except EmulatorError as error:
            self.set_status(422)
            self.finish({"message": str(error)})
        else:
            self.finish(status_json(self.emulator))

    def _check_codespace(self, name: str | None) -> None:
        known = self.emulator.account.codespaces
        if name is not None and name not in known:
            raise EmulatorError(f"There is no codespace {name!r}. The emulated account has: {', '.join(known)}.")


CONTROL_ROUTES: list[tuple[str, type[_ControlHandler]]] = [
    (r"/_emulator/status", StatusHandler),
    (r"/_emulator/stop", StopHandler),
    (r"/_emulator/faults", FaultsHandler),
]


def status_json(emulator: Emulator) -> Json:
    """Give what an emulator has and does, for `emulator status --json`; no secret is in it."""
    account = emulator.account
    codespaces = [codespace_json(codespace, emulator.api_url) for codespace in account.codespaces.values()]
    return {
        "api_url": emulator.api_url,
        "pid": emulator.record.pid,
        "folder": emulator.record.folder,
        "login": account.user.login,
        "repositories": [repository.full_name for repository in account.repositories.values()],
        "codespaces": [
            {**{name: codespace[name] for name in _SHOWN}, "repository": codespace["repository"]["full_name"]}
            for codespace in codespaces
        ],
        "faults": [fault.to_json() for fault in emulator.faults],
        "relay_connections": emulator.tunnels.relay_connections,
    }


class ControlClient:
    """Speaks to the control endpoint of a running emulator.

    Args:
        record: What its state file says.
    """

    def __init__(self, record: EmulatorRecord) -> None:
        self.record = record

    def status(self) -> Json:
        """Give what the emulator has and does (see `status_json`)."""
        return self._request("GET", "status")

    def stop(self) -> None:
        """Ask the emulator to end; it may take a while after this returns."""
        self._request("POST", "stop")

    def set_fault(self, kind: str, codespace: str | None, options: Mapping[str, OptionValue]) -> Json:
        """Set a fault as `FaultBoard.set` does; gives the new status."""
        return self._request("POST", "faults", body={"kind": kind, "codespace": codespace, "options": dict(options)})

    def clear_faults(self, kind: str | None, codespace: str | None) -> Json:
        """Clear faults as `FaultBoard.clear` does; gives the new status."""
        query = {name: value for name, value in (("kind", kind), ("codespace", codespace)) if value}
        return self._request("DELETE", "faults", query=query)

    def _request(self, method: str, path: str, *, body: Json | None = None, query: Json | None = None) -> Json:
        try:
            # A proxy of the environment has no business between two processes of one machine.
            with httpx.Client(trust_env=False, timeout=ANSWER_SECONDS, verify=_NO_TLS) as client:
                answer = client.request(
                    method,
                    f"{self.record.api_url}/_emulator/{path}",
                    json=body,
                    params=query,
                    headers={"Authorization": f"Bearer {self.record.secret}"},
                )
                data: Json = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EmulatorError(
                f"The emulator at {self.record.api_url} does not answer ({type(error).__name__}). "
                "End it with `codespace-kernels emulator stop`."
            ) from None
        if answer.is_error:
            raise EmulatorError(str(data.get("message", f"The emulator refused with status {answer.status_code}.")))
        return data
