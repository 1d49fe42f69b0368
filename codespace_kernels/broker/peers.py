"""Who is at the other end of a Unix socket, as the operating system tells: both ends of the broker's look.

The socket's mode and its folder's keep others out already. This also holds where they did not: some systems ignore the
mode of a socket, and a folder may have been open once.
"""

from __future__ import annotations

import socket
import struct

from codespace_kernels import platforms

_LINUX_CREDENTIALS = struct.Struct("iII")
"""`struct ucred` of unix(7): process, user, group."""

_BSD_CREDENTIALS = struct.Struct("II")
"""The beginning of `struct xucred` of macOS and the BSDs: version, user."""

_SOL_LOCAL = 0
_XUCRED_BYTES = 256
"""More than any system's `struct xucred` has."""


def peer_uid(sock: socket.socket) -> int | None:
    """Give the id of the user whose process is at the other end; None where the system does not tell.

    Of a client it is the user who connected, of a server the one who called `listen`.

    Raises:
        OSError: The socket is not connected.
    """
    if option := getattr(socket, "SO_PEERCRED", 0):
        data = sock.getsockopt(socket.SOL_SOCKET, option, _LINUX_CREDENTIALS.size)
        return int(_LINUX_CREDENTIALS.unpack(data)[1])
    if option := getattr(socket, "LOCAL_PEERCRED", 0):
        return int(_BSD_CREDENTIALS.unpack_from(sock.getsockopt(_SOL_LOCAL, option, _XUCRED_BYTES))[1])
    return None


def stranger(sock: socket.socket) -> int | None:
    """Give the id of the user at the other end where it is another one than ours, root included; else None.

    Raises:
        OSError: The socket is not connected any more.
    """
    uid = peer_uid(sock)
    return None if uid == platforms.user_id() else uid
