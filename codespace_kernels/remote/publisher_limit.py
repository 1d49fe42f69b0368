"""Runs inside an IPython kernel: lifts the limit of its publisher, when that is safe. Its source is sent to the kernel.

Setting the option makes libzmq 4.3.5 write to the far end of each of the socket's connections. One that is just being
closed may have no far end any more, and the kernel would die of that (use after free; mended after 4.3.5, in
`pipe_t::send_hwms_to_peer`). A connection goes in three steps between libzmq's thread and ours, of which ours is done
whenever it asks for events, and before the first of them a monitor tells of it. So the option is set right after a look
at a monitor that has told of nothing for a while.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import zmq

PAUSE = 0.002
"""Seconds between two looks."""

QUIET_LOOKS = 5
"""In a row, before the option is set; so many, as what closed before the monitor was there must be over, too."""

QUIET_LOOKS_AFTER_LOSS = 50
"""In a row after a connection was closed; libzmq's thread may not be given the processor for long."""

MOST_LOOKS = 100
"""Then the thread that publishes has other things to do."""

AGAIN = 1.0
"""Seconds until the next try."""

MOST_TRIES = 10
"""Then the limit stays as it is: subscribers come and go without end."""

WAIT = 0.05
"""Seconds that the kernel's first request waits for it at most."""


def lift(thread: Any, most: int) -> None:
    """Lift the limit, now or soon; does nothing where it is lifted, or cannot be.

    Args:
        thread: The kernel's `IOPubThread`.
        most: Messages that are kept for each subscriber.
    """
    over = threading.Event()
    thread.schedule(lambda: _try(thread, most, MOST_TRIES, over))
    over.wait(WAIT)


def _try(thread: Any, most: int, tries: int, over: threading.Event) -> None:
    try:
        socket = thread.socket
        if not socket.closed and 0 < socket.sndhwm < most:
            if _is_quiet(thread, socket):
                socket.sndhwm = most
            elif tries > 1:
                thread.io_loop.call_later(AGAIN, _try, thread, most, tries - 1, over)
    except Exception:  # noqa: S110  (a kernel of another kind or version keeps its limit)
        pass
    over.set()


def _is_quiet(thread: Any, socket: Any) -> bool:
    """Look until no connection has been closed for a while, and tell whether that is so.

    The thread does nothing else meanwhile: a monitor that is still open when the kernel ends would keep it from ending.
    """
    quiet = QUIET_LOOKS
    # Not pyzmq's own address: the last monitor's is in use for a moment after its end.
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED, "inproc://" + os.urandom(16).hex())
    try:
        for _ in range(MOST_LOOKS):
            incoming = socket.events & zmq.POLLIN
            while monitor.poll(0):
                monitor.recv_multipart()
                quiet = QUIET_LOOKS_AFTER_LOSS
            if not quiet:
                break
            quiet -= 1
            time.sleep(PAUSE)
    finally:
        socket.disable_monitor()
        monitor.close(0)
    stream = getattr(thread, "_xpub_stream", None)
    if incoming and stream is not None:
        # Whoever reads it was woken up for that once, perhaps before, and would not be again.
        thread.io_loop.add_callback(stream.flush, zmq.POLLIN)
    return not quiet
