"""Noticing that nobody is at the other end any more, which TCP alone tells after a quarter of an hour."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codespace_kernels.ssh.session import SshSession


@dataclasses.dataclass(frozen=True)
class KeepaliveOptions:
    """When to ask whether the peer is there, and when to give it up.

    A peer that sends nothing at all is given up after `interval * (limit + 1)` seconds.

    Attributes:
        interval: Seconds of silence before it is asked, and between two questions. 0 switches the check off.
        limit: Questions that may stay unanswered.
    """

    interval: float = 10.0
    limit: int = 2


async def watch(session: SshSession, options: KeepaliveOptions) -> str:
    """Ask the peer while it is silent; return, with a sentence that says so, when it stays silent.

    Any packet counts as a sign of life, so nothing is asked while data comes in.
    """
    if options.interval <= 0:
        await asyncio.get_running_loop().create_future()
    asked = 0
    while asked <= options.limit:
        heard_at = session.received_at
        await asyncio.sleep(options.interval if asked else max(options.interval - session.idle_seconds(), 0.001))
        if session.received_at != heard_at:
            asked = 0
            continue
        if asked < options.limit:
            # OpenSSH's own request; a peer that does not know it answers with a failure, which is an answer.
            session.send_request("keepalive@openssh.com", _ignore)
        asked += 1
    return f"no answer from the other end for {session.idle_seconds():.0f} s"


def _ignore(reply: object) -> None:
    """Drop the answer: that it came is noted with every packet."""
