"""Where the broker listens, and an HTTP connection to it."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

from codespace_kernels.settings import runtime_dir

if TYPE_CHECKING:
    from pathlib import Path


def socket_path() -> Path:
    """Give the path of this user's broker socket."""
    return runtime_dir() / "broker.sock"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. The standard library's client starts in a few milliseconds, which every launcher pays.

    Args:
        path: Of the socket.
        timeout: Seconds for connecting and for each read; None waits for ever (a handle does).
    """

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; raises OSError when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        self.sock = sock
