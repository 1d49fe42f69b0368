"""What the broker's end of a link writes down while it lives, so that another process can go on in its place.

Two files for each session. The *log* has what is sent: each message as it is queued, each frame as it is numbered,
always before the stream has it. The *marks* are a table in memory that the operating system keeps when the process is
killed: up to which number everything that came was confirmed, and for each kernel and channel what was delivered beyond
that. The log holds what is sent to kernels, code included, so it is private and goes with the session.

Both survive `kill -9`, for which no `fsync` is needed: what was written is in the operating system's memory. A power
cut may lose the end of them; such an end does not fit its peer, and the session begins anew (see `LinkClient`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import mmap
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.link.receipts import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from codespace_kernels.link.durable import DurableSession
    from codespace_kernels.link.receipts import Key
    from codespace_kernels.remote_kernel import Token

log = logging.getLogger(__name__)

MAGIC = b"ck-link-log 1\n"
MAX_LOG = 1 << 31
"""Bytes. A longer log is not read."""

REWRITE_BYTES = 1 << 20
"""Size from which a log is written anew when most of it is of no use any more."""

QUEUED, REST, KEPT, NUMBERED, DISCARDED, MET, BEGUN = range(1, 8)
"""Kinds of records: a message, what is left of one, a numbered frame, the next piece of a kernel gets its number, what
a kernel has queued is dropped, another peer, and the beginning of the file."""

MESSAGE = struct.Struct("!IBQ")
FRAME = struct.Struct("!QIBB")
KERNEL = struct.Struct("!I")
"""What stands before the bytes: kernel, channel and size of a whole message; number, kernel, channel and whether more
follow, of a frame; a kernel."""

_RECORD = struct.Struct("!IIB")

BROKEN = (ValueError, KeyError, TypeError, IndexError, struct.error)
"""What a journal raises whose records do not fit each other."""

_MARKS_MAGIC = 0x31534B52414D4B43
_ROWS, _ROW, _HEAD = 4096, 12, 4
_CHANNELS = 5
_UNFINISHED = 1 << 63


class JournalError(Exception):
    """A journal that cannot be used; the text says why."""


class Record(NamedTuple):
    """One record of a log: its kind and what it says."""

    kind: int
    body: bytes


class Past(NamedTuple):
    """What a journal says.

    Attributes:
        session, endpoint, peer: See `frames.Hello`.
        sent: Number of the last frame before the first record.
        epoch: How often the peer was replaced.
        records: What happened since then.
        confirmed: Up to which number everything that came was confirmed.
        seen: What is known beyond that, by kernel and channel.
    """

    session: str
    endpoint: str
    peer: str
    sent: int
    epoch: int
    records: list[Record]
    confirmed: int
    seen: dict[Key, Seen]


class Marks:
    """The table of what has come, in a file that is mapped into memory; each entry is written as a whole."""

    def __init__(self, path: Path, *, anew: bool = True) -> None:
        self._path = path
        size = 8 * (_HEAD + _ROWS * _ROW)
        with open(path, "w+b" if anew else "r+b", opener=_private) as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._words = memoryview(self._map).cast("Q")
        rows = range(_HEAD + (_ROWS - 1) * _ROW, _HEAD - 1, -_ROW)
        self._rows = {self._words[row] - 1: row for row in rows if self._words[row]}
        self._free = [row for row in rows if not self._words[row]]
        self._words[0] = _MARKS_MAGIC

    def begin(self, epoch: int, confirmed: int = 0, seen: dict[Key, Seen] | None = None) -> None:
        """Start with these entries; they count as soon as all are there."""
        self._words[1] = 0
        for number in list(self._rows):
            self.forget(number)
        self.confirmed(confirmed)
        for key, one in (seen or {}).items():
            self._set(key, 0, one.delivered)
            self._set(key, 1, one.given_up | (_UNFINISHED if one.unfinished else 0))
        self._words[1] = epoch + 1

    def confirmed(self, number: int) -> None:
        """Note up to where everything is confirmed."""
        self._words[2] = number

    def delivered(self, key: Key, number: int) -> None:
        """Note the last frame of a message that was delivered."""
        self._set(key, 0, number)

    def given_up(self, key: Key, number: int, *, unfinished: bool) -> None:
        """Note the last frame of a message that is confirmed undelivered."""
        self._set(key, 1, number | (_UNFINISHED if unfinished else 0))

    def forget(self, kernel: int) -> None:
        """Free the entries of a kernel."""
        row = self._rows.pop(kernel, None)
        if row is not None:
            self._words[row] = 0
            self._free.append(row)

    def close(self) -> None:
        """Let go of the file."""
        self._words.release()
        self._map.close()

    def _set(self, key: Key, which: int, value: int) -> None:
        kernel, channel = key
        if channel >= _CHANNELS:
            return
        at = self._row(kernel) + 1 + 2 * channel + which
        if self._words[at] & ~_UNFINISHED <= value & ~_UNFINISHED:
            self._words[at] = value

    def _row(self, kernel: int) -> int:
        row = self._rows.get(kernel)
        if row is None:
            row = self._rows[kernel] = self._free.pop()
            for word in range(row + 1, row + _ROW):
                self._words[word] = 0
            self._words[row] = kernel + 1
        return row


def read_marks(path: Path, epoch: int) -> tuple[int, dict[Key, Seen]]:
    """Read what another process has marked; nothing where its marks are of another peer than its log.

    Raises:
        JournalError: They are no marks.
        OSError: They cannot be read.
    """
    size = 8 * (_HEAD + _ROWS * _ROW)
    if path.stat().st_size != size:
        raise JournalError("marks of another size")
    words = memoryview(path.read_bytes()).cast("Q")
    if words[0] != _MARKS_MAGIC:
        raise JournalError("no marks")
    if words[1] != epoch + 1:
        return 0, {}
    seen = {}
    for row in range(_HEAD, _HEAD + _ROWS * _ROW, _ROW):
        if words[row]:
            for channel in range(_CHANNELS):
                delivered, given_up = words[row + 1 + 2 * channel], words[row + 2 + 2 * channel]
                if delivered or given_up:
                    unfinished = bool(given_up & _UNFINISHED)
                    seen[words[row] - 1, channel] = Seen(delivered, given_up & ~_UNFINISHED, unfinished)
    return words[2], seen


class LinkJournal:
    """Of one session. A failure to write is logged and ends the journal: the link goes on.

    Args:
        folder: Private to this user.
        session: Id of the session.
        past: What was restored; a new journal where None.
    """

    def __init__(self, folder: Path, session: str, past: Past | None = None) -> None:
        self._log_path, self._marks_path = paths_of(folder, session)
        self._session_id = session
        self._endpoint = past.endpoint if past is not None else ""
        self._peer = past.peer if past is not None else ""
        self._epoch = past.epoch if past is not None else 0
        self._buffer: list[bytes] = []
        self._size = 0
        self._marks: Marks | None = None
        self._descriptor = -1

    @property
    def mark(self) -> int:
        """64 bits for the session and the peer that its frames are numbered for."""
        return _mark(self._session_id, self._epoch)

    # -- the log ------------------------------------------------------------------------------------------------------

    def begin(self, endpoint: str) -> None:
        """Begin a session's journal."""
        self._endpoint = endpoint
        with self._giving_up():
            self._write_anew([self._head(0)])
            self._marks = Marks(self._marks_path)
            self._marks.begin(self._epoch)

    def go_on(self, session: DurableSession, past: Past) -> None:
        """Go on with a session that was restored."""
        with self._giving_up():
            self._write_anew(self._records_of(session))
            self._marks = Marks(self._marks_path)
            self._marks.begin(self._epoch, past.confirmed, settled(past.seen))

    def queued(self, kernel: int, channel: int, body: bytes) -> None:
        """Write down a message before anything else is done with it."""
        self._add(QUEUED, MESSAGE.pack(kernel, channel, len(body)), body)
        self._write()

    def numbered(self, kernel: int) -> None:
        """Note that a kernel's next piece got the next number; written by `flush`."""
        self._add(NUMBERED, KERNEL.pack(kernel))

    def discarded(self, kernel: int) -> None:
        """Write down that a kernel's messages are dropped."""
        self._add(DISCARDED, KERNEL.pack(kernel))
        self._write()

    def met(self, peer: str, lost: bool) -> None:
        """Write down who the peer is; one that was replaced numbers anew."""
        self._peer = peer
        self._epoch += lost
        self._add(MET, json.dumps({"peer": peer, "lost": lost, "epoch": self._epoch}).encode())
        self._write()
        if lost and self._marks is not None:
            self._marks.begin(self._epoch)

    def flush(self, session: DurableSession) -> None:
        """Write what has been noted, before the stream has it; begin a new file where most of this one is old."""
        if self._buffer:
            self._write()
        if self._size > REWRITE_BYTES and self._size > 4 * (session.kept_bytes + session.queued_bytes):
            with self._giving_up():
                self._write_anew(self._records_of(session))

    def _records_of(self, session: DurableSession) -> list[bytes]:
        sent, kept, queues = session.outgoing()
        records = [self._head(sent)]
        for number, kernel, channel, more, body in kept:
            records += _record(KEPT, FRAME.pack(number, kernel, channel, more), body)
        for kernel, channel, whole, body in queues:
            kind = QUEUED if whole == len(body) else REST
            records += _record(kind, MESSAGE.pack(kernel, channel, whole), body)
        return records

    def _head(self, sent: int) -> bytes:
        head = {"session": self._session_id, "endpoint": self._endpoint, "peer": self._peer, "sent": sent}
        return MAGIC + b"".join(_record(BEGUN, json.dumps({**head, "epoch": self._epoch}).encode()))

    def _add(self, kind: int, *body: bytes) -> None:
        if self._descriptor >= 0:
            self._buffer += _record(kind, *body)

    def _write(self) -> None:
        data, self._buffer = b"".join(self._buffer), []
        with self._giving_up():
            if self._descriptor >= 0:
                self._size += len(data)
                _write_all(self._descriptor, data)

    def _write_anew(self, records: list[bytes]) -> None:
        """Put another file in the place of the log, at once."""
        temporary = self._log_path.with_suffix(".new")
        data = b"".join(records)
        with open(temporary, "wb", opener=_private) as file:
            file.write(data)
        # Before the rename: an open file cannot be replaced on Windows.
        self._close_log()
        temporary.replace(self._log_path)
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor, self._size = os.open(self._log_path, flags), len(data)

    # -- the marks ----------------------------------------------------------------------------------------------------

    def confirmed(self, number: int) -> None:
        """Mark up to where everything is about to be confirmed."""
        if self._marks is not None:
            self._marks.confirmed(number)

    def delivered(self, key: Key, number: int) -> None:
        """Mark a message as delivered."""
        if self._marks is not None:
            self._marks.delivered(key, number)

    def given_up(self, key: Key, number: int, *, unfinished: bool) -> None:
        """Mark a message as confirmed undelivered."""
        if self._marks is not None:
            self._marks.given_up(key, number, unfinished=unfinished)

    def forget(self, kernel: int) -> None:
        """Free what is marked of a kernel that is let go of."""
        if self._marks is not None:
            self._marks.forget(kernel)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the files; they stay for whoever goes on."""
        self._close_log()
        if self._marks is not None:
            self._marks.close()
            self._marks = None

    def remove(self) -> None:
        """Remove the files: the session is over."""
        self.close()
        remove_journal(self._log_path.parent, self._session_id)

    def _close_log(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("no journal of a link any more: %s; what is on its way is lost if the broker dies", error)
            with contextlib.suppress(OSError):
                self.remove()


def paths_of(folder: Path, session: str) -> tuple[Path, Path]:
    """Give the paths of a session's log and marks."""
    return folder / f"{session}.log", folder / f"{session}.marks"


def remove_journal(folder: Path, session: str) -> None:
    """Remove the files of a session."""
    for path in paths_of(folder, session):
        path.unlink(missing_ok=True)


def read_journal(folder: Path, session: str) -> Past:
    """Read what another process has left of a session; a record that is not whole, and all after it, count as none.

    Raises:
        JournalError: It is no journal of this session.
        OSError: It cannot be read.
    """
    log_path, marks_path = paths_of(folder, session)
    if log_path.stat().st_size > MAX_LOG:
        raise JournalError("a log that is too large")
    data = log_path.read_bytes()
    if not data.startswith(MAGIC):
        raise JournalError("no log")
    first, *records = _read_records(data)
    head = _read_head(first, session)
    epochs = [json.loads(record.body)["epoch"] for record in records if record.kind == MET]
    epoch = epochs[-1] if epochs else head["epoch"]
    confirmed, seen = read_marks(marks_path, epoch)
    return Past(session, head["endpoint"], head["peer"], head["sent"], epoch, records, confirmed, seen)


@functools.lru_cache(maxsize=64)
def _mark(session: str, epoch: int) -> int:
    return int(session[:12], 16) << 16 | epoch & 0xFFFF


def place_mark(kernel: int, channel: int) -> int:
    """Give a number for a kernel and a channel."""
    return kernel << 8 | channel


def settle(folder: Path, session: str, tokens: Iterable[Token]) -> None:
    """Mark as delivered what another process had handed over when it died, before it could mark it.

    A mark says that all before it was delivered, too: what came after a message that was held back is not marked.

    Args:
        folder: Of the journal.
        session: Its id.
        tokens: The messages, those of other sessions among them.

    Raises:
        JournalError: There is no journal of it, or none that can be used.
        OSError: It cannot be read or written.
    """
    try:
        past = read_journal(folder, session)
    except BROKEN as error:
        raise JournalError(f"the journal of a link does not fit itself: {error!r}") from None
    mark = _mark(session, past.epoch)
    ours = sorted((token for token in tokens if token.session == mark), key=lambda token: token.number)
    if not ours:
        return
    marks = Marks(paths_of(folder, session)[1], anew=False)
    reached = {key: one.delivered for key, one in past.seen.items()}
    for token in ours:
        key = token.place >> 8, token.place & 0xFF
        if token.after <= reached.get(key, 0):
            reached[key] = token.number
            marks.delivered(key, token.number)
    marks.close()


def _read_head(record: Record, session: str) -> dict[str, Any]:
    try:
        head = json.loads(record.body) if record.kind == BEGUN else None
    except ValueError:
        head = None
    types = {"session": str, "endpoint": str, "peer": str, "sent": int, "epoch": int}
    if not isinstance(head, dict) or any(type(head.get(name)) is not kind for name, kind in types.items()):
        raise JournalError("a log without a sound beginning")
    if head["session"] != session:
        raise JournalError("the log of another session")
    return head


def _read_records(data: bytes) -> list[Record]:
    records = []
    at = len(MAGIC)
    while at + _RECORD.size <= len(data):
        length, check, kind = _RECORD.unpack_from(data, at)
        body = data[at + _RECORD.size : at + _RECORD.size + length]
        if len(body) < length or zlib.crc32(body, kind) != check:
            break
        records.append(Record(kind, body))
        at += _RECORD.size + length
    if not records:
        raise JournalError("an empty log")
    return records


def _record(kind: int, *body: bytes) -> list[bytes]:
    check = kind
    for part in body:
        check = zlib.crc32(part, check)
    return [_RECORD.pack(sum(map(len, body)), check, kind), *body]


def settled(seen: dict[Key, Seen]) -> dict[Key, Seen]:
    """Give what is to be known after the next death, where it is told of what this one cost."""
    return {
        key: one if one.unfinished and one.given_up > one.delivered else Seen(max(one.delivered, one.given_up))
        for key, one in seen.items()
    }


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
