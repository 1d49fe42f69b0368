"""Finds out when a kernel that was restarted listens again."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import uuid

from codespace_kernels.messages import Channel, Message


class Probe:
    """Asks `kernel_info` in our own name; the answers are kept from clients.

    Attributes:
        ready: Set once a reply and an iopub message have come: all of the server's sockets reach the new process.
    """

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self._session = uuid.uuid4().hex
        self._mark = self._session.encode()
        self._numbers = itertools.count()
        self._replied = self._published = False

    def reset(self) -> None:
        """Begin anew, for another process; late answers of the old one no longer count."""
        self.ready.clear()
        self._replied = self._published = False

    def request(self) -> Message:
        """Make the next request."""
        header = {
            "msg_id": f"{self._session}_{next(self._numbers)}",
            "msg_type": "kernel_info_request",
            "session": self._session,
            "username": "codespace-kernels",
            "date": datetime.datetime.now(datetime.UTC).isoformat(),
            "version": "5.3",
        }
        return Message((), json.dumps(header).encode(), b"{}", b"{}", b"{}")

    def takes(self, channel: Channel, message: Message) -> bool:
        """Tell whether a message answers this probe, and note it."""
        if self._mark not in message.parent:
            return False
        if channel is Channel.IOPUB:
            self._published = True
        else:
            self._replied = True
        if self._replied and self._published:
            self.ready.set()
        return True
