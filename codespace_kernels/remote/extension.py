"""The Jupyter server extension: commands of the link, the child process, and the server's lifetime."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import socket
import time
from typing import Any, Dict, List, Optional

from .child_process import ChildProcess
from .kernels import Kernels
from .process import start_time_of
from .server_commands import ServerCommands, versions
from .watch import INTERVAL

log = logging.getLogger(__name__)


def _jupyter_server_extension_points() -> List[Dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    extension = Extension(serverapp)
    with contextlib.suppress(OSError):
        # Tried again when the server runs, which ends if it cannot be had.
        extension.begin()
    serverapp.io_loop.add_callback(extension.run)


class Extension:
    """What the bootstrap script set up the server for.

    Its options stand in the section `CodespaceKernels` of the server's configuration file: `runtime` (private folder),
    `import_path`, `pythonpath` (the value before ours was put in front, or None), `idle_timeout` and `keep` (seconds).
    """

    def __init__(self, serverapp: Any) -> None:
        self._app = serverapp
        self._options: Dict[str, Any] = dict(serverapp.config["CodespaceKernels"])
        self._attached = 0
        self._used_at = time.monotonic()
        self._restore_environment()
        self._socket_path = os.path.join(self._options["runtime"], "link-%d.sock" % os.getpid())
        self._state_path = self._options["state"]
        kernels = self._kernels = Kernels(
            serverapp.kernel_manager, serverapp.kernel_spec_manager, serverapp.root_dir, self._options["runtime"]
        )
        self._commands = ServerCommands(kernels, self._write, self._server_info, self._stop)
        self._child: Optional[ChildProcess] = None

    def begin(self) -> None:
        """Start the child while the server still loads other extensions; nobody is told of it yet.

        Raises:
            OSError: It cannot be started.
        """
        listener = _listen(self._socket_path)
        atexit.register(self._clean_up)
        import_path, keep = self._options["import_path"], float(self._options["keep"])
        folder = self._options["runtime"]
        child = ChildProcess(listener, import_path, keep, folder, self._received, self._child_replaced)
        child.begin()
        self._child = child

    async def run(self) -> None:
        """Serve until the server ends; without us it would be of no use, so it ends if we cannot."""
        try:
            await self._run()
        except Exception:
            log.exception("The extension failed; the server ends.")
            self._stop()

    async def _run(self) -> None:
        if self._child is None:
            self.begin()
        assert self._child is not None
        self._write_state()
        watching = asyncio.ensure_future(self._watch())
        try:
            await self._child.run()
        finally:
            watching.cancel()

    def _restore_environment(self) -> None:
        """Take our way in out of the environment that kernels and terminals inherit."""
        original = self._options["pythonpath"]
        if original is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = original

    def _write(self, document: Dict[str, Any], raw: Any = ()) -> None:
        if self._child is not None:
            self._child.write(document, raw)

    def _received(self, record: Dict[str, Any]) -> None:
        if "attached" in record:
            self._attached = record["attached"]
            self._used_at = time.monotonic()
        else:
            self._commands.received(record)

    def _child_replaced(self) -> None:
        self._attached = 0
        self._commands.child_replaced()

    # -- lifetime -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self._commands.watch.look()
                self._kernels.tidy()
                await self._end_when_unused()
            except Exception:
                log.exception("looking after the kernels failed")

    async def _end_when_unused(self) -> None:
        limit = float(self._options["idle_timeout"])
        now = time.monotonic()
        if self._attached or await self._any_kernel():
            self._used_at = now
        elif limit and now - self._used_at >= limit:
            log.info("No kernel and no client for %g s: the server ends.", limit)
            self._stop()

    async def _any_kernel(self) -> bool:
        for kernel_id in self._kernels.ids():
            if await self._kernels.is_alive(kernel_id):
                return True
        return False

    def _stop(self) -> None:
        self._clean_up()
        if self._child is not None:
            self._child.close()
        self._app.stop()

    # -- files --------------------------------------------------------------------------------------------------------

    def _server_info(self) -> Dict[str, Any]:
        return {
            "pid": os.getpid(),
            "child_pid": self._child.pid if self._child is not None else None,
            "port": self._app.port,
            "base_url": self._app.base_url,
            "token": self._app.identity_provider.token,
            "folder": self._app.root_dir,
            "log": self._options["log"],
        }

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "start_time": start_time_of(os.getpid()),
            "socket": self._socket_path,
            "port": self._app.port,
            "versions": versions(),
        }
        temporary = "%s.%d" % (self._state_path, os.getpid())
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(state, file)
        os.replace(temporary, self._state_path)

    def _clean_up(self) -> None:
        """Remove our files; a state file that is another server's by now stays."""
        _unlink(self._socket_path)
        try:
            with open(self._state_path) as file:
                mine = json.load(file).get("pid") == os.getpid()
        except (OSError, ValueError):
            return
        if mine:
            _unlink(self._state_path)


def _listen(path: str) -> socket.socket:
    _unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(16)
    return listener


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
