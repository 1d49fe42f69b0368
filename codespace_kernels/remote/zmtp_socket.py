"""One channel of a kernel as its client has it, on a socket of this loop.

Why not libzmq: its thread is woken up by each message first, and wakes up ours then. Without those hops an empty cell
takes a twentieth less (measured on two cores). What else libzmq does that counts here is done here: a kernel is called
until it listens, and what it sends is read at once, however much is still to be handed on, as its publisher drops
messages without a word when a reader falls behind.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
import time
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

from ..zmtp import greeting
from ..zmtp.commands import decode_command, encode_command
from ..zmtp.frames import COMMAND, MORE, FrameDecoder, ZmtpError, encode_message
from ..zmtp.mechanisms import Null
from .kernel_socket import READ_BYTES, READ_MESSAGES, RECONNECT, KernelSocket, source_address
from .reactor import Timer

log = logging.getLogger(__name__)

_RECONNECT_SHARE = 0.02
_RECONNECT_MOST = 0.25
"""One that takes long is called less often: each time after so much of what it has taken, up to so many seconds."""

HANDSHAKE = 30.0
"""Seconds for a connection and its handshake, as libzmq has it (ZMQ_HANDSHAKE_IVL); then it is tried again."""

_RECEIVE = 128 * 1024
_RECEIVE_MOST = 4 * 1024 * 1024
"""Bytes that are asked for at once, and that are received in a turn."""

_LOOK = 16
"""After so many messages it is looked whether more have arrived: the system's buffers hold only a moment's."""

# Who may be talked to (RFC 28, RFC 29).
_ROUTERS = frozenset((b"ROUTER", b"REP", b"DEALER"))
_PUBLISHERS = frozenset((b"PUB", b"XPUB"))

_CONNECTING, _GREETING, _HANDSHAKE, _OPEN, _CLOSED = range(5)


class ZmtpSocket(KernelSocket):
    """A socket of this loop, for a kernel without a mechanism.

    What waits where the connection ends was meant for a process that is gone, and is dropped.
    """

    def _set_up(self) -> None:
        self._to_send: Deque[memoryview] = deque()
        self._received: Deque[bytes] = deque()
        self._again: Optional[Timer] = None
        self._missed_since: Optional[float] = None
        self._told = ""
        self._begin()

    @property
    def ended(self) -> bool:
        """Whether there is no connection, nor one in the making: the kernel is called again in a moment."""
        return self._socket is None

    # -- for whoever has it -------------------------------------------------------------------------------------------

    def send(self, parts: List[bytes]) -> None:
        """See `KernelSocket`."""
        pieces = encode_message(parts)
        if self._state == _OPEN and not self._to_send and len(pieces) == 1:
            # The usual case, in which nothing needs to be kept.
            data = pieces[0]
            sent = self._write(data)
            if sent < 0 or sent == len(data):
                return
            pieces = [data[sent:]]
        self._to_send.extend(map(memoryview, pieces))
        if self._state == _OPEN:
            self._flush()

    def pause(self) -> None:
        """See `KernelSocket`."""
        if not self._paused:
            self._paused = True
            self._watch()

    def resume(self) -> None:
        """See `KernelSocket`."""
        self._paused = False
        self._watch()

    def drain(self) -> None:
        """See `KernelSocket`."""
        while self._state in (_HANDSHAKE, _OPEN) and self._receive():
            pass
        while self._state != _CLOSED and self._hand_on():
            pass

    def close(self) -> None:
        """See `KernelSocket`."""
        self._end()
        self._state = _CLOSED
        self._reactor.forget(self._hand_on)
        self._to_send.clear()
        self._received.clear()

    # -- the connection -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._state = _CONNECTING
        self._begin_again_at(time.monotonic() + HANDSHAKE)
        self._greeting = b""
        self._parts: List[bytes] = []
        self._frames: Iterator[Tuple[int, bytes]] = iter(())
        self._decoder = FrameDecoder(sys.maxsize)
        self._mechanism = Null(self._properties())
        try:
            family, address = _address(self._info, self._channel)
            self._socket: Optional[socket.socket] = socket.socket(family, socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            self._socket = None
            self._lose(str(error))
            return
        self._descriptor = self._socket.fileno()
        self._socket.setblocking(False)
        if not self._call(self._socket, address):
            self._lose("")
            return
        self._watch()

    def _properties(self) -> Dict[bytes, bytes]:
        if self._identity is None:
            return {b"Socket-Type": b"SUB"}
        return {b"Socket-Type": b"DEALER", b"Identity": self._identity}

    def _call(self, made: socket.socket, address: Any) -> bool:
        try:
            if made.family != socket.AF_UNIX:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                source = source_address(address[0])
                if source is not None:
                    made.bind((source, 0))
            return made.connect_ex(address) in (0, errno.EINPROGRESS)
        except OSError:
            return False

    def _watch(self) -> None:
        if self._socket is None:
            return
        if self._state == _CONNECTING:
            self._reactor.add_writer(self._descriptor, self._reached)
            return
        if self._paused:
            self._reactor.remove(self._descriptor)
        else:
            self._reactor.add_reader(self._descriptor, self._readable)
        if self._to_send and self._state == _OPEN:
            self._reactor.add_writer(self._descriptor, self._flush)

    def _reached(self) -> None:
        assert self._socket is not None
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._lose("")
            return
        self._reactor.remove_writer(self._descriptor)
        self._state = _GREETING
        self._write(greeting.encode_greeting(Null.name, as_server=Null.as_server, version=greeting.VERSION_3_0))
        self._watch()

    def _lose(self, reason: str) -> None:
        """Let go of a connection; another one is made soon."""
        if reason not in ("", self._told):
            self._told = reason
            log.warning("a kernel's %s channel: %s", self._channel, reason)
        was_open = self._state == _OPEN
        self._end()
        self._state = _CONNECTING
        now = time.monotonic()
        self._missed_since = now if self._missed_since is None else self._missed_since
        missed = now - self._missed_since
        self._begin_again_at(now + max(RECONNECT, min(_RECONNECT_SHARE * missed, _RECONNECT_MOST)))
        if was_open:
            self._to_send.clear()
        if self._received:
            self._reactor.call_soon(self._hand_on)

    def _lose_to_another(self, reason: str) -> None:
        self._lose(reason)
        self._foreign()

    def _begin_again_at(self, at: float) -> None:
        self._stop_timer()
        self._again = self._reactor.call_at(at, self._begin_again)

    def _begin_again(self) -> None:
        # What has been received of the connection before is handed on first.
        if self._received:
            self._begin_again_at(time.monotonic() + RECONNECT)
        else:
            self._end()
            self._begin()

    def _stop_timer(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _end(self) -> None:
        self._stop_timer()
        if self._socket is not None:
            self._reactor.remove(self._descriptor)
            self._socket.close()
            self._socket = None

    # -- writing ------------------------------------------------------------------------------------------------------

    def _write(self, data: Any) -> int:
        """Write what fits, and tell how much that was; less than 0 where the connection is lost over it."""
        assert self._socket is not None
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # What has arrived is read to the end.
            self._receive()
            self._lose("")
            return -1

    def _flush(self) -> None:
        while self._to_send:
            sent = self._write(self._to_send[0])
            if sent < 0:
                return
            if sent < len(self._to_send[0]):
                self._to_send[0] = self._to_send[0][sent:]
                self._reactor.add_writer(self._descriptor, self._flush)
                return
            self._to_send.popleft()
        self._reactor.remove_writer(self._descriptor)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._receive():
            self._hand_on()

    def _receive(self) -> bool:
        """Read what has arrived; tell whether there was something."""
        size = 0
        while self._socket is not None and size < _RECEIVE_MOST:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._lose("")
                break
            size += len(data)
            if self._state == _GREETING:
                data = self._greet(data)
            self._received.append(data)
            if len(data) < _RECEIVE:
                break
        return size > 0

    def _greet(self, data: bytes) -> bytes:
        """Take the kernel's greeting; give what follows it."""
        whole = self._greeting + data
        self._greeting, rest = whole[: greeting.SIZE], whole[greeting.SIZE :]
        try:
            greeting.check_greeting(self._greeting)
            if len(self._greeting) < greeting.SIZE:
                return rest
        except ZmtpError as error:
            self._lose_to_another(str(error))
            return b""
        asked = greeting.mechanism_of(self._greeting)
        if asked != Null.name:
            self._lose_to_another("it uses mechanism %r, not %r" % (asked, Null.name))
            return b""
        self._state = _HANDSHAKE
        subscription = [] if self._identity is not None else encode_message([b"\1"])
        self._write(b"".join([self._mechanism.start(), *subscription]))
        return rest

    def _hand_on(self) -> bool:
        """Hand on messages within limits; tell whether there are more."""
        count = size = 0
        try:
            while True:
                for flags, body in self._frames:
                    if flags & COMMAND:
                        self._command(body)
                        continue
                    self._parts.append(body)
                    size += len(body)
                    if flags & MORE:
                        continue
                    parts, self._parts = self._parts, []
                    self._take(parts)
                    count += 1
                    if count >= READ_MESSAGES or size >= READ_BYTES:
                        self._reactor.call_soon(self._hand_on)
                        return True
                    if count % _LOOK == 0 and not self._paused:
                        self._receive()
                if not self._received:
                    return False
                self._frames = self._decoder.feed(self._received.popleft())
        except ZmtpError as error:
            self._received.clear()
            if self._state == _HANDSHAKE:
                self._lose_to_another(str(error))
            else:
                self._lose(str(error))
            return False

    def _command(self, body: bytes) -> None:
        if self._state == _HANDSHAKE:
            self._mechanism.handshake(body)
            kind = (self._mechanism.properties or {}).get(b"socket-type", b"")
            if kind not in (_PUBLISHERS if self._identity is None else _ROUTERS):
                # Another program has the port; or another kernel, whose process is being replaced.
                raise ZmtpError("a %r socket listens there" % kind[:16])
            self._state = _OPEN
            self._stop_timer()
            self._missed_since = None
            self._connected()
            self._flush()
            return
        name, data = decode_command(body)
        if name == b"PING" and self._state == _OPEN and not self._to_send:
            # Two bytes say for how long it waits (RFC 37, "Connection Heartbeating").
            self._write(self._mechanism.encode_command(encode_command(b"PONG", data[2:])))


def _address(info: Dict[str, Any], channel: str) -> Tuple[int, Any]:
    """Give family and address of a channel's socket.

    Raises:
        OSError: There is no such address.
        ValueError: The transport is none that a kernel can have.
    """
    port = info[channel + "_port"]
    if info["transport"] == "ipc":
        path = "%s-%s" % (info["ip"], port)
        return socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path
    if info["transport"] != "tcp":
        raise ValueError("a transport %r" % info["transport"])
    family, _, _, _, address = socket.getaddrinfo(info["ip"], port, type=socket.SOCK_STREAM)[0]
    return family, address
