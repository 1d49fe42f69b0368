"""A spec's own program, run as VS Code runs it, and the processes of codespaces: for chaos and for benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpecManager

from tests.ports import free_ports
from tests.processes import command_line, environment

PORT_NAMES = ("hb_port", "iopub_port", "control_port", "shell_port", "stdin_port")


def connection_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write what a front end does that chooses the ports itself; give the file and its content."""
    info: dict[str, Any] = dict(zip(PORT_NAMES, free_ports(5), strict=True))
    info |= {"key": "of-a-launcher", "signature_scheme": "hmac-sha256", "transport": "tcp", "ip": "127.0.0.1"}
    file = folder / "kernel-launched.json"
    file.write_text(json.dumps(info))
    return file, info


@contextlib.contextmanager
def launched(spec_name: str, file: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the `argv` of an installed spec; end it as VS Code does, by SIGTERM."""
    spec = KernelSpecManager().get_kernel_spec(spec_name)
    path = spec.env["PATH"].replace("${PATH}", os.environ["PATH"])
    command = [argument.format(connection_file=file) for argument in spec.argv]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            executable=shutil.which(command[0], path=path),
            env={**os.environ, **spec.env, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def processes_inside(folders: tuple[str, ...], wanted: str) -> list[psutil.Process]:
    """Give the processes whose home is below one of some folders and whose command line contains a text."""
    return [
        process
        for process in psutil.process_iter()
        if wanted in command_line(process) and environment(process).get("HOME", "").startswith(folders)
    ]
