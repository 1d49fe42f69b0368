"""The broker as a process: nobody's child, one a user, gone when nothing needs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import filelock

from codespace_kernels.broker.endpoint import socket_path
from codespace_kernels.broker.protocol import ALREADY_RUNNING
from codespace_kernels.errors import BrokerError
from codespace_kernels.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG_BYTES = 5_000_000
"""Size at which the log is rotated; one old file is kept."""


class AlreadyRunningError(BrokerError):
    """Another broker of this user is alive."""

    exit_code = ALREADY_RUNNING


def log_path() -> Path:
    """Give the path of the broker's log."""
    return state_dir() / "broker.log"


def set_up_logging(*, foreground: bool) -> None:
    """Log to the terminal, or to a file that only this user can read."""
    if foreground:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        return
    os.umask(0o077)
    handler = logging.handlers.RotatingFileHandler(log_path(), maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def detach(report: int) -> None:
    """Leave the terminal, the session and the standard streams of the process that started us.

    Args:
        report: File descriptor that stays open, for telling the parent how it went.
    """
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        if fd != report:
            os.dup2(null, fd)


def run_daemon(serve: Callable[[Callable[[str], None]], None]) -> int:
    """Run `serve` in a detached child; return when it says that it serves, or why it does not.

    The parent's exit is what makes the child nobody's descendant, so that a front end that ends all its descendants
    does not reach it.

    Args:
        serve: Called in the child with a function to call once: with an empty text when it serves, else with the
            reason.

    Returns:
        Exit code for the parent: 0 when the child serves.
    """
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            answer = pipe.read()
        if answer == "ok":
            return 0
        print(answer or f"It ended at once; see {log_path()}.", file=sys.stderr)  # noqa: T201  (read by who started us)
        return ALREADY_RUNNING if answer.startswith(AlreadyRunningError.__name__) else 1
    os.close(read_end)

    def report(problem: str) -> None:
        with contextlib.suppress(OSError):
            os.write(write_end, (problem or "ok").encode())
            os.close(write_end)

    detach(write_end)
    try:
        set_up_logging(foreground=False)
        serve(report)
    except Exception as error:  # the parent must hear of whatever it was
        logging.getLogger(__name__).exception("the broker ended")
        report(f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


def listen(path: Path) -> tuple[socket.socket, filelock.FileLock]:
    """Become this user's broker: take the lock, then listen.

    The lock is held for life, so that a second broker cannot take the socket of a live one, and is freed by the
    operating system when a broker is killed, so that its left-over socket file is no hindrance.

    Raises:
        AlreadyRunningError: Another broker is alive.
        BrokerError: The socket cannot be made.
    """
    lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise AlreadyRunningError(f"Another broker of this user is alive at {path}.") from None
    try:
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        old = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        sock.listen(128)
    except OSError as error:
        lock.release()
        raise BrokerError(f"Cannot listen at {path}: {error.strerror}.") from None
    return sock, lock


async def serve_forever(
    report: Callable[[str], None], *, idle_timeout: float = 600.0, activity_interval: float = 60.0
) -> None:
    """Serve until idle or told to end.

    Args:
        report: Called with an empty text once requests are taken.
        idle_timeout: Seconds; see `Broker`.
        activity_interval: Seconds; see `Broker`.

    Raises:
        BrokerError: As `listen`.
    """
    import tornado.httpserver

    from codespace_kernels.broker.app import make_app
    from codespace_kernels.broker.broker import Broker

    path = socket_path()
    sock, lock = listen(path)
    broker = Broker(idle_timeout=idle_timeout, activity_interval=activity_interval)
    server = tornado.httpserver.HTTPServer(make_app(broker))
    server.add_socket(sock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, broker.idle.set)
    watch = asyncio.create_task(broker.watch_idleness())
    report("")
    try:
        await broker.idle.wait()
    finally:
        watch.cancel()
        # The next broker may start while this one says goodbye: give the place free first.
        server.stop()
        path.unlink(missing_ok=True)
        lock.release()
        await broker.close()
        await server.close_all_connections()
