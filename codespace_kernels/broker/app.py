"""The broker's HTTP API (see `protocol`). `curl --unix-socket PATH http://localhost/v1/status` debugs it.

Where it listens on a port, a `Guard` looks at each request before anything else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import tornado.iostream
import tornado.web

from codespace_kernels.broker.loopback import NONCE_DIGITS, PROOF_PATH
from codespace_kernels.broker.protocol import API, Access, KernelRequest, as_known_error, json_object
from codespace_kernels.errors import BrokerError, CodespaceKernelsError, SettingsError
from codespace_kernels.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from codespace_kernels.broker.broker import Broker
    from codespace_kernels.broker.loopback import Guard
    from codespace_kernels.progress import Progress, ProgressEvent

log = logging.getLogger(__name__)

CLAIM_TIMEOUT = 20.0
"""Seconds that a command for a kernel of the last broker waits for its handle to come."""


def error_event(error: BaseException) -> dict[str, Any]:
    """Give the event that ends a stream."""
    return {"event": "error", "error": as_known_error(error).to_json()}


class ApiHandler(tornado.web.RequestHandler):
    """What all requests share: who may ask, JSON in, JSON out, errors as they were raised."""

    needs_secret = True

    def initialize(self, broker: Broker, guard: Guard | None) -> None:
        """Take the broker that the application serves, and who keeps strangers out."""
        self.broker = broker
        self.guard = guard
        self.gone = asyncio.Event()

    def prepare(self) -> None:
        """Refuse a stranger."""
        refusal = self.guard.refusal(self.request, with_secret=self.needs_secret) if self.guard else ""
        if refusal:
            self.set_status(403)
            self.finish({"error": BrokerError(refusal).to_json()})

    def on_connection_close(self) -> None:
        """Hear that the caller is gone."""
        self.gone.set()

    def body(self) -> dict[str, Any]:
        """Give the request's JSON object.

        Raises:
            SettingsError: It is none.
        """
        return json_object(self.request.body, "The broker expects a JSON object.")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the error that was raised; what is not ours is logged and named, not shown."""
        _, error, _ = kwargs.get("exc_info") or (None, None, None)
        if isinstance(error, CodespaceKernelsError):
            self.set_status(409)
            self.finish({"error": error.to_json()})
        elif isinstance(error, (KeyError, TypeError)):
            self.set_status(400)
            self.finish({"error": SettingsError(f"The request lacks or misspells {error}.").to_json()})
        else:
            foreign = error is not None and not isinstance(error, tornado.web.HTTPError)
            unknown = f"The broker has no such request ({self.request.method} {self.request.path})."
            text = f"The broker failed inside ({error!r}). Its log says more." if foreign else unknown
            self.finish({"error": BrokerError(text).to_json()})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Keep a traceback only of what is our own fault."""
        if not isinstance(value, (CodespaceKernelsError, tornado.web.HTTPError)):
            super().log_exception(typ, value, tb)

    async def emit(self, event: dict[str, Any]) -> None:
        """Write one event of a stream."""
        self.write(json.dumps(event) + "\n")
        try:
            await self.flush()
        except tornado.iostream.StreamClosedError:
            self.gone.set()


class UnknownHandler(ApiHandler):
    """Whatever this version does not know."""

    def prepare(self) -> None:
        """Refuse whom, then what we do not know."""
        super().prepare()
        if not self._finished:
            raise tornado.web.HTTPError(404)


class ProofHandler(ApiHandler):
    """`GET /proof/NONCE`: proves to a client that holds the secret that the broker does, before it sends it."""

    needs_secret = False

    def get(self, nonce: str) -> None:
        """Answer; where the operating system keeps strangers out there is nothing to prove."""
        if self.guard is None:
            raise tornado.web.HTTPError(404)
        self.finish(self.guard.proof(nonce))


class AboutHandler(ApiHandler):
    """`GET /v1/`: who answers."""

    def get(self) -> None:
        """Answer."""
        self.finish(self.broker.about())


class StatusHandler(ApiHandler):
    """`GET /v1/status`: connections and kernels."""

    def get(self) -> None:
        """Answer."""
        self.finish(self.broker.status())


class WatchHandler(ApiHandler):
    """`GET /v1/watch`: the document of `status`, at once and again whenever it changed, one a line, without end."""

    async def get(self) -> None:
        """Write until the caller is gone. Not `in_use`: who only watches does not keep an idle broker."""
        work = asyncio.create_task(self._write_documents())
        gone = asyncio.create_task(self.gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()

    async def _write_documents(self) -> None:
        async with contextlib.aclosing(self.broker.watchers.documents()) as documents:
            async for document in documents:
                await self.emit(document)


class QuitHandler(ApiHandler):
    """`POST /v1/quit`: end every kernel and connection, and the broker."""

    def post(self) -> None:
        """Answer, then leave."""
        self.broker.idle.set()
        self.finish(self.broker.about())


class HandoverHandler(ApiHandler):
    """`POST /v1/handover`: end the broker and no kernel: another one, of a newer version, takes them."""

    def post(self) -> None:
        """Answer, then leave."""
        self.broker.hand_over()
        self.finish(self.broker.about())


class WorkspaceHandler(ApiHandler):
    """`POST /v1/workspaces/connect` and `…/find` (streams), `POST /v1/workspaces/disconnect` and `…/stop`.

    Each takes `access`, all but `find` a `workspace`. `stop` refuses, naming the kernels that would end, unless
    `end_kernels` says that they may.
    """

    async def post(self, action: str) -> None:
        """Answer."""
        body = self.body()
        access = Access.from_json(body["access"])
        with self.broker.in_use():
            if action == "disconnect":
                self.finish(await self.broker.disconnect(access, str(body["workspace"])))
            elif action == "stop":
                may_end = body.get("end_kernels") is True
                self.finish(await self.broker.stop(access, str(body["workspace"]), end_kernels=may_end))
            elif action == "find":
                recipe = Recipe.from_json(body["recipe"])
                create, join = bool(body.get("create")), bool(body.get("join"))
                await self._stream(
                    lambda report: self.broker.find(access, recipe, create=create, join=join, progress=report)
                )
            else:
                await self._connect(access, str(body["workspace"]), body)

    async def _connect(self, access: Access, name: str, body: dict[str, Any]) -> None:
        start, install = bool(body.get("start", True)), str(body.get("install_ipykernel") or "")
        await self._stream(
            lambda report: self.broker.connect(access, name, start=start, install_ipykernel=install, progress=report)
        )

    async def _stream(self, make: Callable[[Progress], Coroutine[Any, Any, dict[str, Any]]]) -> None:
        """Do long work; write its progress and its result."""
        progress: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        def report(event: ProgressEvent) -> None:
            progress.put_nowait({"event": "progress", "progress": event.to_json()})

        work = asyncio.create_task(make(report))
        await self._relay(progress, work)
        if not self.gone.is_set():
            failure = work.exception()
            await self.emit(error_event(failure) if failure else {"event": "result", "result": work.result()})

    async def _relay(self, queue: asyncio.Queue[dict[str, Any]], work: asyncio.Task[Any]) -> None:
        """Write events until the work is done, or cancel it when the caller is gone."""
        gone = asyncio.create_task(self.gone.wait())
        work.add_done_callback(lambda _: queue.put_nowait({}))
        try:
            while not (work.done() and queue.empty()):
                take = asyncio.create_task(queue.get())
                done, _ = await asyncio.wait({take, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone in done:
                    take.cancel()
                    work.cancel()
                    return
                if event := take.result():
                    await self.emit(event)
        finally:
            gone.cancel()


class KernelsHandler(ApiHandler):
    """`POST /v1/kernels`: the handle. `GET /v1/kernels`: the list."""

    def get(self) -> None:
        """Answer with the list."""
        self.finish({"kernels": self.broker.status()["kernels"]})

    async def post(self) -> None:
        """Hold a kernel until the caller goes."""
        request = KernelRequest.from_json(self.body())
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        with self.broker.in_use():
            if request.resume:
                kernel, unclaimed = self.broker.take_back(request, queue.put_nowait)
                beginning = kernel.resume(unclaimed)
            else:
                kernel = self.broker.add_kernel(request, queue.put_nowait)
                beginning = kernel.start()
            start = asyncio.create_task(self._start(beginning, queue))
            try:
                await self._write_events(queue)
            finally:
                start.cancel()
                await asyncio.gather(start, return_exceptions=True)
                if not self.broker.hands_over:
                    await self.broker.remove_kernel(kernel)

    async def _start(self, beginning: Coroutine[Any, Any, None], queue: asyncio.Queue[dict[str, Any]]) -> None:
        try:
            await beginning
        except Exception as error:  # whatever it is, the front end must hear of it
            # Of a broker that leaves it hears nothing: the next one takes the kernel.
            if not self.broker.hands_over:
                queue.put_nowait(error_event(error))

    async def _write_events(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        gone = asyncio.create_task(self.gone.wait())
        try:
            while True:
                take = asyncio.create_task(queue.get())
                done, _ = await asyncio.wait({take, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone in done:
                    take.cancel()
                    return
                event = take.result()
                await self.emit(event)
                if event["event"] in {"error", "end"}:
                    return
        finally:
            gone.cancel()


class KernelActionHandler(ApiHandler):
    """`POST /v1/kernels/ID/interrupt|restart|shutdown`."""

    async def post(self, kernel_id: str, action: str) -> None:
        """Do it; answer when it is done."""
        with self.broker.in_use():
            await self.broker.recovery.until_claimed(kernel_id, CLAIM_TIMEOUT)
            if action == "shutdown":
                self.finish(await self.broker.end_kernel(kernel_id))
                return
            kernel = self.broker.kernel(kernel_id)
            await (kernel.interrupt() if action == "interrupt" else kernel.restart())
        self.finish(kernel.to_json())


class KernelConnectionHandler(ApiHandler):
    """`GET /v1/kernels/ID/connection`: what a connection file of a held kernel says, for one more client of it."""

    def get(self, kernel_id: str) -> None:
        """Answer."""
        self.finish(self.broker.kernel(kernel_id).connection_info())


def make_app(broker: Broker, guard: Guard | None = None) -> tornado.web.Application:
    """Give the application that serves a broker.

    Args:
        broker: The broker.
        guard: Who keeps strangers out; None where the operating system does.
    """
    context = {"broker": broker, "guard": guard}
    return tornado.web.Application(
        [
            (f"{PROOF_PATH}([0-9a-f]{{{NONCE_DIGITS}}})", ProofHandler, context),
            (f"/{API}/?", AboutHandler, context),
            (f"/{API}/status", StatusHandler, context),
            (f"/{API}/watch", WatchHandler, context),
            (f"/{API}/quit", QuitHandler, context),
            (f"/{API}/handover", HandoverHandler, context),
            (f"/{API}/workspaces/(connect|disconnect|find|stop)", WorkspaceHandler, context),
            (f"/{API}/kernels", KernelsHandler, context),
            (f"/{API}/kernels/([0-9a-f-]+)/(interrupt|restart|shutdown)", KernelActionHandler, context),
            (f"/{API}/kernels/([0-9a-f-]+)/connection", KernelConnectionHandler, context),
        ],
        default_handler_class=UnknownHandler,
        default_handler_args=context,
        log_function=lambda handler: log.debug(
            "%s %s: %s", handler.request.method, handler.request.path, handler.get_status()
        ),
    )
