"""Moves bytes between the channels of a server-side SSH transport and file descriptors, with one thread a transport.

paramiko's own way is a blocking thread for each direction of each channel. Here one thread a transport runs an event
loop that owns all descriptors. It is the only thread that sends channel data, so a client that reads slowly holds up
its own transport at most.

paramiko offers no public hook for "this channel has data, window, end of file". `PumpedTransport` takes them from its
table of channel message handlers, which is the same in paramiko 2 to 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, cast

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
)

logger = logging.getLogger(__name__)

Send = Callable[[bytes], int]
_Handler = Callable[[paramiko.Channel, paramiko.Message], None]

_PACKET = 64 * 1024 - 64
"""Bytes read at once; what does not fit the largest packet that a client takes is cut."""

_LOST = (OSError, EOFError, paramiko.SSHException)


class _Source:
    """A descriptor that is read into a channel."""

    def __init__(self, fd: int, send: Send) -> None:
        self.fd = fd
        self.send = send
        self.pending = b""
        self.watched = False


class Splice:
    """One channel tied to descriptors. All methods run on the transport's pump thread, except `wake`.

    The descriptors must be non-blocking. They are not closed here.

    Args:
        transport: The channel's transport.
        channel: The channel; it is closed by whoever handles `on_sources_end`.
        sources: Descriptors to read, and which method of the channel sends what came (`send` or `send_stderr`).
        sink: Descriptor that gets what comes through the channel.
        on_sources_end: Called once when every source is at its end and sent.
        on_sink_end: Called once when the client sent its end of file and the sink has taken everything.
        on_close: Called once, last, when the channel is closed by either side or lost, and the sink has taken
            everything that it could; frees the descriptors.
    """

    def __init__(
        self,
        transport: PumpedTransport,
        channel: paramiko.Channel,
        *,
        sources: Mapping[int, Send],
        sink: int,
        on_sources_end: Callable[[], None],
        on_close: Callable[[], None],
        on_sink_end: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._loop = transport.loop
        self._channel = channel
        self._sources = [_Source(fd, send) for fd, send in sources.items()]
        self._sink: int | None = sink
        self._unwritten = b""
        self._writing = False
        self._woken = False
        self._on_sources_end: Callable[[], None] | None = on_sources_end
        self._on_sink_end = on_sink_end
        self._on_close: Callable[[], None] | None = on_close
        channel.settimeout(0.0)

    def start(self) -> None:
        """Begin to move bytes."""
        for source in self._sources:
            self._watch(source)
        self._turn()

    def wake(self) -> None:
        """Say that the channel has news. Called on the transport's thread."""
        if not self._woken:
            self._woken = True
            self._transport.call(self._turn)

    def close(self) -> None:
        """Stop moving bytes at once and let go of channel and descriptors."""
        if self._on_close is None:
            return
        on_close, self._on_close = self._on_close, None
        for source in self._sources:
            self._unwatch(source)
        self._stop_writing()
        self._transport.splices.pop(self._channel.chanid, None)
        with contextlib.suppress(*_LOST):
            self._channel.close()
        on_close()

    def _turn(self) -> None:
        self._woken = False
        if self._on_close is None:
            return
        for source in self._sources:
            if source.pending:
                self._flush(source)
        # Looked at first: what came just before the close must still be found below.
        closed = self._channel.closed
        self._write()
        if closed and not self._unwritten:
            self.close()

    def _watch(self, source: _Source) -> None:
        if not source.watched and self._on_close is not None:
            source.watched = True
            self._loop.add_reader(source.fd, self._read, source)

    def _unwatch(self, source: _Source) -> None:
        if source.watched:
            source.watched = False
            self._loop.remove_reader(source.fd)

    def _read(self, source: _Source) -> None:
        try:
            source.pending = os.read(source.fd, _PACKET)
        except BlockingIOError:
            return
        except OSError:
            # A pseudo terminal without a process, or a connection that was reset: an end like any other.
            source.pending = b""
        if source.pending:
            self._flush(source)
        else:
            self._end_source(source)

    def _end_source(self, source: _Source) -> None:
        self._unwatch(source)
        self._sources.remove(source)
        if not self._sources and self._on_sources_end is not None:
            on_end, self._on_sources_end = self._on_sources_end, None
            with contextlib.suppress(*_LOST):
                on_end()
            self._turn()

    def _flush(self, source: _Source) -> None:
        """Send what was read; where the client's window is shut, go on when it opens (`wake`)."""
        while source.pending:
            try:
                sent = source.send(source.pending)
            except TimeoutError:
                if not source.watched:
                    return
                # Tried once more below: the window may have opened before `wake` could know that it matters.
                self._unwatch(source)
                continue
            except _LOST:
                self.close()
                return
            if not sent:
                self.close()
                return
            source.pending = source.pending[sent:]
        self._watch(source)

    def _write(self) -> None:
        """Write what the channel has to the sink; where the sink is full, go on when it can take more."""
        while self._unwritten or self._channel.recv_ready():
            if not self._unwritten:
                self._unwritten = self._channel.recv(_PACKET)
            if self._sink is None:
                self._unwritten = b""
                continue
            try:
                written = os.write(self._sink, self._unwritten)
            except BlockingIOError:
                self._start_writing()
                return
            except OSError:
                self._sink_lost()
                continue
            self._unwritten = self._unwritten[written:]
        self._stop_writing()
        if self._channel.eof_received and self._on_sink_end is not None and not self._channel.recv_ready():
            self._end_sink()

    def _sink_lost(self) -> None:
        self._unwritten = b""
        if self._on_sink_end is None:
            # A socket: what cannot be written cannot be read either.
            self.close()
        else:
            self._end_sink()
        self._sink = None

    def _end_sink(self) -> None:
        self._stop_writing()
        self._sink = None
        if self._on_sink_end is not None:
            on_end, self._on_sink_end = self._on_sink_end, None
            on_end()

    def _start_writing(self) -> None:
        if not self._writing and self._sink is not None:
            self._writing = True
            self._loop.add_writer(self._sink, self._turn)

    def _stop_writing(self) -> None:
        if self._writing and self._sink is not None:
            self._writing = False
            self._loop.remove_writer(self._sink)


def _waking(handler: _Handler) -> _Handler:
    def handle(channel: paramiko.Channel, message: paramiko.Message) -> None:
        handler(channel, message)
        transport = channel.get_transport()
        assert isinstance(transport, PumpedTransport)
        splice = transport.splices.get(channel.chanid)
        if splice is not None:
            splice.wake()

    return handle


def _serving(handler: _Handler) -> _Handler:
    def handle(channel: paramiko.Channel, message: paramiko.Message) -> None:
        handler(channel, message)
        transport = channel.get_transport()
        assert isinstance(transport, PumpedTransport)
        transport.request_served(channel)

    return handle


_HANDLERS: Mapping[int, _Handler] = vars(paramiko.Transport)["_channel_handler_table"]
_WAKING = (MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST, MSG_CHANNEL_EOF, MSG_CHANNEL_CLOSE)


class _Hooks(Protocol):
    def _send_message(self, message: paramiko.Message) -> None: ...
    def _send_user_message(self, message: paramiko.Message) -> None: ...


class PumpedTransport(paramiko.Transport):
    """A server-side transport with a pump thread.

    Attributes:
        loop: The pump thread's event loop.
        splices: By channel number; changed on the pump thread only.
    """

    _channel_handler_table: ClassVar[Mapping[int, _Handler]] = {
        **_HANDLERS,
        **{kind: _waking(_HANDLERS[kind]) for kind in _WAKING},
        MSG_CHANNEL_REQUEST: _serving(_HANDLERS[MSG_CHANNEL_REQUEST]),
    }

    def __init__(self, sock: Any, **options: Any) -> None:
        super().__init__(sock, **options)
        self.loop = asyncio.new_event_loop()
        self.splices: dict[int, Splice] = {}
        self._pump = threading.Thread(target=self._run_pump, name=f"{type(self).__name__}-pump", daemon=True)
        self._pump.start()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have a function called on the pump thread; nothing happens once the transport has ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *args)

    def splice(self, channel: paramiko.Channel, **options: Any) -> None:
        """Tie a channel to descriptors (see `Splice` for the options). Called on any thread."""
        splice = Splice(self, channel, **options)
        # Entered before the pump knows of it, so that no news of the channel is missed.
        self.splices[channel.chanid] = splice
        self.call(splice.start)

    def send(self, message: paramiko.Message) -> None:
        """Send a message that is no part of a key exchange. Called on the pump thread, which may wait."""
        with contextlib.suppress(*_LOST):
            cast("_Hooks", self)._send_user_message(message)

    def _send_message(self, message: paramiko.Message) -> None:
        """Send at once, but leave to the pump what the transport's own thread may not send in a key exchange.

        paramiko confirms a channel, and replies to a request, from that thread without a look at the key exchange that
        it may have begun: a protocol error to the client. Of 6 sessions with re-keys begun by this side, it broke 4.
        """
        if threading.current_thread() is self and message.asbytes()[0] >= MSG_GLOBAL_REQUEST:
            self.call(self.send, message)
        else:
            cast("_Hooks", super())._send_message(message)

    def _send_user_message(self, message: paramiko.Message) -> None:
        """Send once no key exchange runs. The transport's own thread, which alone can end one, does not wait for it."""
        if threading.current_thread() is self:
            self.call(self.send, message)
        else:
            cast("_Hooks", super())._send_user_message(message)

    def request_served(self, channel: paramiko.Channel) -> None:
        """Called on the transport's thread when a request about a channel was answered."""

    def run(self) -> None:
        """Run the transport to its end, then end the pump and free the descriptors of all channels."""
        try:
            super().run()
        finally:
            self.call(self._end_pump)
            self._pump.join(timeout=5)
            self.ended()

    def ended(self) -> None:
        """Called last, on the transport's thread: neither it nor the pump uses the socket any more."""

    def _run_pump(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def _end_pump(self) -> None:
        for splice in list(self.splices.values()):
            splice.close()
        self.loop.stop()
