"""`python -m codespace_kernels.broker`: run the broker, in the foreground or detached."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from codespace_kernels.broker.daemon import run_daemon, run_detached
from codespace_kernels.broker.process import serve_forever, set_up_logging
from codespace_kernels.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

SWITCH_INTERVAL = 0.0005
"""Seconds that a busy thread goes on while others wait."""


def main() -> int:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m codespace_kernels.broker", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--daemon", action="store_true", help="detach, and return when it serves")
    where.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--idle-timeout", type=float, default=600.0, help="leave after so many unused seconds")
    parser.add_argument("--activity-interval", type=float, default=60.0, help="seconds between activity notices")
    arguments = parser.parse_args()
    # Where the loop cannot read SSH itself (see `ssh.loop_reader`) threads do, two of them in a tunnel. Beside a kernel
    # that floods, each would wait for Python's usual 5 ms until the busy loop lets it run.
    sys.setswitchinterval(SWITCH_INTERVAL)

    def serve(report: Callable[[str], None]) -> None:
        asyncio.run(
            serve_forever(report, idle_timeout=arguments.idle_timeout, activity_interval=arguments.activity_interval)
        )

    if arguments.daemon:
        idle, activity = str(arguments.idle_timeout), str(arguments.activity_interval)
        return run_daemon(serve, ["--idle-timeout", idle, "--activity-interval", activity])
    if arguments.detached:
        return run_detached(serve)
    set_up_logging(foreground=True)
    try:
        serve(lambda _: None)
    except BrokerError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a program's own message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
