"""The server's child process, which carries the kernels' messages: `python -m codespace_kernels.remote.child`.

It is a process of its own so that the traffic does not wait for whatever the server does (measured: p95 of an empty
execute 11 ms against 100 ms while somebody reads large notebooks through the server). It knows nothing of lifecycles:
commands go to the server over a socket pair, and from there come connection files' contents, which hold keys and so
never stand in an argv. It ends when the server does.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import socket
from typing import Any, Dict, List, Optional, Sequence

from .. import __version__
from ..link import frames
from . import spool
from .clients import Client
from .reactor import Reactor
from .records import RecordDecoder, encode
from .streams import LinkStream

log = logging.getLogger(__name__)

LOOK_AROUND = 1.0
"""Seconds between looks at what needs no hurry: activity of kernels, clients that stay away."""


class ServerPipe:
    """The socket pair to the server extension; writing never blocks."""

    def __init__(self, reactor: Reactor, pair: socket.socket) -> None:
        self.ended = False
        self._reactor = reactor
        self._pair = pair
        self._decoder = RecordDecoder()
        self._pending = bytearray()
        pair.setblocking(False)

    def write(self, document: Dict[str, Any]) -> None:
        """Queue a record for the server."""
        self._pending += encode(document)
        self._flush()

    def read(self) -> List[Any]:
        """Give the records that came; sets `ended` when the server is gone."""
        try:
            data = self._pair.recv(262144)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.ended = not data
        return self._decoder.feed(data)

    def _flush(self) -> None:
        try:
            del self._pending[: self._pair.send(self._pending)]
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
            self._pending.clear()
        if self._pending:
            self._reactor.add_writer(self._pair.fileno(), self._flush)
        else:
            self._reactor.remove_writer(self._pair.fileno())


class Child:
    """Owns the listener, the clients and the kernels' sockets.

    Args:
        listener: Unix socket that splices connect to; bound by the server, so that it outlives a child.
        pair: This end of the socket pair.
        keep: Seconds that the session of a client which is away is kept.
        kept: Where messages wait for clients.
    """

    def __init__(self, listener: socket.socket, pair: socket.socket, keep: float, kept: spool.Spool) -> None:
        self._reactor = Reactor()
        self._listener = listener
        self._keep = keep
        self._spool = kept
        self._clients: Dict[str, Client] = {}
        self._by_stream: Dict[LinkStream, Client] = {}
        self._strangers: Dict[LinkStream, bytes] = {}
        self._look_at = 0.0
        self._attached = -1
        listener.setblocking(False)
        self._pipe = ServerPipe(self._reactor, pair)
        self._reactor.add_reader(pair.fileno(), self._server_readable)
        self._reactor.add_reader(listener.fileno(), self._accept)

    def run(self) -> None:
        """Carry messages until the server is gone."""
        while not self._pipe.ended:
            self._reactor.turn(self._next_deadline())
            now = self._reactor.now
            for client in list(self._clients.values()):
                client.tick(now)
                client.flush()
                if client.gone:
                    self._drop(client)
            if now >= self._look_at:
                self._look_around(now)
        for client in list(self._clients.values()):
            client.close()

    def _next_deadline(self) -> float:
        deadlines = [client.next_deadline() for client in self._clients.values()]
        return min([self._look_at, *(at for at in deadlines if at is not None)])

    def _look_around(self, now: float) -> None:
        self._look_at = now + LOOK_AROUND
        active = set()
        for client in list(self._clients.values()):
            active |= client.active
            client.active.clear()
            if client.stream is None and now - client.detached_at > self._keep:
                self._drop(client)
        if active:
            self._pipe.write({"active": sorted(active)})
        self._count_attached()

    def _count_attached(self) -> None:
        attached = sum(client.stream is not None for client in self._clients.values())
        if attached != self._attached:
            self._attached = attached
            self._pipe.write({"attached": attached})

    def _drop(self, client: Client) -> None:
        if client.stream is not None:
            self._by_stream.pop(client.stream, None)
        client.close()
        self._clients.pop(client.session.session_id, None)
        self._pipe.write({"client": client.session.session_id, "request": {"do": "leave"}})

    # -- streams ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            control, _ = self._listener.accept()
        except OSError:
            return
        self._strangers[LinkStream(self._reactor, control, self._received, self._lost)] = b""

    def _received(self, stream: LinkStream, data: bytes) -> None:
        client = self._by_stream.get(stream)
        if client is not None:
            client.receive(data)
        elif stream in self._strangers:
            self._greet(stream, self._strangers[stream] + data)

    def _greet(self, stream: LinkStream, data: bytes) -> None:
        """Find the client whose hello stands at the beginning of `data`."""
        self._strangers[stream] = data
        first = next(iter(frames.FrameDecoder().feed(data)), None)
        if first is None:
            return
        del self._strangers[stream]
        if not isinstance(first, frames.Hello):
            log.warning("stream refused: %s", first)
            stream.write(_refusal(first))
            stream.close()
            return
        client = self._clients.get(first.session)
        if client is None:
            client = self._clients[first.session] = Client(self._reactor, first.session, self._pipe.write, self._spool)
        self._welcome(client, stream, data)

    def _welcome(self, client: Client, stream: LinkStream, data: bytes) -> None:
        if client.stream is not None:
            self._by_stream.pop(client.stream, None)
        client.attach(stream)
        self._by_stream[stream] = client
        self._count_attached()
        client.receive(data)

    def _lost(self, stream: LinkStream) -> None:
        self._strangers.pop(stream, None)
        client = self._by_stream.pop(stream, None)
        if client is not None:
            client.detach()

    # -- the server ---------------------------------------------------------------------------------------------------

    def _server_readable(self) -> None:
        for record, raw in self._pipe.read():
            if "event" in record:
                for client in self._clients.values():
                    client.event(record)
            else:
                addressed = self._clients.get(record["client"])
                if addressed is not None:
                    addressed.answer(record, raw)


def _refusal(first: Any) -> bytes:
    """Say why a stream is refused; who speaks another version reads that from our hello, in the words of its own."""
    error = frames.encode_error(str(first))
    if not isinstance(first, frames.VersionError):
        return error
    return frames.encode_hello(frames.Hello("", "", "", 0, software=__version__)) + error


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run with descriptors that were inherited."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--server", type=int, required=True)
    parser.add_argument("--keep", type=float, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--memory", type=int, default=spool.MEMORY)
    parser.add_argument("--disk", type=int, default=spool.DISK)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="[%(levelname).1s %(asctime)s link] %(message)s")
    # Signals for the whole process group are the server's business; it ends this process by closing the pair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A kernel takes about ten descriptors, and the usual limit is 1024.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.socket(fileno=arguments.listener)
    pair = socket.socket(fileno=arguments.server)
    log.info("carries the kernels' messages, pid %d", os.getpid())
    kept = spool.Spool(arguments.folder, arguments.memory, arguments.disk)
    Child(listener, pair, arguments.keep, kept).run()


if __name__ == "__main__":
    main()
