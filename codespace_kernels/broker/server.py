"""The broker's HTTP server: on a Unix socket it serves its own user only."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import tornado.httpserver

from codespace_kernels.broker.peers import stranger

if TYPE_CHECKING:
    from tornado.iostream import IOStream

log = logging.getLogger(__name__)


class BrokerServer(tornado.httpserver.HTTPServer):
    """An HTTP server that looks who connects before it reads a byte. On a port, the `Guard` looks at each request."""

    def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        """Serve a connection, or close it."""
        if self._may_ask(stream.socket):
            super().handle_stream(stream, address)
        else:
            stream.close()

    def _may_ask(self, sock: socket.socket) -> bool:
        if sock.family != getattr(socket, "AF_UNIX", None):
            return True
        try:
            uid = stranger(sock)
        except OSError:
            # Gone already.
            return False
        if uid is not None:
            log.warning("user %d was refused: the broker serves its own user only", uid)
        return uid is None
