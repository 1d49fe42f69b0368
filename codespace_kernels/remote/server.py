"""Finds the server that runs, or starts one that outlives the connection."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from typing import Any, Dict, NamedTuple, Optional

from ..link import frames
from . import places
from .process import is_same_process

EXTENSION = "codespace_kernels.remote.extension"
LARGEST_WEBSOCKET_MESSAGE = 1 << 30


class ServerError(Exception):
    """The server did not start.

    Args:
        text: Sentence for a person.
        log: End of its log.
    """

    def __init__(self, text: str, log: str = "") -> None:
        super().__init__(text)
        self.log = log


class Options(NamedTuple):
    """How a server is started.

    Attributes:
        folder: Its root.
        idle_timeout: Seconds without kernel and client until it ends; 0 for never.
        keep: Seconds that the session of a client which is away is kept.
        import_path: The bundle that holds this code.
        timeout: Seconds that it may take to come up.
    """

    folder: str
    idle_timeout: float
    keep: float
    import_path: str
    timeout: float


class Runtime:
    """The files of this user's server. Their names hold the link's major version: a later one gets its own server."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.state = os.path.join(folder, "server-%d.json" % frames.MAJOR)
        self.log = os.path.join(folder, "server-%d.log" % frames.MAJOR)
        self.config = os.path.join(folder, "config-%d.json" % frames.MAJOR)
        self.lock = os.path.join(folder, "lock")


def running_server(runtime: Runtime) -> Optional[Dict[str, Any]]:
    """Give the state of the server that runs; None where there is none that answers."""
    try:
        with open(runtime.state) as file:
            state = json.load(file)
        alive = is_same_process(int(state["pid"]), str(state["start_time"])) and _answers(state["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        # Missing, or half-written by a machine that went down: the next server writes it anew.
        return None
    return dict(state) if alive else None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        attempt.settimeout(2)
        try:
            attempt.connect(path)
        except OSError:
            return False
    return True


def start_server(python: str, environment: Dict[str, str], runtime: Runtime, options: Options) -> Dict[str, Any]:
    """Start a server with this interpreter and wait until it can be reached; give its state.

    Raises:
        ServerError: It ended, or did not come up in time.
    """
    _remove(runtime.state)
    original = environment.get("PYTHONPATH")
    places.write_private(runtime.config, json.dumps(_configuration(runtime, options, original)))
    path = os.pathsep.join(part for part in (options.import_path, original) if part)
    try:
        process = _spawn(python, {**environment, "PYTHONPATH": path}, runtime)
        return _wait_for_state(process, runtime, options.timeout)
    finally:
        # It holds the token, and the server has read it.
        _remove(runtime.config)


def _spawn(python: str, environment: Dict[str, str], runtime: Runtime) -> "subprocess.Popen[bytes]":
    log = os.open(runtime.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [python, "-m", "jupyter_server", "--config=" + runtime.config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=runtime.folder,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _configuration(runtime: Runtime, options: Options, pythonpath: Optional[str]) -> Dict[str, Any]:
    """Give the server's configuration: a file of mode 0600, as a token in an argv or the environment is seen by others.

    `--config` stands in the place of the user's own `jupyter_server_config`, which may name another port, a password or
    a certificate; `jupyter_config` (kernelspec managers, for one) and enabled extensions still count.
    """
    return {
        "ServerApp": {
            "ip": "127.0.0.1",
            "port": _free_port(),
            "open_browser": False,
            "allow_root": True,
            "root_dir": options.folder,
            "jpserver_extensions": {EXTENSION: True},
            "tornado_settings": {"websocket_max_message_size": LARGEST_WEBSOCKET_MESSAGE},
        },
        "IdentityProvider": {"token": secrets.token_hex(24)},
        "ZMQChannelsWebsocketConnection": {"limit_rate": False},
        "CodespaceKernels": {
            "runtime": runtime.folder,
            "state": runtime.state,
            "log": runtime.log,
            "import_path": options.import_path,
            "pythonpath": pythonpath,
            "idle_timeout": options.idle_timeout,
            "keep": options.keep,
        },
    }


def _free_port() -> int:
    """Give a port that is free now; if it is taken meanwhile, the server looks further.

    Not 0: jupyter_server 2.0 listens on a random port then, but goes on saying 0.
    """
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port: int = attempt.getsockname()[1]
        return port


def _wait_for_state(process: "subprocess.Popen[bytes]", runtime: Runtime, timeout: float) -> Dict[str, Any]:
    deadline = time.monotonic() + timeout
    while True:
        state = running_server(runtime)
        if state is not None and state["pid"] == process.pid:
            return state
        code = process.poll()
        if code is not None:
            raise ServerError("it ended with exit status %d" % code, log_tail(runtime))
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise ServerError("it was not up after %g s" % timeout, log_tail(runtime))
        time.sleep(0.02)


def log_tail(runtime: Runtime, size: int = 2000) -> str:
    """Give the end of the server's log."""
    try:
        with open(runtime.log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
