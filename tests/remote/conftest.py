from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.kernel import LinkKernel
from codespace_kernels.processes import is_alive, wait_for_end

from .local_connection import LocalConnection
from .recorder import Recorder


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes whose home is this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_all(home: Path) -> None:
    """End what lives in a home."""
    for process in processes_of(home):
        try:
            process.terminate()
        except psutil.Error:
            continue
    left = wait_for_end(processes_of(home), 8)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_for_end(left, 5)


def make_home() -> Path:
    # A short path: it holds sockets.
    return Path(tempfile.mkdtemp(prefix="ckr-"))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A workspace's home; its server lives as long as the module."""
    folder = make_home()
    yield folder
    end_all(folder)
    shutil.rmtree(folder)


@pytest.fixture
def fresh_home() -> Iterator[Path]:
    """A workspace's home in which nothing was started."""
    folder = make_home()
    yield folder
    end_all(folder)
    shutil.rmtree(folder)


def environment(home: Path, python: str | None = None) -> dict[str, str | None]:
    """Variables of a workspace where this Python (its folder) is the one that is found first."""
    folder = Path(python or sys.executable).parent
    config = home / "config"
    config.mkdir(exist_ok=True)
    # The front ends of this machine take a second of each start, and nobody looks at them here.
    off = dict.fromkeys(("jupyterlab", "jupyter_lsp", "notebook", "notebook_shim", "jupyter_server_terminals"), False)
    (config / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": off}}))
    return {
        "PATH": f"{folder}:/usr/bin:/bin",
        "JUPYTER_DATA_DIR": str(home / "jupyter"),
        "JUPYTER_RUNTIME_DIR": None,
        "JUPYTER_CONFIG_DIR": str(config),
        # Else the virtual environment's configuration, where those are on, would count more than this one.
        "JUPYTER_PREFER_ENV_PATH": "0",
        "IPYTHONDIR": str(home / "ipython"),
        "XDG_DATA_HOME": None,
        "VIRTUAL_ENV": None,
        "CONDA_PREFIX": None,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


@pytest.fixture
async def connection(home: Path) -> AsyncIterator[LocalConnection]:
    connection = LocalConnection(home, environment(home))
    yield connection
    await connection.close()


@pytest.fixture
async def client(connection: LocalConnection) -> AsyncIterator[LinkClient]:
    server = await ensure_server(connection, install=False)
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    yield client
    await client.close()


@pytest.fixture
async def kernel(client: LinkClient) -> AsyncIterator[LinkKernel]:
    kernel = await client.start_kernel("python3")
    yield kernel
    if client.attached:
        await kernel.shutdown()


@pytest.fixture
async def recorder(kernel: LinkKernel) -> Recorder:
    return Recorder(kernel)


def runs(pid: int) -> bool:
    try:
        return is_alive(psutil.Process(pid))
    except psutil.Error:
        return False


def wait_until_gone(pid: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while runs(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def wait_until_empty(home: Path, seconds: float = 60.0) -> None:
    """Wait until no process lives in a home: those that a server started end a moment after it."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes_of(home) if is_alive(process)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def state_files(home: Path) -> list[str]:
    folder = home / ".local/share/codespace-kernels/run"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
