"""Keeps what a kernel tells until somebody listens."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.messages import Channel, Message
    from codespace_kernels.remote_kernel import KernelState, RemoteKernelListener

_log = logging.getLogger(__name__)


class Mailbox:
    """A `RemoteKernelListener` in front of one that may come, go and be replaced; order is kept."""

    def __init__(self) -> None:
        self._listener: RemoteKernelListener | None = None
        self._waiting: collections.deque[Callable[[RemoteKernelListener], None]] = collections.deque()
        self._closed = False

    def listen(self, listener: RemoteKernelListener | None) -> None:
        """Set the listener, and hand over what it missed."""
        self._listener = listener
        while self._listener is not None and self._waiting:
            self._tell(self._listener, self._waiting.popleft())

    def close(self) -> None:
        """Tell nobody anything any more."""
        self._closed = True
        self._listener = None
        self._waiting.clear()

    def message_received(self, channel: Channel, message: Message) -> None:
        """See `RemoteKernelListener`."""
        self._post(lambda listener: listener.message_received(channel, message))

    def state_changed(self, state: KernelState, reason: str) -> None:
        """See `RemoteKernelListener`."""
        self._post(lambda listener: listener.state_changed(state, reason))

    def output_may_be_missing(self, reason: str) -> None:
        """See `RemoteKernelListener`."""
        self._post(lambda listener: listener.output_may_be_missing(reason))

    def _post(self, event: Callable[[RemoteKernelListener], None]) -> None:
        if self._listener is not None and not self._waiting:
            self._tell(self._listener, event)
        elif not self._closed:
            self._waiting.append(event)

    def _tell(self, listener: RemoteKernelListener, event: Callable[[RemoteKernelListener], None]) -> None:
        try:
            event(listener)
        except Exception:
            # A listener's fault must not end the connection.
            _log.exception("a message of a kernel was not handled")
