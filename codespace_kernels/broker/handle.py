"""A front end's hold on a kernel: one open request to the broker, read by a thread.

A thread, because a kernel manager may be used from a script whose event loop turns only inside calls.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import logging
import threading
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient, check, events, hang_up, read_json, send
from codespace_kernels.broker.protocol import SHUT_DOWN
from codespace_kernels.errors import BrokerError, CodespaceKernelsError, KernelError, error_from_json
from codespace_kernels.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from codespace_kernels.broker.protocol import KernelRequest

log = logging.getLogger(__name__)


class KernelHandle:
    """One kernel, held.

    Args:
        request: What is wanted.
        progress: Called on the handle's thread.
        client: Of the broker; by default this user's.

    Attributes:
        bound: Done with the connection info as soon as the local sockets listen.
        ready: Done with the connection info when the remote kernel runs; carries the error when it does not start.
        ended: Done with the reason (a sentence) when the kernel is dead or the broker is gone.
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
        self._client.call("POST", f"kernels/{self.kernel_id}/{name}", {}, timeout=timeout)

    def _run(self) -> None:
        try:
            self._client.ensure()
            self._read()
            self._fail(BrokerError("The broker ended. Restart the kernel; the reason is in the broker's log."))
        except CodespaceKernelsError as error:
            self._fail(error)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            # Closing the socket from another thread ends the read with one of several errors.
            log.debug("handle ended", exc_info=True)
            self._fail(BrokerError(f"The connection to the broker was lost ({error!r}). Restart the kernel."))

    def _read(self) -> None:
        connection = self._client.connect(None)
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._connection = connection
        try:
            response = send(connection, "POST", "kernels", self._request.to_json())
            if response.status != 200:
                check(response.status, read_json(response))
            for event in events(response):
                self._take(event)
        finally:
            connection.close()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            self._progress(ProgressEvent.from_json(event["progress"]))
        elif kind == "bound":
            self.kernel_id = str(event["kernel_id"])
            self.bound.set_result(event["connection_info"])
        elif kind == "ready":
            # A second one: the kernel was restarted, by this handle or through another way to the broker.
            if self.ready.done():
                self._revive()
            else:
                self.ready.set_result(event["connection_info"])
        elif kind == "error":
            raise error_from_json(event["error"])
        elif kind == "dead":
            reason = str(event["reason"])
            if reason != SHUT_DOWN:
                # Kernel managers say only that it died.
                log.warning("%s", reason)
            self._dead.set()
            if not self.ended.done():
                self.ended.set_result(reason)
        elif kind == "notice":
            log.warning("%s", event["message"])

    def _fail(self, error: CodespaceKernelsError) -> None:
        self._dead.set()
        for future in (self.bound, self.ready):
            if not future.done():
                future.set_exception(error)
        if not self.ended.done():
            self.ended.set_result(str(error))
