"""One stream of the link at the workspace's end: the descriptors that a splice passed."""

from __future__ import annotations

import array
import os
import socket
from typing import Callable, List, Optional

from .reactor import Reactor

_READ = 65536
"""As much as a pipe holds."""


class LinkStream:
    """Reads and writes a splice's stdin and stdout without ever blocking.

    Args:
        reactor: The loop.
        control: The splice's connection. When either side closes it, the other one ends.
        received: Called with bytes as they came.
        lost: Called once, when the stream broke or ended; not after `close`.
    """

    def __init__(
        self,
        reactor: Reactor,
        control: socket.socket,
        received: Callable[[LinkStream, bytes], None],
        lost: Callable[[LinkStream], None],
    ) -> None:
        self._reactor = reactor
        self._control = control
        self._received = received
        self._lost = lost
        self._descriptors: List[int] = []
        self._pending: Optional[memoryview] = None
        self.closed = False
        control.setblocking(False)
        reactor.add_reader(control.fileno(), self._control_readable)

    @property
    def writable(self) -> bool:
        """Whether `write` would take more now."""
        return bool(self._descriptors) and self._pending is None and not self.closed

    def write(self, data: bytes) -> None:
        """Write as much as fits; the rest follows by itself, `writable` is false meanwhile."""
        self._pending = memoryview(data)
        self._flush()

    def close(self) -> None:
        """Close the descriptors, and by that the splice and the channel. Closing twice is no error."""
        if self.closed:
            return
        self.closed = True
        self._reactor.remove(self._control.fileno())
        for descriptor in self._descriptors:
            self._reactor.remove(descriptor)
            os.close(descriptor)
        self._descriptors.clear()
        self._control.close()

    def _end(self) -> None:
        if not self.closed:
            self.close()
            self._lost(self)

    def _control_readable(self) -> None:
        """Take the descriptors; anything after them can only be the splice's end."""
        passed = array.array("i")
        try:
            _, ancillary, _, _ = self._control.recvmsg(1, socket.CMSG_SPACE(2 * passed.itemsize))
        except BlockingIOError:
            return
        except OSError:
            ancillary = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                passed.frombytes(data[: len(data) - len(data) % passed.itemsize])
        self._descriptors += passed
        if len(passed) != 2:
            self._end()
            return
        for descriptor in passed:
            os.set_blocking(descriptor, False)
        self._reactor.add_reader(passed[0], self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptors[0], _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received(self, data)
        else:
            self._end()

    def _flush(self) -> None:
        if self._pending is None:
            return
        try:
            written = os.write(self._descriptors[1], self._pending)
        except BlockingIOError:
            written = 0
        except OSError:
            self._end()
            return
        if written < len(self._pending):
            self._pending = self._pending[written:]
            self._reactor.add_writer(self._descriptors[1], self._flush)
        else:
            self._pending = None
            self._reactor.remove_writer(self._descriptors[1])
