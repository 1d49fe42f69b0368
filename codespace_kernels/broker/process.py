"""The broker as a process: one a user, gone when nothing needs it. How it comes to life is in `daemon`."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import signal
from typing import TYPE_CHECKING

import filelock

from codespace_kernels import platforms
from codespace_kernels.broker.endpoint import endpoints, lock_path
from codespace_kernels.broker.protocol import ALREADY_RUNNING
from codespace_kernels.errors import BrokerError
from codespace_kernels.plain_text import HarmlessFormatter
from codespace_kernels.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from codespace_kernels.broker.endpoint import Endpoint
    from codespace_kernels.broker.loopback import Listening

MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request's body. It is read before the request is judged, and on a port everybody may send one."""

LOG_BYTES = 5_000_000
"""Size at which the log is rotated; one old file is kept."""


class AlreadyRunningError(BrokerError):
    """Another broker of this user is alive."""

    exit_code = ALREADY_RUNNING


def log_path() -> Path:
    """Give the path of the broker's log."""
    return state_dir() / "broker.log"


def set_up_logging(*, foreground: bool) -> None:
    """Log to the terminal, or to a file that only this user can read, as are all that this process makes from now."""
    os.umask(0o077)
    handler: logging.Handler = logging.StreamHandler()
    if not foreground:
        handler = logging.handlers.RotatingFileHandler(log_path(), maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def listen(endpoints: Sequence[Endpoint]) -> tuple[Listening, filelock.FileLock]:
    """Become this user's broker: take the lock, then listen at the first of the endpoints.

    The lock is held for life, so that a second broker cannot take the place of a live one, and is freed by the
    operating system when a broker is killed, so that the file it left is no hindrance.

    Raises:
        AlreadyRunningError: Another broker is alive.
        BrokerError: It cannot listen there.
    """
    lock = filelock.FileLock(lock_path(), mode=0o600)
    place = endpoints[0]
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise AlreadyRunningError(f"Another broker of this user is alive at {place.path}.") from None
    try:
        for endpoint in endpoints:
            endpoint.clear()
        return place.listen(), lock
    except OSError as error:
        lock.release()
        raise BrokerError(f"Cannot listen at {place.path}: {error.strerror or error}.") from None


def end_on_signals(end: Callable[[], object]) -> None:
    """Call a function of the running loop when this process is told to end."""
    loop = asyncio.get_running_loop()
    for number in platforms.ending_signals():
        try:
            loop.add_signal_handler(number, end)
        except NotImplementedError:  # loops of Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))


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
    from codespace_kernels.broker.app import make_app
    from codespace_kernels.broker.broker import Broker
    from codespace_kernels.broker.keeping import take_over
    from codespace_kernels.broker.server import BrokerServer

    places = endpoints()
    listening, lock = listen(places)
    keeping = await asyncio.to_thread(take_over)
    keeping.watch()
    broker = Broker(idle_timeout=idle_timeout, activity_interval=activity_interval, takings=keeping.takings)
    server = BrokerServer(make_app(broker, listening.guard), max_body_size=MAX_BODY)
    server.add_socket(listening.socket)
    end_on_signals(broker.hand_over)
    works = (broker.watch_idleness(), broker.lookout.run(), broker.network.run(), broker.recover())
    clocks = [asyncio.create_task(work) for work in works]
    report("")
    try:
        await broker.idle.wait()
    finally:
        for clock in clocks:
            clock.cancel()
        server.stop()
        places[0].clear()
        if broker.hands_over:
            await broker.leave()
            await keeping.leave()
            lock.release()
        else:
            # The next broker may start while this one says goodbye: give the place free first.
            await broker.forget()
            await keeping.close()
            lock.release()
            await broker.close()
        await server.close_all_connections()
