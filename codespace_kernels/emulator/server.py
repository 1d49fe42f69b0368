"""The emulator: one HTTP server on loopback with an emulated GitHub account, its codespaces and their tunnels."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from codespace_kernels.emulator.account import DEFAULT_REPOSITORY, Account, NewCodespace
from codespace_kernels.emulator.api import NotFoundHandler, Shared
from codespace_kernels.emulator.codespace import Codespace, Host, Timing
from codespace_kernels.emulator.control import CONTROL_ROUTES
from codespace_kernels.emulator.faults import FaultBoard
from codespace_kernels.emulator.leftovers import clean_up_all
from codespace_kernels.emulator.login import LOGIN_ROUTES
from codespace_kernels.emulator.machine import Machine, MachineSpec
from codespace_kernels.emulator.pages import PAGE_ROUTES
from codespace_kernels.emulator.quota import Quota
from codespace_kernels.emulator.rest import ROUTES
from codespace_kernels.emulator.state import EmulatorRecord, read_records
from codespace_kernels.emulator.tunnels import TunnelService
from codespace_kernels.errors import EmulatorError, SettingsError

if TYPE_CHECKING:
    import socket
    from types import TracebackType

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_HIGHEST_PORT = 65535


@dataclasses.dataclass(kw_only=True)
class Emulator:
    """An emulated GitHub account on this machine; an asynchronous context manager.

    Attributes:
        folder: Where the codespaces' files are; None: a temporary folder that goes with the emulator.
        port: Port on 127.0.0.1; 0: any free one.
        repositories: Full names of the repositories that it begins with.
        codespaces: How many stopped codespaces it begins with, dealt out to the repositories in turn.
        transition_seconds: How long creating, starting and stopping take at least.
        minute_seconds: Length of the minutes in which idle timeouts and sessions are counted.
        session_minutes: After how many a codespace is stopped, even one that is in use.
        sign_in_interval: Seconds between two questions whether a person has signed in.
        rate_limit: Requests an hour.
        python: Interpreter of the codespaces.
        own_environment: Whether each codespace has a virtual environment of its own, or that interpreter's.
        sshd: `auto`, `openssh`, `paramiko` or `none` (the image has no SSH server).
        background: Whether this process does nothing but emulate, so that `emulator stop` may end it.
    """

    folder: Path | None = None
    port: int = 0
    repositories: tuple[str, ...] = (DEFAULT_REPOSITORY,)
    codespaces: int = 1
    transition_seconds: float = 0.4
    minute_seconds: float = 60.0
    session_minutes: float = 720.0
    sign_in_interval: float = 1.0
    rate_limit: int = 5000
    python: str = sys.executable
    own_environment: bool = True
    sshd: str = "auto"
    background: bool = False
    faults: FaultBoard = dataclasses.field(init=False, repr=False, default_factory=FaultBoard)
    tunnels: TunnelService = dataclasses.field(init=False, repr=False)
    account: Account = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= _HIGHEST_PORT:
            raise SettingsError(f"A port is a number from 0 to {_HIGHEST_PORT}, not {self.port}.")
        if self.codespaces < 0 or self.transition_seconds < 0 or self.minute_seconds <= 0 or self.rate_limit < 0:
            raise SettingsError("Numbers of codespaces, seconds and requests cannot be negative, nor a minute be zero.")
        if self.session_minutes <= 0:
            raise SettingsError("A session must have some minutes.")
        self.tunnels = TunnelService(self.faults)
        self._record: EmulatorRecord | None = None
        self._server: HTTPServer | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def record(self) -> EmulatorRecord:
        """What the state file says about this emulator.

        Raises:
            EmulatorError: It was never started.
        """
        if self._record is None:
            raise EmulatorError("The emulator was not started.")
        return self._record

    @property
    def api_url(self) -> str:
        """Base of the REST API, without a trailing slash."""
        return self.record.api_url

    @property
    def token(self) -> str:
        """A classic token of the emulated user, with scope `codespace`."""
        return self.record.token

    def environment(self) -> dict[str, str]:
        """Give the variables with which the real `gh` and this package use the emulated account."""
        return self.record.environment()

    async def start(self) -> None:
        """Listen, set up the account and write the state file. Cleans up after emulators that were killed.

        Raises:
            EmulatorError: The port is taken, the folder cannot be used, or a repository is named wrongly or twice.
            SettingsError: A number is out of its range.
        """
        await asyncio.to_thread(clean_up_all)
        with contextlib.ExitStack() as undo:
            self._begin(undo)
            undo.pop_all()
        log.info("the emulator listens at %s", self.api_url)

    def _begin(self, undo: contextlib.ExitStack) -> None:
        sockets = _listen(self.port)
        for listener in sockets:
            undo.callback(listener.close)
        base = f"http://{LOOPBACK}:{sockets[0].getsockname()[1]}"
        folder = _usable_folder(self.folder)
        if self.folder is None:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        timing = Timing(self.transition_seconds, self.minute_seconds, self.session_minutes, self.sign_in_interval)
        self.account = Account(Host(self.faults, timing, folder, self._make_inside))
        self._fill_account()
        self.tunnels.base_url = base
        record = self._make_record(base, folder)
        record.write()
        self._record = record
        self._server = HTTPServer(self._application(base))
        self._server.add_sockets(sockets)

    async def close(self) -> None:
        """End every process of every codespace, stop listening, remove what is temporary. Twice is no error."""
        if self._record is not None:
            await asyncio.shield(self.begin_close())

    def begin_close(self) -> asyncio.Task[None]:
        """Begin what `close` does; the task is done when it is done."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._shut())
            self._closing.add_done_callback(lambda _: self._closed.set())
        return self._closing

    async def wait_closed(self) -> None:
        """Wait until the emulator has ended, because of `close` or because it was told to."""
        await self._closed.wait()

    async def _shut(self) -> None:
        if self._server:
            self._server.stop()
        await self.account.close()
        # Lets go of the requests that a fault keeps hanging.
        self.faults.clear()
        if self._server:
            await self._server.close_all_connections()
        if self.record.temporary:
            await asyncio.to_thread(shutil.rmtree, self.record.folder, ignore_errors=True)
        # Last, because whoever waits for the end waits for this file to go.
        self.record.remove()
        log.info("the emulator at %s has ended", self.api_url)

    def _fill_account(self) -> None:
        repositories = [self.account.add_repository(name) for name in self.repositories]
        for number in range(self.codespaces if repositories else 0):
            repository = repositories[number % len(repositories)]
            turn = number // len(repositories)
            title = repository.name.replace("-", " ") + (f" {turn + 1}" if turn else "")
            self.account.add_codespace(
                NewCodespace(repository, display_name=title, devcontainer_path=repository.devcontainers[0])
            )

    def _make_record(self, base: str, folder: Path) -> EmulatorRecord:
        return EmulatorRecord(
            api_url=base,
            token=self.account.add_token().value,
            secret=secrets.token_urlsafe(32),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            folder=str(folder),
            temporary=self.folder is None,
            background=self.background,
        )

    def _make_inside(self, codespace: Codespace) -> Machine:
        spec = MachineSpec(
            name=codespace.name,
            repository=codespace.repository.full_name,
            ref=codespace.ref,
            folder=codespace.folder,
            python=self.python,
            own_environment=self.own_environment,
            sshd=self.sshd,
        )
        return Machine(
            spec,
            tunnels=self.tunnels,
            faults=self.faults,
            on_activity=codespace.touch,
            on_rebuild=codespace.rebuilding,
        )

    def _application(self, base: str) -> Application:
        shared = Shared(self.account, self.faults, Quota(self.rate_limit), base)
        rest = [(path, handler, {"shared": shared, "operations": names}) for path, handler, names in ROUTES]
        pages = [(path, handler, {"shared": shared}) for path, handler in (*LOGIN_ROUTES, *PAGE_ROUTES)]
        control = [(path, handler, {"emulator": self}) for path, handler in CONTROL_ROUTES]
        return Application(
            [*rest, *pages, *control, *self.tunnels.handlers()],
            default_handler_class=NotFoundHandler,
            default_handler_args={"shared": shared, "operations": {}},
            log_function=_log_request,
        )


def _listen(port: int) -> list[socket.socket]:
    try:
        return bind_sockets(port, LOOPBACK)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EmulatorError(
                f"Port {port} of {LOOPBACK} is taken. Choose another, or none to get a free one."
            ) from None
        raise EmulatorError(f"The emulator cannot listen on port {port} of {LOOPBACK}: {error.strerror}.") from None


def _usable_folder(folder: Path | None) -> Path:
    if folder is None:
        # Short, because sockets live below it.
        return Path(tempfile.mkdtemp(prefix="cse-"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmulatorError(f"The emulator cannot use the folder {folder}: {error.strerror}.") from None
    folder = folder.resolve()
    for record in read_records():
        if record.folder == str(folder):
            raise EmulatorError(f"The folder {folder} belongs to the emulator at {record.api_url}. Choose another.")
    return folder


def _log_request(handler: RequestHandler) -> None:
    """Log one request as a readable line; queries stay out of it, as the relay's may hold a token."""
    request = handler.request
    log.info("%s %s %d (%.0f ms)", request.method, request.path, handler.get_status(), 1000 * request.request_time())
