"""A channel as the stream of bytes that the layers above use, on an event loop and without a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING

from codespace_kernels.errors import WorkspaceConnectionError
from codespace_kernels.ssh.threads import call_here, call_in_loop

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from codespace_kernels.connection import Stream
    from codespace_kernels.ssh.channel import ClientChannel

PACKET_OVERHEAD = 64
"""Bytes that paramiko leaves free in a packet of the peer's largest size."""
_YIELD_AFTER = 262144
_STDERR_READ = 65536


class ChannelStream:
    """A `Stream` over an SSH channel; implements `codespace_kernels.connection.Stream`.

    Incoming data that the loop itself has read is handed on in the same turn; what the session's thread reads wakes the
    loop. Outgoing data is encrypted and sent on the loop, in calls that do not block.

    Args:
        channel: Owned from now on: closed with the stream.
        on_stderr: Takes what a command writes to its stderr; called on the loop.

    Attributes:
        carried: Bytes that passed so far, both ways together.
    """

    def __init__(self, channel: ClientChannel, on_stderr: Callable[[bytes], None] | None = None) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._on_stderr = on_stderr
        self._waiters: list[asyncio.Future[None]] = []
        self._wake_scheduled = False
        self._writing = asyncio.Lock()
        self._closed_here = False
        self.carried = 0
        channel.setblocking(blocking=False)
        channel.listen(self._changed, functools.partial(call_here, self._loop, self._wake, self._changed))

    def _changed(self) -> None:
        """Wake the loop; called from any thread, any number of times before the loop gets to it."""
        if not self._wake_scheduled:
            self._wake_scheduled = True
            call_in_loop(self._loop, self._wake)

    def _wake(self) -> None:
        self._wake_scheduled = False
        if self._channel.recv_stderr_ready():
            self._take_stderr()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _take_stderr(self) -> None:
        with contextlib.suppress(EOFError):
            while self._channel.recv_stderr_ready():
                data = self._channel.recv_stderr(_STDERR_READ)
                if self._on_stderr is not None:
                    self._on_stderr(data)

    async def _wait_for_change(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def read(self, max_bytes: int = 262144) -> bytes:
        """Give what is there; see `Stream.read`."""
        channel = self._channel
        while not self._closed_here:
            # Looked at first: the session's thread may bring the last data and the end between the two questions.
            ended = channel.eof_received or channel.closed
            if channel.recv_ready():
                # Acknowledging what was read may find the session dead; what was read is whole.
                return self._receive(max_bytes)
            if ended:
                return self._end_of_stream()
            await self._wait_for_change()
        return b""

    def _receive(self, max_bytes: int) -> bytes:
        try:
            data = self._channel.recv(max_bytes)
        except EOFError:
            raise self._channel.session.lost_error() from None
        self.carried += len(data)
        return data

    def _end_of_stream(self) -> bytes:
        if self._channel.refused:
            raise WorkspaceConnectionError("The SSH server refused to run the command.")
        if not self._channel.eof_received and self._lost():
            raise self._channel.session.lost_error()
        return b""

    async def write(self, data: bytes) -> None:
        """Hand data to the connection; see `Stream.write`."""
        async with self._writing:
            position, since_yield = 0, 0
            while position < len(data):
                await self._wait_for_room()
                sent = self._send(data[position : position + self._channel.out_max_packet_size - PACKET_OVERHEAD])
                position += sent
                since_yield += sent
                if since_yield >= _YIELD_AFTER:
                    since_yield = 0
                    await asyncio.sleep(0)

    async def _wait_for_room(self) -> None:
        channel = self._channel
        while True:
            if channel.closed or channel.eof_sent or not channel.session.active:
                raise self._write_error()
            if channel.out_window_size > 0 and not channel.session.congested:
                return
            await self._wait_for_change()

    def _send(self, data: bytes) -> int:
        try:
            sent = self._channel.send(data)
        except (OSError, EOFError):
            raise self._write_error() from None
        self.carried += sent
        return sent

    def _write_error(self) -> WorkspaceConnectionError:
        if self._lost():
            return self._channel.session.lost_error()
        return WorkspaceConnectionError("The stream is closed.")

    def _lost(self) -> bool:
        return self._channel.lost or not self._channel.session.active

    def write_eof(self) -> None:
        """Say that nothing more will be written; reading goes on."""
        with contextlib.suppress(EOFError):
            self._channel.shutdown_write()

    def resize(self, size: os.terminal_size) -> None:
        """Tell the window's new size; see `Session.resize`."""
        if not (self._channel.closed or self._closed_here):
            with contextlib.suppress(OSError, EOFError):
                self._channel.tell_size(size.columns, size.lines)

    async def wait_closed(self) -> None:
        """Wait until the peer has closed the channel, or the connection was lost."""
        while not (self._channel.closed or self._closed_here):
            await self._wait_for_change()

    @property
    def exit_status(self) -> int:
        """Exit status of the command, once closed; -1 where there is none."""
        return self._channel.exit_status

    def close(self) -> None:
        """End the stream; see `Stream.close`."""
        self._closed_here = True
        with contextlib.suppress(EOFError):
            self._channel.close()
        self._wake()


async def splice(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream, *, half_close: bool
) -> None:
    """Carry bytes between a local socket and a stream until both directions have ended.

    Args:
        reader: From the local socket.
        writer: To the local socket; closed at the end.
        stream: Closed at the end.
        half_close: Whether the peer understands that our direction has ended while its own goes on. Hosts of dev
            tunnels do not pass it on, so there the whole stream is closed instead.
    """

    async def outward() -> None:
        while data := await reader.read(262144):
            await stream.write(data)
        if half_close and isinstance(stream, ChannelStream):
            stream.write_eof()
        else:
            stream.close()

    async def inward() -> None:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()

    sending = asyncio.create_task(outward())
    try:
        await inward()
    except (OSError, WorkspaceConnectionError):
        pass
    finally:
        stream.close()
        writer.close()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
