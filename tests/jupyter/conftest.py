"""Real Jupyter servers with real kernels."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codespace_kernels.jupyter import ServerClient, ServerUrl, WebsocketKernel

TOKEN = "s3cret-token-of-the-test-server"


class Server:
    """A jupyter_server of its own process; tests share it."""

    def __init__(self, folder: Path, *options: str, token: str = TOKEN, base: str = "/", **env: str) -> None:
        runtime = folder / "runtime"
        (folder / "root").mkdir(parents=True)
        env = {**os.environ, "JUPYTER_TOKEN": token, "JUPYTER_RUNTIME_DIR": str(runtime), **env}
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                   "--ServerApp.port=0", f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={folder / 'root'}",
                   *([] if token else ["--IdentityProvider.token="]), *options]  # fmt: skip
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        info = self._info(runtime)
        self.port = int(info["port"])
        self.url = ServerUrl(f"http://127.0.0.1:{self.port}{base}", token)

    def _info(self, runtime: Path) -> dict:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError, ValueError):
                info = json.loads((runtime / f"jpserver-{self.process.pid}.json").read_text())
                if info["port"]:
                    return info
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(folder: Path, *options: str, **kwargs) -> Iterator[Server]:
    server = Server(folder, *options, **kwargs)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """Stock settings."""
    with running(tmp_path_factory.mktemp("stock")) as one:
        yield one


@pytest.fixture(scope="session")
def legacy_server(tmp_path_factory) -> Iterator[Server]:
    """Speaks the legacy form only, and limits no rates."""
    options = [
        "--ZMQChannelsWebsocketConnection.kernel_ws_protocol=",
        "--ZMQChannelsWebsocketConnection.limit_rate=False",
    ]
    with running(tmp_path_factory.mktemp("legacy"), *options) as one:
        yield one


@pytest.fixture
async def client(server):
    client = ServerClient(server.url)
    yield client
    await client.close()


class Listener:
    """Writes down what a kernel tells."""

    def __init__(self) -> None:
        self.messages: list[tuple] = []
        self.states: list[tuple] = []
        self.gaps: list[str] = []

    def message_received(self, channel, message) -> None:
        self.messages.append((channel, message))

    def state_changed(self, state, reason) -> None:
        self.states.append((state, reason))

    def output_may_be_missing(self, reason) -> None:
        self.gaps.append(reason)


@contextlib.asynccontextmanager
async def kernel_of(client: ServerClient):
    """A fresh kernel of the server, connected to, and ended afterwards."""
    model = await client.start_kernel("python3")
    kernel = await WebsocketKernel.connect(client, model.id)
    try:
        yield kernel
    finally:
        await kernel.close()
        await client.shutdown(model.id)
