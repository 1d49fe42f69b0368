"""Programs that a run starts, talks to and ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WAIT = 60.0
"""Seconds that a single step may take."""


class BenchmarkError(Exception):
    """A way to a kernel or a program did not do its part."""


class Program:
    """A child that speaks lines of JSON.

    Args:
        command: What runs.
        env: Its environment; None: this process's.
        log: What its stderr is added to; None: nothing.
    """

    def __init__(self, *command: str, env: dict[str, str] | None = None, log: Path | None = None) -> None:
        self._log, self._name = log, " ".join(command[:3])
        with (log or Path(os.devnull)).open("ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, cwd=ROOT
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout

    def read(self, timeout: float = WAIT) -> Any:
        """Read a line of JSON, within so many seconds.

        Raises:
            BenchmarkError: None came.
        """
        if not select.select([self._stdout], [], [], timeout)[0]:
            raise BenchmarkError(f"{self._name}: no answer within {timeout:g} s{self._tail()}")
        line = self._stdout.readline()
        if not line:
            raise BenchmarkError(f"{self._name} ended{self._tail()}")
        return json.loads(line)

    def write(self, line: str) -> None:
        """Write a line."""
        self._stdin.write(line.encode() + b"\n")
        self._stdin.flush()

    def end(self) -> None:
        """End it: by the end of its stdin, or else by force."""
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            self.process.communicate(timeout=15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _tail(self) -> str:
        return f"\n{self._log.read_text()[-3000:]}" if self._log else ""


@contextlib.contextmanager
def running(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background; end it afterwards."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Terminate a process, and kill it where that does not help."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(port: int) -> None:
    """Wait until somebody listens on a port of this machine.

    Raises:
        BenchmarkError: Nobody does within `WAIT`.
    """
    ends = time.monotonic() + WAIT
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.002)
    raise BenchmarkError(f"nobody listens on port {port} within {WAIT:g} s")
