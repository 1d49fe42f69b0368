"""Reads a session's packets on the event loop, while paramiko's thread sleeps.

With the thread, each packet costs a switch to it, one back to the loop, and twice as many in SSH within SSH; beside a
busy loop each switch waits for the interpreter's lock. paramiko's way of dealing with packets stays what it is: only
those that carry data are taken here, all others wake the thread, and are its own until it asks for the next one.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from codespace_kernels.ssh.threads import call_in_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Protocol

    from paramiko.message import Message

    from codespace_kernels.ssh.wire import Wire

    class PacketSource(Protocol):
        """What decrypts packets."""

        def holds_packet(self) -> bool | None:
            """Tell whether a whole packet is there; None where that cannot be told before it is decrypted."""

        def read_packet(self) -> tuple[int, Message]:
            """Give the packet that is there."""


_TURN_BYTES = 524288
"""Read at once at most, before others of the loop have their turn."""

Packet = tuple[int, "Message"]


class LoopReader:
    """Stands between a wire and the thread of a session.

    Args:
        loop: On which packets are read.
        wire: It leaves the thread's `recv` alone from now on.
        source: Of packets.
        take: Given each packet, on the loop; false for one that is the thread's.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wire: Wire, source: PacketSource, take: Callable[[int, Message], bool]
    ) -> None:
        self._loop = loop
        self._wire = wire
        self._source = source
        self._take = take
        self._stop_watching: Callable[[], None] | None = None
        self._for_thread: queue.SimpleQueue[Packet | Exception | None] = queue.SimpleQueue()

    def wait(self) -> Packet | None:
        """Let the loop read, and give the next packet that is for the thread; blocks the thread.

        Returns:
            None where the thread has to read by itself from now on.

        Raises:
            EOFError: The wire ended, or was closed.
            Exception: What went wrong in reading a packet or in dealing with it.
        """
        call_in_loop(self._loop, self._go_on)
        outcome = self._for_thread.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def end(self) -> None:
        """Wake the thread for good; from any thread."""
        self._for_thread.put(EOFError())

    def _go_on(self) -> None:
        if self._stop_watching is None:
            try:
                self._stop_watching = self._wire.watch(self._loop, self._readable)
            except NotImplementedError:
                # The Proactor loop of Windows.
                self._hand_over(None)
                return
            except (OSError, ValueError) as error:
                self._hand_over(EOFError(str(error)))
                return
        self._readable()

    def _readable(self) -> None:
        if self._stop_watching is not None:
            try:
                self._read()
            except Exception as error:
                self._hand_over(error)

    def _hand_over(self, outcome: Packet | Exception | None) -> None:
        """Have the thread go on, and read nothing until it asks again."""
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        self._for_thread.put(outcome)

    def _read(self) -> None:
        taken = 0
        while True:
            while holds := self._source.holds_packet():
                kind, message = self._source.read_packet()
                if not self._take(kind, message):
                    message.rewind()
                    self._hand_over((kind, message))
                    return
            if holds is None:
                self._hand_over(None)
                return
            if taken >= _TURN_BYTES:
                self._loop.call_soon(self._readable)
                return
            data = self._wire.receive_nowait()
            if data is None:
                return
            if not data:
                raise EOFError
            self._wire.keep(data)
            taken += len(data)
