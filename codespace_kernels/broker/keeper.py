"""A process that outlives a broker by a moment, to tell what the operating system had taken of its messages.

It holds a second descriptor of each connection of local clients. The end of its own connection to the broker tells it
that the broker is dead. `tcpi_bytes_acked` of `TCP_INFO` (Linux 4.1, RFC 4898's `tcpEStatsAppHCThruOctetsAcked`) and
what `SIOCOUTQ` says is not acknowledged are together what the system has taken: after 60 kills in the middle of a flood
it was to the byte what the client got. Elsewhere there is no keeper.

It imports nothing of the package's: it must be small and start fast.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys

_ACKNOWLEDGED_AT = 120
"""Where `tcpi_bytes_acked` stands in the kernel's `struct tcp_info`."""

HOLD, LAST, DROP, END = b"+", b"*", b"-", b"."
MESSAGE = struct.Struct("=cI")

WAIT_SECONDS = 30.0
"""How long connections that may last wait for the next broker; the first front end that notices starts it."""

_UNREAD = 1 << 22
"""Bytes that are read of a connection before it is closed, at most."""


def bytes_taken(sock: socket.socket) -> int:
    """Tell how many bytes of a connection the operating system has taken since it was made, or a few less.

    Raises:
        OSError: It does not tell.
        struct.error: It is one that does not know.
    """
    taken = 0
    for _ in range(100):
        before = _acknowledged(sock)
        taken = before + _unacknowledged(sock)
        # An acknowledgement that comes in between is counted by neither.
        if before == _acknowledged(sock):
            break
    return taken


def _acknowledged(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("=Q", info, _ACKNOWLEDGED_AT)[0])


def _unacknowledged(sock: socket.socket) -> int:
    import fcntl
    import termios

    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])


def keep(broker: socket.socket, report: str) -> None:
    """Hold what the broker passes; when it is gone, write down how much of each connection was taken.

    The connections that may last are given to the next broker, who asks for them at a socket beside the report.

    Args:
        broker: The connection to it.
        report: Path of the file: a line for each connection, its number and how many bytes.
    """
    held = _hold(broker)
    if held is None:
        return
    lasting = {slot: sock for slot, (sock, lasts) in held.items() if lasts}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        if lasting:
            _listen(listener, f"{report}.socket")
        _write(report, {slot: sock for slot, (sock, _) in held.items()})
        for sock, lasts in held.values():
            if not lasts:
                _end(sock)
        if lasting:
            _give(listener, lasting)
            os.unlink(f"{report}.socket")  # noqa: PTH108  (pathlib takes longer to import than all the rest)


def _hold(broker: socket.socket) -> dict[int, tuple[socket.socket, bool]] | None:
    """Hold connections until the broker is gone; None where it says that it ends."""
    held: dict[int, tuple[socket.socket, bool]] = {}
    while True:
        data, descriptors, _, _ = socket.recv_fds(broker, MESSAGE.size, 1)
        if len(data) < MESSAGE.size:
            return held
        what, slot = MESSAGE.unpack(data)
        if what == END:
            return None
        if slot in held:
            held.pop(slot)[0].close()
        if descriptors:
            held[slot] = socket.socket(fileno=descriptors[0]), what == LAST


def _write(report: str, held: dict[int, socket.socket]) -> None:
    lines = []
    for slot, sock in held.items():
        try:
            lines.append(f"{slot} {bytes_taken(sock)}\n")
        except (OSError, struct.error):
            continue  # Nothing is known of it then.
    temporary = f"{report}.new"
    with open(temporary, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write("".join(lines))
    os.replace(temporary, report)  # noqa: PTH105  (as above)


def _listen(listener: socket.socket, path: str) -> None:
    old = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(old)
    listener.listen(1)


def _give(listener: socket.socket, held: dict[int, socket.socket]) -> None:
    """Pass connections to the next broker, or close them when none comes."""
    listener.settimeout(WAIT_SECONDS)
    try:
        asker, _ = listener.accept()
        with asker:
            asker.settimeout(WAIT_SECONDS)
            credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("=3i", credentials)[1] == os.getuid():
                for slot, sock in held.items():
                    socket.send_fds(asker, [MESSAGE.pack(LAST, slot)], [sock.fileno()])
                asker.send(MESSAGE.pack(END, 0))
    except OSError:
        pass


def _end(sock: socket.socket) -> None:
    """Close a connection so that its client gets what was taken: what is unread would make it end at once."""
    try:
        left = _UNREAD
        while left > 0 and (data := sock.recv(65536, socket.MSG_DONTWAIT)):
            left -= len(data)
    except OSError:
        pass
    sock.close()


def main() -> None:
    """Run with descriptors that were inherited: the connection to the broker; another one's lock is held by being."""
    # What ends a front end's descendants, or a terminal's, must not end this before the broker.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
