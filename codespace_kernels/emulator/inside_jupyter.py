"""The codespace's own Jupyter server: JupyterLab where it is installed, else the plain server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.emulator.services import JupyterAddress
from codespace_kernels.errors import NoJupyterError, WaitTimeoutError

if TYPE_CHECKING:
    from codespace_kernels.emulator.inside import Inside

logger = logging.getLogger(__name__)

PATIENCE = 25.0
"""Seconds that a start may take; clients give the whole call 30."""


NO_JUPYTER = (
    "JupyterLab could not be found in the container. Install it in the image or add "
    '"ghcr.io/devcontainers/features/python:1": {"installJupyterlab": true} to the features of your devcontainer.json.'
)


class JupyterServer:
    """Starts the server when it is asked for, and finds it when it runs. Used on one event loop."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    @property
    def pids(self) -> list[int]:
        """Process ids, for `end_processes`."""
        return [self._process.pid] if self._process else []

    async def start(self) -> JupyterAddress:
        """Give the address of the running server; starts one where none runs.

        Raises:
            NoJupyterError: The image has no Jupyter server, or it ended at once.
            WaitTimeoutError: It did not answer within `PATIENCE`.
        """
        async with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = await asyncio.to_thread(self._launch)
            return await self._wait(self._process)

    def ended(self) -> None:
        """Take note that the machine's processes were ended."""
        if self._process is not None:
            self._process.wait(timeout=5)
            self._process = None

    def _launch(self) -> subprocess.Popen[bytes]:
        module = next((name for name in ("jupyterlab", "jupyter_server") if self._inside.python.has(name)), None)
        if module is None:
            raise NoJupyterError(NO_JUPYTER)
        # The token is the server's own choice: it stands in no argv and no variable, only in its runtime file.
        command = [str(self._inside.python.executable), "-m", module, "--no-browser", "--ServerApp.ip=127.0.0.1"]
        command += [f"--ServerApp.port={_free_port()}", f"--ServerApp.root_dir={self._inside.workspace}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--allow-root")
        with (self._inside.etc / "jupyter.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._inside.workspace,
                env=self._inside.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def _wait(self, process: subprocess.Popen[bytes]) -> JupyterAddress:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise NoJupyterError(
                    f"JupyterLab ended at once with status {process.returncode}; see {self._inside.etc}/jupyter.log."
                )
            info = self._info(process.pid)
            if info is not None:
                port, token = int(info["port"]), info["token"]
                return JupyterAddress(port, f"http://127.0.0.1:{port}/?token={token}")
            await asyncio.sleep(0.05)
        raise WaitTimeoutError.after("JupyterLab to answer in the container", PATIENCE)

    def _info(self, pid: int) -> dict[str, Any] | None:
        """Read what the server wrote about itself once it listens."""
        try:
            info = json.loads((self._inside.jupyter_runtime / f"jpserver-{pid}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return info if isinstance(info, dict) else None


def _free_port() -> int:
    """Give a port that is free now; Jupyter tries others where it is taken meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port
