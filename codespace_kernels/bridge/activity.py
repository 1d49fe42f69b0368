"""What a kernel is doing, learnt from the messages that pass."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from codespace_kernels.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_GRACE = 30.0
"""Seconds without any iopub message after which an answered request counts as done although its `idle` never came."""


_UNHEARD = 256
"""Answered requests of which nothing was published that are remembered: some kernels say nothing of some."""

_EXECUTION = b'"execute_request"'
_COMM = b'"comm_msg"'


def is_request(header: bytes) -> bool:
    """Tell whether a message with this header has a reply: what a widget sends (`comm_msg`) has none."""
    return b'_request"' in header


class Activity:
    """Follows requests from their arrival to their reply and idle.

    A kernel is busy while any request is: a debugger's request on the control channel that ends must not make a running
    cell look done. A kernel's own publisher, and stock Jupyter servers, may lose messages in a burst, the closing
    `idle` included (measured); clients would wait for it for ever, and the codespace would be kept awake.

    Args:
        state_changed: Called with each new execution state.
        idle_lost: Called with the header of an answered request whose `idle` never came.
        is_receiving: Tells whether a message of the kernel is coming: a large one takes long, its reply does not.
        idle_grace: Seconds, see `IDLE_GRACE`.
        begun: Called with id and header of each request that the kernel begins with, before clients hear of it.
        finished: Called with the id of each request that the kernel is done with, before clients hear of it.
    """

    def __init__(
        self,
        state_changed: Callable[[str], None],
        idle_lost: Callable[[bytes], None],
        is_receiving: Callable[[], bool] = lambda: False,
        *,
        idle_grace: float = IDLE_GRACE,
        begun: Callable[[str, bytes], None] = lambda _request, _header: None,
        finished: Callable[[str], None] = lambda _request: None,
    ) -> None:
        self.state = "starting"
        self.pending: dict[str, bytes] = {}
        self._state_changed = state_changed
        self._idle_lost = idle_lost
        self.is_receiving = is_receiving
        self._idle_grace = idle_grace
        self._begun = begun
        self._finished = finished
        self._busy: dict[str, bytes] = {}
        self._answered: set[str] = set()
        self._unheard: dict[str, bytes] = {}
        self._over: set[str] = set()
        self._connected = True
        self._unknown = False
        self._last_published = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unfinished(self) -> set[str]:
        """Ids of the requests that the kernel is working on, or has not answered yet."""
        return set(self._open)

    @property
    def running(self) -> list[bytes]:
        """Headers of the requests that the kernel is working on."""
        return [header for msg_id, header in self._busy.items() if msg_id]

    @property
    def busy(self) -> dict[str, bytes]:
        """Headers by id of what the kernel has begun or answered, and has not said to be done with."""
        return {msg_id: header for msg_id, header in {**self._unheard, **self._busy}.items() if msg_id}

    @property
    def open_requests(self) -> list[bytes]:
        """Headers of the requests that the kernel is working on or has not answered yet, or of which more is due."""
        return list({**self._unheard, **self._open}.values())

    @property
    def _open(self) -> dict[str, bytes]:
        return {msg_id: header for msg_id, header in {**self.pending, **self._busy}.items() if msg_id}

    @property
    def running_executions(self) -> list[bytes]:
        """Headers of the executions that the kernel has begun; where it has begun none, of the first one that waits."""
        running = [header for header in self._busy.values() if _EXECUTION in header]
        return running or [header for header in self.pending.values() if _EXECUTION in header][:1]

    @property
    def at_work(self) -> bool:
        """Whether the kernel does what a person asked for: front ends ask for other things by themselves."""
        return any(_EXECUTION in header or _COMM in header for header in self._busy.values())

    def requested(self, msg_id: str, msg_type: str, header: bytes) -> None:
        """Note a request on its way to the kernel; what has no reply (`comm_msg`) is not waited for."""
        if msg_type.endswith("_request"):
            self.pending[msg_id] = header

    def forgotten(self, msg_id: str) -> None:
        """Note that a request will never reach the kernel."""
        self.pending.pop(msg_id, None)
        self._over.discard(msg_id)

    def replied(self, message: Message) -> None:
        """Note a reply on shell or control."""
        msg_id = str(message.parent_dict().get("msg_id", ""))
        header = self.pending.pop(msg_id, None)
        if msg_id in self._over:
            self._over.discard(msg_id)
            return
        if msg_id not in self._busy:
            if header is None:
                return
            # The reply has overtaken what was published: none of that has come yet.
            self._unheard[msg_id] = header
            if len(self._unheard) > _UNHEARD:
                self._done(next(iter(self._unheard)))
        self._answered.add(msg_id)
        self._watch()

    def published(self, message: Message) -> bool:
        """Note a message on iopub; false where it must not reach clients.

        VS Code opens a socket that is never completed when it hears `restarting`, and gives the kernel up when it hears
        `dead`. Only servers make such messages, not kernels; what they tell comes as `KernelState`.
        """
        self._last_published = time.monotonic()
        if b'"status"' not in message.header or message.header_dict().get("msg_type") != "status":
            return True
        state = str(message.content_dict().get("execution_state", ""))
        if state in ("restarting", "dead"):
            return False
        parent_id = str(message.parent_dict().get("msg_id", ""))
        if state == "busy":
            self._busy[parent_id] = message.parent
            self._unheard.pop(parent_id, None)
            self._begun(parent_id, message.parent)
        elif state == "idle":
            self._done(parent_id)
            if parent_id in self.pending:
                self._over.add(parent_id)
        else:
            self._busy.clear()
        self._set("busy" if self._busy or self._unknown else state)
        return True

    def reset(self, state: str) -> None:
        """Forget all requests: the process that had them is gone."""
        self.pending.clear()
        self._answered.clear()
        self._unheard.clear()
        self._over.clear()
        self._busy.clear()
        self._unknown = False
        self._set(state)

    def connected(self, connected: bool) -> None:
        """Note whether the way to the kernel is whole; while it is not, a missing `idle` means nothing."""
        self._connected = connected
        self._last_published = time.monotonic()

    def revived(self) -> None:
        """Note that there is a living kernel again."""
        if self.state == "dead":
            self._set("starting")

    def restore(self, msg_id: str, header: bytes, *, is_answered: bool, is_idle: bool) -> None:
        """Take over a request that another process handed to the kernel, in the order of their coming.

        Args:
            msg_id: Its id.
            header: Its header.
            is_answered: Whether it was replied to.
            is_idle: Whether the kernel is done with it.
        """
        if is_idle:
            if not is_answered:
                self.pending[msg_id] = header
                self._over.add(msg_id)
            return
        if not is_request(header):
            # It is known because the kernel has begun with it, and may take its time.
            self._busy[msg_id] = header
            return
        if is_answered:
            # Of what is no cell a kernel may say nothing at all.
            (self._busy if _EXECUTION in header else self._unheard)[msg_id] = header
            self._answered.add(msg_id)
            self._watch()
            return
        runs = any(_EXECUTION in known for known in (*self.pending.values(), *self._busy.values()))
        self.pending[msg_id] = header
        if _EXECUTION in header and not runs:
            # The kernel works on the first one, and has said so to the process that is gone.
            self._busy[msg_id] = header

    def begin_unknown(self) -> None:
        """Take the kernel for busy, since nobody knows with what."""
        self._unknown = True
        self._set("busy")

    def end_unknown(self) -> None:
        """Know again what the kernel does."""
        self._unknown = False
        if self.state == "busy" and not self._busy:
            self._set("idle")

    def is_busy_with(self, msg_id: str) -> bool:
        """Tell whether the kernel has begun or answered a request, and is still to say that it is done with it."""
        return msg_id in self._busy or msg_id in self._unheard

    def take_over(self, other: Activity) -> None:
        """Go on from what another one knows of the same kernel."""
        self.pending.update(other.pending)
        self._busy.update(other._busy)
        self._answered |= other._answered
        self._unheard.update(other._unheard)
        self._over |= other._over
        self._set(other.state)
        if self._answered:
            self._watch()

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _done(self, msg_id: str) -> None:
        self._busy.pop(msg_id, None)
        self._unheard.pop(msg_id, None)
        self._answered.discard(msg_id)
        self._finished(msg_id)

    def _set(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._state_changed(state)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_grace, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._answered:
            return
        if self.is_receiving():
            self._last_published = time.monotonic()
        if self._connected and time.monotonic() - self._last_published >= self._idle_grace:
            self._give_up_idle()
        else:
            self._watch()

    def _give_up_idle(self) -> None:
        for msg_id in list(self._answered):
            header = self._busy.get(msg_id) or self._unheard[msg_id]
            begun = msg_id in self._busy
            self._done(msg_id)
            # Of what is no cell a kernel may say nothing at all.
            if begun or _EXECUTION in header:
                self._idle_lost(header)
        if not self._busy and not self._unknown:
            self._set("idle")
