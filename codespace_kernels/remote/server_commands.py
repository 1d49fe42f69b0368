"""The commands of the link, as the server does them."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import weakref
from importlib.metadata import version
from typing import Any, Awaitable, Callable, Dict, List, Optional, Set, Tuple

from .. import __version__
from .answers import Answer, Answers
from .kernels import CommandError, Kernels
from .versions import versions_of
from .watch import KernelWatch

log = logging.getLogger(__name__)

MAX_RESOURCE = 1 << 20
"""Bytes of a kernelspec's logo that are passed on; a larger file is left out."""


class ServerCommands:
    """Does what clients ask for and keeps count of who has which kernel open.

    Args:
        kernels: The lifecycle.
        write: Sends a record and raw parts to the child.
        server_info: Gives what `server_info` tells beside versions.
        stop: Ends the server.
    """

    def __init__(
        self,
        kernels: Kernels,
        write: Callable[..., None],
        server_info: Callable[[], Dict[str, Any]],
        stop: Callable[[], None],
    ) -> None:
        self.watch = KernelWatch(kernels, self._tell, self._start_again)
        self._kernels = kernels
        self._write = write
        self._server_info = server_info
        self._stop = stop
        self._answers = Answers(self._do)
        self._open: Dict[str, Set[Tuple[str, int]]] = {}
        self._tasks: Set["asyncio.Task[None]"] = set()
        self._locks: "weakref.WeakValueDictionary[str, asyncio.Lock]" = weakref.WeakValueDictionary()
        self._commands: Dict[str, Callable[[Dict[str, Any]], Awaitable[Answer]]] = {
            "start": self._start,
            "attach": self._attach,
            "interrupt": self._interrupt,
            "restart": self._restart,
            "shutdown": self._shutdown,
            "kernels": self._list_kernels,
            "kernelspecs": self._list_specs,
            "server_info": self._info,
            "shutdown_server": self._shutdown_server,
        }

    # -- records from the child ---------------------------------------------------------------------------------------

    def received(self, record: Dict[str, Any]) -> None:
        """Take a record that is a client's request or an observation of kernels."""
        if "state" in record:
            self._kernels.observed(record["kernel_id"], record["state"], record["request"])
        elif "ready" in record:
            self._kernels.answered(record["ready"])
        elif "taken" in record:
            self._kernels.end_without_port(record["taken"], record["port"])
        elif "active" in record:
            for kernel_id in record["active"]:
                self._kernels.touch(kernel_id)
        elif _is_request(record["request"]):
            self._request(record["client"], record["request"])
        else:
            log.warning("dropped a request of client %s that is none", record["client"][:8])

    def child_replaced(self) -> None:
        """Forget which clients had which kernel open: the child that knew them is dead."""
        for kernel_id in list(self._open):
            for client, number in list(self._open[kernel_id]):
                self._closed(kernel_id, client, number)

    def _request(self, client: str, request: Dict[str, Any]) -> None:
        if request["do"] == "leave":
            self._answers.forget(client)
            self._leave(client)
        elif request["do"] == "detach":
            self._leave(client, request["number"])
        else:
            task = asyncio.ensure_future(self._answer(client, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, client: str, request: Dict[str, Any]) -> None:
        record: Dict[str, Any] = {"client": client}
        raw: List[bytes] = []
        number = request.get("number")
        try:
            result, raw = await self._answers.to(client, request)
            if number is not None:
                record["open"] = self._opened(client, number, request.get("kernel_id", ""))
            record["answer"] = {"id": request["id"], "ok": result}
        except CommandError as error:
            record["answer"] = {"id": request["id"], "error": {"type": error.kind, "message": str(error)}}
            if number is not None:
                record["refused"] = number
        self._write(record, raw)

    async def _do(self, request: Dict[str, Any]) -> Answer:
        command = self._commands.get(request["do"])
        if command is None:
            raise CommandError("LinkError", "The server in the workspace does not know the command %r." % request["do"])
        try:
            return await command(request)
        except CommandError:
            raise
        except Exception as error:
            log.exception("command %s failed", request["do"])
            text = "The Jupyter server failed at %r: %s: %s" % (request["do"], type(error).__name__, error)
            raise CommandError("RemoteServerError", text) from error

    # -- who has what open --------------------------------------------------------------------------------------------

    def _opened(self, client: str, number: int, kernel_id: str) -> Dict[str, Any]:
        holders = self._open.setdefault(kernel_id, set())
        if (client, number) not in holders:
            holders.add((client, number))
            self._kernels.connected(kernel_id)
        self._kernels.take_over_activity(kernel_id)
        self.watch.add(kernel_id)
        return {"number": number, "kernel_id": kernel_id, "info": self._kernels.connection_info(kernel_id)}

    def _leave(self, client: str, number: Optional[int] = None) -> None:
        for kernel_id, holders in list(self._open.items()):
            for holder in list(holders):
                if holder[0] == client and number in (None, holder[1]):
                    self._closed(kernel_id, *holder)

    def _closed(self, kernel_id: str, client: str, number: int) -> None:
        holders = self._open[kernel_id]
        holders.discard((client, number))
        self._kernels.disconnected(kernel_id)
        if not holders:
            del self._open[kernel_id]
            self.watch.remove(kernel_id)
            self._kernels.give_back_activity(kernel_id)

    def _tell(self, event: Dict[str, Any], info: Optional[Dict[str, Any]] = None) -> None:
        if event["event"] == "ended":
            self._open.pop(event["kernel_id"], None)
        if info is not None:
            event = {**event, **_signing(info)}
        self._write({"event": event, "info": info})

    # -- commands -----------------------------------------------------------------------------------------------------

    def _one_change_of(self, kernel_id: str) -> asyncio.Lock:
        """Give what holds back a change of a kernel until the one that was asked for before is done.

        Commands that waited for a connection come at once, and a kernel that is ended while it restarts would live on.
        """
        return self._locks.setdefault(kernel_id, asyncio.Lock())

    async def _start(self, request: Dict[str, Any]) -> Answer:
        async with self._one_change_of(request["kernel_id"]):
            return await self._start_now(request)

    async def _start_now(self, request: Dict[str, Any]) -> Answer:
        kernel_id = request["kernel_id"]
        folder = request.get("cwd") or self._kernels.folder_or_root(request.get("folder", ""))
        await self._kernels.start(kernel_id, request["name"], folder, request.get("env", {}))
        if request.get("number") is None and kernel_id not in self._open:
            self._kernels.give_back_activity(kernel_id)
        return self._describe(kernel_id), []

    async def _start_again(self, kernel_id: str) -> None:
        """Start a kernel anew whose process ended before it could be given anything: nothing is lost by that."""
        self.watch.begin_change(kernel_id)
        try:
            await self._kernels.start_again(kernel_id)
        finally:
            self.watch.end_change(kernel_id)
        for _ in self._open.get(kernel_id, ()):
            self._kernels.connected(kernel_id)
        self._kernels.take_over_activity(kernel_id)
        self._tell(
            {"event": "restarted", "kernel_id": kernel_id, "reason": ""}, self._kernels.connection_info(kernel_id)
        )

    async def _attach(self, request: Dict[str, Any]) -> Answer:
        kernel_id = request["kernel_id"]
        self._kernels.get(kernel_id)
        if not await self._kernels.is_alive(kernel_id) and not self._kernels.in_transition(kernel_id):
            raise CommandError("KernelNotFoundError", await self._kernels.describe_end(kernel_id))
        return self._describe(kernel_id), []

    def _describe(self, kernel_id: str) -> Dict[str, Any]:
        return {"kernel_id": kernel_id, **_signing(self._kernels.connection_info(kernel_id))}

    async def _interrupt(self, request: Dict[str, Any]) -> Answer:
        await self._kernels.interrupt(request["kernel_id"])
        return {}, []

    async def _restart(self, request: Dict[str, Any]) -> Answer:
        async with self._one_change_of(request["kernel_id"]):
            return await self._restart_now(request["kernel_id"])

    async def _restart_now(self, kernel_id: str) -> Answer:
        self._kernels.get(kernel_id)
        self.watch.begin_change(kernel_id)
        self._tell({"event": "restarting", "kernel_id": kernel_id, "reason": ""})
        try:
            await self._kernels.restart(kernel_id)
        finally:
            self.watch.end_change(kernel_id)
        self._kernels.take_over_activity(kernel_id)
        info = self._kernels.connection_info(kernel_id)
        self._tell({"event": "restarted", "kernel_id": kernel_id, "reason": ""}, info)
        return self._describe(kernel_id), []

    async def _shutdown(self, request: Dict[str, Any]) -> Answer:
        async with self._one_change_of(request["kernel_id"]):
            return await self._shutdown_now(request["kernel_id"])

    async def _shutdown_now(self, kernel_id: str) -> Answer:
        self.watch.begin_change(kernel_id)
        try:
            await self._kernels.shutdown(kernel_id)
        finally:
            self.watch.end_change(kernel_id)
        self.watch.remove(kernel_id)
        self._tell({"event": "ended", "kernel_id": kernel_id, "reason": "The kernel was shut down."})
        return {}, []

    async def _list_kernels(self, request: Dict[str, Any]) -> Answer:
        return {"kernels": self._kernels.list()}, []

    async def _list_specs(self, request: Dict[str, Any]) -> Answer:
        specs: Dict[str, Any] = {}
        raw: List[bytes] = []
        entries = self._kernels.specs()
        known = await versions_of({name: entry["spec"] for name, entry in entries.items()})
        for name, entry in entries.items():
            resources = _read_resources(entry["resource_dir"])
            specs[name] = {
                **_public(entry["spec"]),
                "versions": known.get(name, {}),
                "resources": sorted(resources),
            }
            raw += [resources[key] for key in sorted(resources)]
        return {"kernelspecs": specs}, raw

    async def _info(self, request: Dict[str, Any]) -> Answer:
        return {**versions(), **self._server_info()}, []

    async def _shutdown_server(self, request: Dict[str, Any]) -> Answer:
        # The answer has to be on its way before the server, and with it the child, goes.
        asyncio.get_event_loop().call_later(0.2, self._stop)
        return {}, []


def _is_request(request: Dict[str, Any]) -> bool:
    """Whether the fields that every command has are there; what else one needs, it says when it is done."""
    if not isinstance(request.get("do"), str) or type(request.get("number", 0)) is not int:
        return False
    if request["do"] in ("leave", "detach"):
        return request["do"] == "leave" or "number" in request
    return type(request.get("id")) is int and isinstance(request.get("kernel_id", ""), str)


def versions() -> Dict[str, str]:
    """Give what runs here."""
    return {
        "software": __version__,
        "python": sys.executable,
        "python_version": platform.python_version(),
        "jupyter_server": version("jupyter_server"),
        "jupyter_client": version("jupyter_client"),
    }


def _signing(info: Dict[str, Any]) -> Dict[str, str]:
    return {"key": info["key"], "signature_scheme": info["signature_scheme"]}


def _public(spec: Dict[str, Any]) -> Dict[str, Any]:
    names = ("display_name", "language", "interrupt_mode", "metadata")
    return {name: spec.get(name) for name in names}


def _read_resources(folder: str) -> Dict[str, bytes]:
    """Read the logos of a kernelspec; what cannot be read is left out."""
    found: Dict[str, bytes] = {}
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith("logo-") and os.path.isfile(path) and os.path.getsize(path) <= MAX_RESOURCE:
            with open(path, "rb") as file:
                found[name] = file.read()
    return found
