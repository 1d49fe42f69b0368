"""The broker's side of its keeper (see `keeper`): starts it, passes connections, and reads what the last one left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from codespace_kernels.bridge.takings import Inherited, LeftTable, Takings
from codespace_kernels.broker import keeper
from codespace_kernels.broker.state import links_folder
from codespace_kernels.link.journal import JournalError, settle
from codespace_kernels.platforms import has_unix_sockets
from codespace_kernels.settings import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from codespace_kernels.remote_kernel import Token

log = logging.getLogger(__name__)

REPORT_SECONDS = 3.0
"""How long the keeper of a broker that died may take to say what was taken; it takes milliseconds."""

END_SECONDS = 2.0
"""How long a keeper may take to end that is told to; it takes a millisecond."""

MAX_STARTS = 4
"""How often a broker starts a keeper: somebody kills them."""


def _paths(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "taken.table", folder / "taken", folder / "taken.lock"


class KeeperProcess:
    """A keeper that lives as long as this process and a moment longer. Linux only.

    Args:
        folder: Private to this user; for its report and its lock.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, folder: Path) -> None:
        _, report, lock = _paths(folder)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            lock_descriptor = _lock(lock)
            try:
                self._process = subprocess.Popen(
                    # By its file: it imports nothing of the package, and so starts in a few milliseconds.
                    [sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno()), str(report)],
                    pass_fds=(theirs.fileno(), lock_descriptor),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Of the rest, in which tokens may stand, it has no need.
                    env={"HOME": os.environ.get("HOME", "")},
                    start_new_session=True,
                )
            except BaseException:
                self._ours.close()
                raise
            finally:
                os.close(lock_descriptor)
        self._ours.setblocking(False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hold(self, slot: int, sock: socket.socket, *, lasting: bool) -> bool:
        """Pass a connection; false where the keeper does not take it now."""
        what = keeper.LAST if lasting else keeper.HOLD
        try:
            socket.send_fds(self._ours, [keeper.MESSAGE.pack(what, slot)], [sock.fileno()])
        except OSError as error:
            log.info("a connection is not kept: %s", error)
            return False
        return True

    def drop(self, slot: int) -> None:
        """Have it let go of a connection."""
        with contextlib.suppress(OSError):
            self._ours.send(keeper.MESSAGE.pack(keeper.DROP, slot))

    def watch(self, lost: Callable[[], None]) -> None:
        """Have a function called when the keeper ends by itself."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            self.unwatch()
            lost()

        # It never says anything.
        loop.add_reader(self._ours, ended)

    def unwatch(self) -> None:
        """Call nothing any more."""
        asyncio.get_running_loop().remove_reader(self._ours)

    def let_go(self) -> None:
        """Leave it alone, as if this process were dead."""
        self._ours.close()

    def end(self) -> None:
        """End it, and wait for that; a no-op where it has ended. Blocks, bounded."""
        with contextlib.suppress(OSError):
            self._ours.settimeout(END_SECONDS)
            self._ours.send(keeper.MESSAGE.pack(keeper.END, 0))
        self._ours.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Keeping:
    """Sees to it that this process has a keeper as long as it lives.

    Args:
        folder: Private to this user.
        inherited: Connections of the last broker, by local port.

    Attributes:
        takings: Where it is noted what is handed over; None where there can be no keeper.
    """

    def __init__(self, folder: Path, inherited: Mapping[int, list[Inherited]] | None = None) -> None:
        self._folder = folder
        self._keeper: KeeperProcess | None = None
        self._starts = 1
        self._renewal: asyncio.Task[None] | None = None
        self.takings: Takings | None = None
        if sys.platform != "linux" or not has_unix_sockets():
            return
        try:
            self._keeper = KeeperProcess(folder)
            self.takings = Takings(_paths(folder)[0], self._keeper, inherited)
        except OSError as error:
            for one in itertools.chain.from_iterable((inherited or {}).values()):
                one.sock.close()
            self._do_without(error)

    def watch(self) -> None:
        """Start another keeper when the one of now ends, and close in time what nobody wants; called on the loop."""
        if self._keeper is not None:
            self._keeper.watch(self._lost)
        if self.takings is not None:
            asyncio.get_running_loop().call_later(keeper.WAIT_SECONDS, self.takings.disinherit)

    def _lost(self) -> None:
        self._renewal = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        assert self._keeper is not None
        assert self.takings is not None
        await asyncio.to_thread(self._keeper.end)
        if self._starts == MAX_STARTS:
            self._do_without(OSError(f"{MAX_STARTS} of them ended"))
            return
        self._starts += 1
        log.warning("the keeper of the connections ended; another one is started")
        try:
            self._keeper = await asyncio.to_thread(KeeperProcess, self._folder)
        except OSError as error:
            self._do_without(error)
            return
        self.takings.renew(self._keeper)
        self._keeper.watch(self._lost)

    def _do_without(self, error: OSError) -> None:
        self._keeper = None
        log.warning("no keeper: a message that is handed over while this process is killed may come twice: %s", error)

    async def leave(self) -> None:
        """Have the keeper give the connections to the next process, to which they were left open."""
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        if self._keeper is not None and self.takings is not None and self.takings.has_connections:
            self._keeper.unwatch()
            self._keeper.let_go()
        else:
            await self.close()

    async def close(self) -> None:
        """End the keeper, and leave nothing: this process ends by itself, and has noted what was taken."""
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        if self._keeper is not None:
            self._keeper.unwatch()
            await asyncio.to_thread(self._keeper.end)
        for path in _paths(self._folder):
            path.unlink(missing_ok=True)


def take_over() -> Keeping:
    """Mark in the links' journals what the last broker had handed over when it died, and begin to note it ourselves."""
    folder = runtime_dir()
    journals = links_folder()
    tokens, inherited = collect(folder)
    if tokens:
        for path in journals.glob("*.log"):
            try:
                settle(journals, path.stem, tokens)
            except (JournalError, OSError) as error:
                log.info("a journal is not brought up to date: %s", error)
    return Keeping(folder, inherited)


def collect(folder: Path) -> tuple[set[Token], dict[int, list[Inherited]]]:
    """Take what the last broker left when it died, and remove its files. Blocks, bounded.

    Returns:
        The messages that it had handed over, and connections of it to go on with, by local port.

    Args:
        folder: As for `Keeping`.
    """
    table, report, lock = _paths(folder)
    if not table.exists():
        return set(), {}
    try:
        _wait_until(lambda: report.exists() or _is_free(lock))
        lines = (line.split() for line in report.read_text().splitlines())
        taken = {int(slot): int(size) for slot, size in lines}
        left = LeftTable(table)
        return left.tokens(taken), _inherit(report.with_name(f"{report.name}.socket"), left, taken)
    except (OSError, ValueError) as error:
        log.warning("it is not known what the last broker had handed over: %s", error)
        return set(), {}
    finally:
        _wait_until(lambda: _is_free(lock))
        for path in (table, report, report.with_name(f"{report.name}.socket")):
            path.unlink(missing_ok=True)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + REPORT_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


def _inherit(path: Path, left: LeftTable, taken: Mapping[int, int]) -> dict[int, list[Inherited]]:
    """Have the connections that the keeper of the last broker holds; those that are of no use are closed."""
    inherited: dict[int, list[Inherited]] = {}
    if not path.exists():
        return inherited
    for slot, sock in _given(path):
        past = left.past(slot, taken[slot]) if slot in taken else None
        if past is None:
            sock.close()
        else:
            inherited.setdefault(sock.getsockname()[1], []).append(Inherited(sock, past))
    return inherited


def _given(path: Path) -> Iterator[tuple[int, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
        asker.settimeout(REPORT_SECONDS)
        asker.connect(str(path))
        while True:
            data, descriptors, _, _ = socket.recv_fds(asker, keeper.MESSAGE.size, 1)
            if not descriptors:
                return
            sock = socket.socket(fileno=descriptors[0])
            sock.setblocking(False)
            yield keeper.MESSAGE.unpack(data)[1], sock


def _lock(path: Path) -> int:
    """Lock a file for whoever has the descriptor."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_free(path: Path) -> bool:
    with contextlib.suppress(OSError):
        os.close(_lock(path))
        return True
    return False
