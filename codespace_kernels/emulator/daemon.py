"""The emulator as a background process of its own, as handy as ssh-agent.

The process is told its options on stdin and answers one line of JSON on stdout: `{"api_url": …}` or `{"error": …}`. So
whoever starts it knows at once how it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from codespace_kernels import settings
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.leftovers import clean_up
from codespace_kernels.emulator.server import Emulator
from codespace_kernels.emulator.state import EmulatorRecord, find_record
from codespace_kernels.errors import CodespaceKernelsError, EmulatorError, error_from_json
from codespace_kernels.processes import wait_for_end

if TYPE_CHECKING:
    from collections.abc import Callable

START_SECONDS = 30.0
STOP_SECONDS = 20.0
_KILL_SECONDS = 10.0


def configure_logging(line_format: str) -> None:
    """Log to stderr what the emulator does, and of the libraries below it only what went wrong."""
    logging.basicConfig(level=logging.WARNING, format=line_format)
    logging.getLogger("codespace_kernels").setLevel(logging.INFO)
    # A client that goes away makes paramiko report an error with a traceback, and goes away all the time.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)


async def serve(emulator: Emulator, ready: Callable[[EmulatorRecord], None]) -> None:
    """Run an emulator until it is told to end, by its control endpoint, SIGINT or SIGTERM.

    Args:
        emulator: What to run.
        ready: Called once it answers.

    Raises:
        EmulatorError: It cannot be started.
    """
    async with emulator:
        loop = asyncio.get_running_loop()
        # Windows has no signal handlers on an event loop; Ctrl-C ends the process there all the same.
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, emulator.begin_close)
        ready(emulator.record)
        await emulator.wait_closed()


def start_in_background(options: dict[str, Any]) -> EmulatorRecord:
    """Start an emulator in a process that outlives this one and its terminal, and wait until it answers.

    Args:
        options: Those of `Emulator`, fit for JSON.

    Raises:
        EmulatorError: It cannot be started; says why.
        SettingsError: An option is out of its range.
    """
    process = subprocess.Popen(
        # -P: a module of the user's in the current folder must not stand in for one of Python's.
        [sys.executable, "-P", "-m", "codespace_kernels.emulator.daemon"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=settings.state_dir(),
        start_new_session=True,
        creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
    )
    answer = _ask(process, {**options, "background": True})
    if "error" in answer:
        process.wait()
        raise error_from_json(answer["error"])
    return find_record(str(answer["api_url"]))


def _ask(process: subprocess.Popen[bytes], options: dict[str, Any]) -> dict[str, Any]:
    """Hand the options to the new process and give its answer; ends the process where none comes in time."""
    assert process.stdin
    assert process.stdout
    late = threading.Timer(START_SECONDS, process.kill)
    late.start()
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(options).encode())
        with process.stdout as stdout:
            line = stdout.readline()
    finally:
        late.cancel()
    if not line:
        error = EmulatorError(f"The emulator's process ended, or did not answer within {START_SECONDS:g} s.")
        return {"error": error.to_json()}
    answer: dict[str, Any] = json.loads(line)
    return answer


def stop(record: EmulatorRecord) -> None:
    """End an emulator and every process of it; one that hangs is killed, one that was killed is cleaned up after.

    Raises:
        EmulatorError: It runs inside another program and does not end.
    """
    with contextlib.suppress(EmulatorError):
        ControlClient(record).stop()
    if not _has_ended(record):
        if not record.background:
            raise EmulatorError(
                f"The emulator at {record.api_url} did not end within {STOP_SECONDS:g} s. It runs inside process "
                f"{record.pid}: end that one."
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(record.pid)
            process.kill()
            wait_for_end([process], _KILL_SECONDS)
    clean_up(record)


def _has_ended(record: EmulatorRecord) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while record.is_alive and (record.background or record.path.exists()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _detach(record: EmulatorRecord) -> None:
    """Tell the starter that all is well, then let go of its terminal: stdout and stderr become a log file."""
    print(json.dumps({"api_url": record.api_url}), flush=True)  # noqa: T201  (the answer to the starter)
    folder = settings.state_dir() / "emulators"
    folder.mkdir(mode=0o700, exist_ok=True)
    # One log a port, begun anew with each emulator, so that they do not pile up.
    path = folder / f"{urlsplit(record.api_url).port}.log"
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    configure_logging("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def main() -> int:
    """Be the background process."""
    try:
        options = json.load(sys.stdin)
        asyncio.run(serve(emulator_from(options), _detach))
    except CodespaceKernelsError as error:
        print(json.dumps({"error": error.to_json()}), flush=True)  # noqa: T201  (the answer to the starter)
        return 1
    return 0


def emulator_from(options: dict[str, Any]) -> Emulator:
    """Make an emulator from options that came as JSON."""
    folder = options.get("folder")
    return Emulator(**{**options, "folder": Path(folder) if folder else None})


if __name__ == "__main__":
    sys.exit(main())
