"""A front end's hold on a kernel: one open request to the broker, read by a thread.

A thread, because a kernel manager may be used from a script whose event loop turns only inside calls.

A request that ends without a word is that of a broker that died. The next one, which the handle starts, takes the
kernel back behind the same local ports; front ends notice nothing.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient, BrokerGoneError, check, events, hang_up, read_json, send
from codespace_kernels.broker.protocol import SHUT_DOWN
from codespace_kernels.errors import (
    BrokerError,
    CodespaceKernelsError,
    KernelError,
    KernelNotFoundError,
    WaitTimeoutError,
    error_from_json,
)
from codespace_kernels.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from codespace_kernels.broker.protocol import KernelRequest

log = logging.getLogger(__name__)

RESUME_SECONDS = 60.0
"""How long a broker may be missing: then the kernel counts as dead."""

_RETRY_SECONDS = 0.5
"""Between two tries to have another broker."""


class KernelHandle:
    """One kernel, held.

    Args:
        request: What is wanted.
        progress: Called on the handle's thread.
        client: Of the broker; by default this user's.

    Attributes:
        bound: Done with the connection info as soon as the local sockets listen.
        ready: Done with the connection info when the remote kernel runs; carries the error when it does not start.
        ended: Done with the reason (a sentence) when the kernel is dead, or no broker could take it back.
    """

    def __init__(self, request: KernelRequest, progress: Progress = silent, client: BrokerClient | None = None) -> None:
        self.bound: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        self.ready: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[str] = concurrent.futures.Future()
        self.kernel_id = ""
        self._request = request
        self._progress = progress
        self._client = client or BrokerClient()
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._dead = threading.Event()
        self._brokers = 0
        self._heard = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="kernel-handle", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the kernel is thought to run: ready, and neither dead nor let go."""
        return self.ready.done() and self.ready.exception() is None and not self._dead.is_set() and not self._closed

    def interrupt(self) -> None:
        """Interrupt the kernel. Blocks until it was done; raises as the broker does."""
        self._command("interrupt")

    def restart(self) -> None:
        """Replace the kernel's process; the local ports stay. Blocks until the new one runs."""
        self._command("restart", timeout=300.0)
        self._revive()

    def _revive(self) -> None:
        with self._lock:
            self._dead.clear()
            if self.ended.done():
                self.ended = concurrent.futures.Future()

    def shutdown(self) -> None:
        """End the kernel. Blocks until it is gone."""
        self._command("shutdown", timeout=60.0)

    def close(self) -> None:
        """Let go: the broker then does with the kernel what its spec says. Closing twice is no error."""
        with self._lock:
            self._closed = True
            connection = self._connection
        hang_up(connection)

    def _command(self, name: str, timeout: float = 30.0) -> None:
        if not self.kernel_id:
            raise KernelError(f"Cannot {name} a kernel that has not started.")
        deadline = time.monotonic() + RESUME_SECONDS
        while True:
            broker = self._brokers
            try:
                self._client.call("POST", f"kernels/{self.kernel_id}/{name}", {}, timeout=timeout)
            except BrokerGoneError:
                # Done again where it was done already: that changes nothing more.
                self._wait_for_broker(broker, deadline)
            else:
                return

    def _wait_for_broker(self, before: int, deadline: float) -> None:
        """Wait until another broker has the kernel."""
        with self._changed:
            seconds = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: self._brokers != before or self.ended.done(), seconds):
                raise WaitTimeoutError.after("another broker", RESUME_SECONDS, "Look at `codespace-kernels status`.")
        if self.ended.done():
            raise BrokerError(self.ended.result())

    def _run(self) -> None:
        try:
            self._client.ensure()
            self._hold()
            self._fail(BrokerError("The front end let go of the kernel."))
        except CodespaceKernelsError as error:
            self._fail(error)
        except Exception as error:  # whatever it is, nobody else would tell the front end
            log.debug("handle ended", exc_info=True)
            self._fail(BrokerError(f"The connection to the broker was lost ({error!r}). Restart the kernel."))

    def _hold(self) -> None:
        """Read what one broker after the other says of the kernel."""
        deadline = time.monotonic() + RESUME_SECONDS
        while not self._closed:
            request = self._next_request()
            try:
                self._read(request)
            except KernelNotFoundError:
                if self.ready.done() or self._heard or not request.resume:
                    raise
                # The broker died before it wrote down that this kernel was to start.
                self.kernel_id = ""
                continue
            except (OSError, http.client.HTTPException, ValueError, BrokerGoneError) as error:
                log.debug("the broker's stream ended: %r", error)
            if self._heard:
                deadline = time.monotonic() + RESUME_SECONDS
            self._ensure_another(deadline)

    def _ensure_another(self, deadline: float) -> None:
        while not self._closed:
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"The broker ended, and no other one could take the kernel back within {RESUME_SECONDS:g} s. "
                    "Restart the kernel; the reason is in the broker's log."
                )
            try:
                self._client.ensure()
            except BrokerError as error:
                log.debug("no broker: %s", error)
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _next_request(self) -> KernelRequest:
        """Give the request for the next broker: for the kernel that was there, on the ports that it had."""
        request = self._request
        if self.bound.done() and self.bound.exception() is None:
            info = self.bound.result()
            ports = {name: info[name] for name in info if name.endswith("_port")}
            request = dataclasses.replace(request, ports=ports, key=info["key"], resume=self.kernel_id)
        return request

    def _read(self, request: KernelRequest) -> None:
        self._heard = False
        connection = self._client.connect(None)
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._connection = connection
        try:
            response = send(connection, "POST", "kernels", request.to_json())
            if response.status != 200:
                check(response.status, read_json(response))
            for event in events(response):
                self._heard = True
                self._take(event)
        finally:
            connection.close()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            self._progress(ProgressEvent.from_json(event["progress"]))
        elif kind == "bound":
            self._take_bound(event)
        elif kind == "ready":
            # A second one: the kernel was restarted, by this handle or through another way to the broker.
            if self.ready.done():
                self._revive()
            else:
                self.ready.set_result(event["connection_info"])
        elif kind == "error":
            raise error_from_json(event["error"])
        elif kind == "end":
            raise BrokerError(str(event["reason"]))
        elif kind == "dead":
            self._take_dead(str(event["reason"]))
        elif kind == "notice":
            log.warning("%s", event["message"])

    def _take_bound(self, event: dict[str, Any]) -> None:
        self.kernel_id = str(event["kernel_id"])
        if not self.bound.done():
            self.bound.set_result(event["connection_info"])
        with self._changed:
            self._brokers += 1
            self._changed.notify_all()

    def _take_dead(self, reason: str) -> None:
        if reason != SHUT_DOWN:
            # Kernel managers say only that it died.
            log.warning("%s", reason)
        self._dead.set()
        if not self.ended.done():
            self.ended.set_result(reason)

    def _fail(self, error: CodespaceKernelsError) -> None:
        self._dead.set()
        for future in (self.bound, self.ready):
            if not future.done():
                future.set_exception(error)
        if not self.ended.done():
            self.ended.set_result(str(error))
        with self._changed:
            self._changed.notify_all()
