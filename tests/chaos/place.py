"""Where it all happens: a home of its own with an emulated account, its codespace, a broker, and kernels on it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import zmq
from jupyter_client.manager import AsyncKernelManager

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.process import log_path
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record
from codespace_kernels.errors import CodespaceKernelsError
from tests.e2e.conftest import EmulatedAccount, cli, end_broker
from tests.homes import isolate, living_in
from tests.launchers import connection_file, launched, processes_inside
from tests.processes import command_line

_SHUTDOWN_SECONDS = 30.0

_CLOCK = """import os, time
_true, _file = time.time, os.environ["PYTHON_CHAOS_CLOCK"]
def _wrong():
    try:
        return _true() + float(os.readlink(_file))
    except OSError:
        return _true()
time.time = _wrong
"""
"""Python runs this when the broker starts: its clock is wrong by what the name says that a symbolic link leads to."""


class Place:
    """Everything that runs.

    Args:
        home: Of all its processes; see `temporary_home`.
        link_seconds: For `CODESPACE_KERNELS_LINK_SECONDS`; empty for the product's own.

    Attributes:
        control: Of the emulator.
        spec: Name of the kernelspec.
    """

    def __init__(self, home: Path, link_seconds: str) -> None:
        self._home = home
        self._clock = home / "clock"
        self._broker_pid = 0
        self._set_clock_up()
        if link_seconds:
            os.environ["CODESPACE_KERNELS_LINK_SECONDS"] = link_seconds
        self._account = EmulatedAccount("--rate-limit", "1000000")
        os.environ.update(self._account.environment)
        self.control = ControlClient(find_record(self._account.environment["GITHUB_API_URL"]))
        done = cli("connect", self._account.codespace, "--json")
        assert done.returncode == 0
        self.spec = next(spec["name"] for spec in json.loads(done.stdout)["kernelspecs"] if spec["kernel"] == "python3")

    def close(self) -> None:
        """End everything in good order."""
        self.control.clear_faults(None, None)
        end_broker()
        assert cli("emulator", "stop").returncode == 0

    # -- kernels ------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def provisioned(self) -> Any:
        """Start a kernel as every program does that uses jupyter_client; give its connection info."""
        manager = AsyncKernelManager(kernel_name=self.spec)
        await manager.start_kernel()
        try:
            yield manager.get_connection_info()
        finally:
            await asyncio.wait_for(manager.shutdown_kernel(now=True), _SHUTDOWN_SECONDS)

    @contextlib.asynccontextmanager
    async def launched(self) -> Any:
        """Start a kernel as VS Code does, which runs the spec's argv; give its connection info."""
        file, info = connection_file(self._home)
        with launched(self.spec, file, self._home / "launcher.log"):
            yield info

    # -- what can be asked --------------------------------------------------------------------------------------------

    def broker(self) -> psutil.Process:
        """Give the broker's process."""
        self._broker_pid = int(BrokerClient().call("GET", "")["pid"])
        return psutil.Process(self._broker_pid)

    def connection_state(self) -> str:
        """Give what the broker says of the connection; empty where it says nothing."""
        try:
            (workspace,) = BrokerClient().call("GET", "status", timeout=5.0)["workspaces"]
        except (CodespaceKernelsError, ValueError):
            return ""
        return str(workspace["state"])

    def relay_connections(self) -> int:
        """Give how many connections the relay has seen."""
        return int(self.control.status()["relay_connections"])

    def inside(self, wanted: str) -> list[psutil.Process]:
        """Give the processes in the codespace whose command line contains a text."""
        return processes_inside((self.control.status()["folder"],), wanted)

    def set_clock(self, seconds: float) -> None:
        """Have the broker's clock be wrong by so much from now on."""
        new = self._clock.with_name("new-clock")
        new.symlink_to(str(seconds))
        new.replace(self._clock)

    def report(self) -> str:
        """Give what the broker knows, and the ends of the logs."""
        parts = []
        try:
            parts.append(json.dumps(BrokerClient().call("GET", "status", timeout=5.0), indent=1))
        except CodespaceKernelsError as error:
            parts.append(str(error))
        remote = [file for folder in self._remote_logs() for file in folder.glob("server-*.log")]
        logs = [log for log in (log_path(), self._home / "launcher.log", *remote) if log.exists()]
        parts += [f"-- {log}\n{log.read_text(errors='replace')[-20_000:]}" for log in logs]
        return "\n".join(parts)

    def _remote_logs(self) -> Iterator[Path]:
        yield from {file.parent for file in Path(self.control.status()["folder"]).rglob("server-*.log")}

    def _set_clock_up(self) -> None:
        folder = self._home / "clockwork"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_CLOCK)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
        os.environ["PYTHON_CHAOS_CLOCK"] = str(self._clock)


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """Give a home that this process lives in from now on; afterwards nothing lives in it any more.

    Raises:
        AssertionError: Processes were left behind; they were ended.
    """
    # A short path: sockets live below it.
    home = Path(tempfile.mkdtemp(prefix="ckc-"))
    isolate(home)
    try:
        yield home
        left = _wait_for_ends(home)
        assert not left, f"left behind: {left}"
    finally:
        for process in living_in(home):
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not os.environ.get("CHAOS_KEEP"):
            shutil.rmtree(home, ignore_errors=True)


def _wait_for_ends(home: Path) -> list[str]:
    deadline = time.monotonic() + 30
    while (left := living_in(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [command_line(process)[:200] for process in left]


def quietly(work: Callable[[], Any]) -> Any:
    """Do something whose programs' output is of interest only if it fails."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            return work()
    except BaseException:
        sys.stderr.write(output.getvalue())
        raise


def unlimited_context() -> zmq.Context[Any]:
    """Give a context of plain sockets."""
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 8192
    return context
