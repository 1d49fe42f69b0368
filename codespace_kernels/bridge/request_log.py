"""Which requests a kernel has not answered yet, in a file: the process that comes after this one sees to their end.

A line of JSON for each thing that happened, appended before a client hears of it: what is not there has not reached the
client, and is sent again by whoever carries the messages. Of a request there is what its answer needs: channel,
identities and header, never its content. It survives `kill -9`, for which no `fsync` is needed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.bridge.activity import is_request
from codespace_kernels.messages import Channel, MalformedMessageError, Message
from codespace_kernels.strict_data import UnsoundDataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_log = logging.getLogger(__name__)

HEAD = ["codespace-kernels requests", 1]
"""The first line: whose file it is, and its version."""

MAX_HEADER = 8 * 1024
"""Bytes of a request's header and identities; a request with more of them is not written down."""

MAX_OPEN = 2_000
"""How many open requests are written down."""

REWRITE_BYTES = 256 * 1024
"""Size from which a file is written anew when most of it is of no use any more."""

MAX_BYTES = 32 * 1024 * 1024
"""A larger file is not read."""

_ASKED, _ANSWERED, _IDLE, _OVER = "asked", "answered", "idle", "over"


class OpenRequest(NamedTuple):
    """A request that a kernel has, and of which a client waits for something.

    Attributes:
        channel: On which it came.
        request: Its identities and header; the rest is empty.
        is_answered: Whether no reply is to come.
        is_idle: Whether the kernel is done with it; its reply, or what clients have not taken, may be missing.
    """

    channel: Channel
    request: Message
    is_answered: bool
    is_idle: bool = False


class RequestLog:
    """Of one kernel. A failure to write is logged and ends it: the kernel goes on.

    Args:
        path: Of the file, in a folder private to this user; None for nothing to be kept. It is made when it is needed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._descriptor = -1
        self._size = 0
        self._lines: dict[str, bytes] = {}
        self._answered: set[str] = set()
        # Whether clients may not have been told yet, in the order in which the kernel was done with them.
        self._idle: dict[str, bool] = {}

    def restore(self) -> list[OpenRequest]:
        """Give what another process has left, oldest first, and go on with it.

        Raises:
            UnsoundDataError: The file is not one of ours.
            OSError: It cannot be read.
        """
        if self._path is None or not self._path.exists():
            return []
        if self._path.stat().st_size > MAX_BYTES:
            raise UnsoundDataError("it is too large")
        requests = _read(self._path.read_bytes())
        self._lines = {msg_id: _asked_line(one.channel, one.request) for msg_id, one in requests.items()}
        self._answered = {msg_id for msg_id, one in requests.items() if one.is_answered}
        self._idle = {msg_id: True for msg_id, one in requests.items() if one.is_idle}
        self._write_anew()
        return list(requests.values())

    def asked(self, msg_id: str, channel: Channel, request: Message) -> None:
        """Write down a request, before the kernel has it."""
        size = len(request.header) + sum(map(len, request.identities))
        if self._path is None or size > MAX_HEADER or len(self._lines) >= MAX_OPEN:
            return
        line = self._lines[msg_id] = _asked_line(channel, request)
        self._append(line)

    def begun(self, msg_id: str, header: bytes) -> None:
        """Write down what the kernel begins with and will not reply to: a message of a widget.

        Args:
            msg_id: Of the message.
            header: Its header.
        """
        if msg_id in self._lines or is_request(header):
            return
        self.asked(msg_id, Channel.SHELL, Message((), header, b"{}", b"{}", b"{}"))
        self.answered(msg_id, is_busy=True)

    def answered(self, msg_id: str, *, is_busy: bool) -> None:
        """Write down that a request has its reply, before the client has it.

        Args:
            msg_id: Of the request.
            is_busy: Whether the kernel is still to say that it is done with it.
        """
        if msg_id not in self._lines:
            return
        if is_busy or self._idle.get(msg_id, False):
            self._answered.add(msg_id)
            self._append(_line([_ANSWERED, msg_id]))
        else:
            self._forget(msg_id)

    def idle(self, msg_id: str) -> bool:
        """Write down that the kernel is done with a request, before clients hear of it; false where it is unknown."""
        if msg_id not in self._lines:
            return False
        # At the end, where it was idle at another process already.
        self._idle.pop(msg_id, None)
        self._idle[msg_id] = True
        self._append(_line([_IDLE, msg_id]))
        return True

    def delivered(self, msg_id: str) -> None:
        """Write down that clients have been told of it, and so of all that the kernel was done with before."""
        if msg_id not in self._idle:
            return
        for done in list(self._idle):
            if done in self._answered:
                self._forget(done)
            else:
                self._idle[done] = False
            if done == msg_id:
                return

    def clear(self) -> None:
        """Write down that nothing is open: the process that had the requests is gone."""
        if self._lines:
            self._forget_all()
            self._write_anew()

    def leave(self) -> None:
        """Write no more; the file stays for whoever goes on with the kernel."""
        self._path = None
        self._forget_all()
        self._close()

    def remove(self) -> None:
        """Remove the file."""
        path = self._path
        self.leave()
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _forget_all(self) -> None:
        self._lines.clear()
        self._answered.clear()
        self._idle.clear()

    def _forget(self, msg_id: str) -> None:
        del self._lines[msg_id]
        self._answered.discard(msg_id)
        self._idle.pop(msg_id, None)
        self._append(_line([_OVER, msg_id]))

    def _append(self, line: bytes) -> None:
        if self._descriptor < 0 or self._size > REWRITE_BYTES:
            self._write_anew()
            return
        try:
            self._size += os.write(self._descriptor, line)
        except OSError as error:
            self._give_up(error)

    def _write_anew(self) -> None:
        """Put another file in the place of this one, at once, with what is open now."""
        if self._path is None:
            return
        happened = [[_ANSWERED, msg_id] for msg_id in self._answered] + [[_IDLE, msg_id] for msg_id in self._idle]
        lines = [_line(HEAD), *self._lines.values(), *map(_line, happened)]
        new = self._path.with_suffix(".new")
        try:
            with open(new, "wb", opener=_private) as file:
                file.write(b"".join(lines))
            # Before the rename: an open file cannot be replaced on Windows.
            self._close()
            new.replace(self._path)
            flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
            # What is open does not count: with much of it the file would be written anew at each line.
            self._descriptor, self._size = os.open(self._path, flags), 0
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        _log.warning("open requests are not written down any more: %s; none is ended if the broker dies", error)
        self.remove()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _asked_line(channel: Channel, request: Message) -> bytes:
    parts = [base64.b64encode(part).decode() for part in (*request.identities, request.header)]
    return _line([_ASKED, int(channel), *parts])


def _line(fields: list[Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _read(data: bytes) -> dict[str, OpenRequest]:
    """Read a file; a line without its end was being written when its process died, and counts as none."""
    first, *lines = [_fields(line) for line in data.split(b"\n")[:-1]] or [[]]
    if first != HEAD:
        raise UnsoundDataError("it is not of this program, or of another version")
    return _replay(lines)


def _fields(line: bytes) -> list[Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise UnsoundDataError("it has a line that is no JSON") from None
    if not isinstance(fields, list):
        raise UnsoundDataError("it has a line that says nothing")
    return fields


def _replay(lines: Iterable[list[Any]]) -> dict[str, OpenRequest]:
    requests: dict[str, OpenRequest] = {}
    for line in lines:
        try:
            kind, subject, *parts = line
            if kind == _ASKED:
                request = OpenRequest(Channel(subject), _message(parts), is_answered=False)
                requests[str(request.request.header_dict()["msg_id"])] = request
            elif kind == _ANSWERED:
                requests[subject] = requests[subject]._replace(is_answered=True)
            elif kind == _IDLE:
                # Behind those that were idle before it.
                requests[subject] = requests.pop(subject)._replace(is_idle=True)
            elif kind == _OVER:
                del requests[subject]
            else:
                raise UnsoundDataError("it has a line of another kind")
        except (ValueError, KeyError, TypeError, MalformedMessageError):
            raise UnsoundDataError("it has a line that does not fit the others") from None
    return requests


def _message(parts: list[str]) -> Message:
    *identities, header = [base64.b64decode(part, validate=True) for part in parts]
    return Message(tuple(identities), header, b"{}", b"{}", b"{}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
