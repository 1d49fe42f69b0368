"""What a kernel sends on its way into a session: outputs that find no room are left out, and their cell says so.

Only outputs are: statuses, errors and whatever is not on iopub (replies, questions) always go on, since a front end
waits for them. It is the newest that are missing, with a note in the very place of the gap.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Callable, Dict, List, NamedTuple

from .probe import DELIMITER, sign
from .spool import Spool

IOPUB = 2

_KEPT = frozenset({"status", "error", "execute_input"})
"""What is published and is no output: small, and without it a cell never ends or shows nothing of why it did."""

_HEADER, _PARENT, _CONTENT = 2, 3, 5
"""How far behind the delimiter the parts of a message stand, the signature being the first
(https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol)."""


class _Gap(NamedTuple):
    """Outputs of one cell that are missing in one place, and how many bytes waited then."""

    messages: int
    size: int
    waiting: int


class Outputs:
    """Hands the messages of one kernel on.

    Args:
        info: The kernel's connection file: what we say in its name is signed with its key.
        spool: What may be kept.
        send: Puts a message (channel and parts) into the session; raises `ValueError` where that cannot carry it.
    """

    def __init__(self, info: Dict[str, Any], spool: Spool, send: Callable[[int, List[bytes]], None]) -> None:
        self._info = info
        self._spool = spool
        self._send = send
        self._gaps: Dict[bytes, _Gap] = {}

    def put(self, channel: int, parts: List[bytes]) -> None:
        """Hand a message on, or leave it out where it is an output and there is no room."""
        if channel == IOPUB and not self._spool.has_room(sum(map(len, parts))) and _is_output(parts):
            self._leave_out(parts)
            return
        if channel == IOPUB and self._gaps:
            self._tell_gaps()
        try:
            self._send(channel, parts)
        except ValueError as error:
            self._refuse(channel, parts, str(error))

    def tick(self) -> None:
        """Tell what was left out, if there is room again: nothing else may be published for long."""
        if self._gaps and self._spool.has_room(0):
            self._tell_gaps()

    def _leave_out(self, parts: List[bytes]) -> None:
        parent = _part(parts, _PARENT)
        gap = self._gaps.get(parent, _Gap(0, 0, self._spool.size))
        self._gaps[parent] = gap._replace(messages=gap.messages + 1, size=gap.size + sum(map(len, parts)))

    def _tell_gaps(self) -> None:
        gaps, self._gaps = self._gaps, {}
        for parent, gap in gaps.items():
            self._say(
                parent,
                "Here %d messages of output (%s) are missing: %s waited for this notebook already, the most that the "
                "codespace keeps while the notebook is away or its connection is slower than the output."
                % (gap.messages, _size(gap.size), _size(gap.waiting)),
            )

    def _refuse(self, channel: int, parts: List[bytes], reason: str) -> None:
        """Leave out what the link cannot carry; who waits for a reply gets an error in its place."""
        self._say(_part(parts, _PARENT), "A message of the kernel was left out: it is %s." % reason)
        if channel != IOPUB:
            start = parts.index(DELIMITER)
            content = {"status": "error", "ename": "MessageTooLarge", "evalue": reason, "traceback": []}
            signed = [*parts[start + _HEADER : start + _CONTENT], json.dumps(content).encode()]
            self._send(channel, [*parts[: start + 1], sign(self._info, signed), *signed])

    def _say(self, parent: bytes, text: str) -> None:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "stream",
            "session": "codespace-kernels",
            "username": "",
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            "version": "5.3",
        }
        content = {"name": "stderr", "text": "[codespace-kernels] %s\n" % text}
        signed = [json.dumps(header).encode(), parent or b"{}", b"{}", json.dumps(content).encode()]
        self._send(IOPUB, [b"stream", DELIMITER, sign(self._info, signed), *signed])


def _part(parts: List[bytes], position: int) -> bytes:
    """Give a part of a message; empty where it has none."""
    try:
        return parts[parts.index(DELIMITER) + position]
    except (ValueError, IndexError):
        return b""


def _is_output(parts: List[bytes]) -> bool:
    try:
        return json.loads(_part(parts, _HEADER).decode())["msg_type"] not in _KEPT
    except (ValueError, KeyError, TypeError, RecursionError):
        return True  # Nobody waits for what is no message.


def _size(size: float) -> str:
    """Give a number of bytes for a person."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1000:
            return "%.3g %s" % (size, unit)
        size /= 1024
    return "%.3g GiB" % size
