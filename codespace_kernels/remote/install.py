"""Makes an environment of our own where the image has no Jupyter server; installs ipykernel where somebody asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Iterator, List, NamedTuple, Optional

from . import places, report

PACKAGES = ("jupyter_server>=2", "ipykernel", "jsonschema<4.25")
"""ipykernel goes into our own environment too, so that there is at least one kernel. The user's stay as they are.

A newer jsonschema, with the extras that Jupyter asks for, takes more than a second at each start of the server.
"""

_TOLD = ("Collecting", "Downloading", "Installing", "Resolved", "Prepared", "Installed")


class InstallError(Exception):
    """Nothing that the workspace has could make the environment; the text says what was tried."""


class _Way(NamedTuple):
    name: str
    make: List[str]
    install: List[str]


def private_environment() -> str:
    """Give the folder of our own environment, there or not."""
    return os.path.join(places.data_folder(), "env")


def private_python() -> Optional[str]:
    """Give the interpreter of our own environment, if it was made to its end."""
    complete = os.path.exists(os.path.join(private_environment(), "complete"))
    return os.path.join(private_environment(), "bin", "python") if complete else None


def make_private_environment(path: str) -> str:
    """Make our own environment with a Jupyter server; give its interpreter.

    Args:
        path: The `PATH` of the user's login shell.

    Raises:
        InstallError: No way worked.
    """
    folder = private_environment()
    failures = []
    for way in _ways(folder, path):
        shutil.rmtree(folder, ignore_errors=True)
        report.progress("install", "Installing a Jupyter server in the workspace with %s (once)" % way.name)
        reason = _run(way.make) or _run(way.install)
        if reason is None:
            with open(os.path.join(folder, "complete"), "w"):
                return os.path.join(folder, "bin", "python")
        failures.append("%s: %s" % (way.name, reason))
    shutil.rmtree(folder, ignore_errors=True)
    raise InstallError("; ".join(failures) or "neither uv, venv nor virtualenv is there")


def _ways(folder: str, path: str) -> Iterator[_Way]:
    python = os.path.join(folder, "bin", "python")
    uv = shutil.which("uv", path=path)
    if uv is not None:
        make = [uv, "venv", "--no-project", "--python", sys.executable, folder]
        yield _Way("uv", make, [uv, "pip", "install", "--python", python, *PACKAGES])
    pip = ["-m", "pip", "--disable-pip-version-check", "install", *PACKAGES]
    yield _Way("venv and pip", [sys.executable, "-m", "venv", folder], [python, *pip])
    yield _Way("virtualenv", [sys.executable, "-m", "virtualenv", folder], [python, *pip])
    # Debian's Python has `venv` without `ensurepip`; the system's pip can install into another environment.
    bare = [sys.executable, "-m", "venv", "--without-pip", folder]
    yield _Way("venv and the system's pip", bare, [sys.executable, "-m", "pip", "--python", python, *pip[2:]])


def _run(command: List[str]) -> Optional[str]:
    """Run a command, its steps as progress; give why it failed, None if it did not."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
    except OSError as error:
        return str(error)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        text = line.decode("utf-8", "replace").strip()
        last = text or last
        report.note(text)
        if text.startswith(_TOLD):
            report.progress("install", text[:100])
    code = process.wait()
    return None if code == 0 else last or "exit status %d" % code


def install_ipykernel(python: str, path: str) -> None:
    """Install ipykernel into an environment of the user's and make a kernelspec for it; only ever on request.

    Raises:
        InstallError: It failed; says why.
    """
    report.progress("install", "Installing ipykernel into %s" % os.path.dirname(os.path.dirname(python)))
    uv = shutil.which("uv", path=path)
    ways = [[python, "-m", "pip", "--disable-pip-version-check", "install", "ipykernel"]]
    if uv is not None:
        # An environment that uv made has no pip.
        ways.insert(0, [uv, "pip", "install", "--python", python, "ipykernel"])
    reasons = []
    for way in ways:
        reason = _run(way)
        if reason is None:
            break
        reasons.append(reason)
    else:
        raise InstallError("; ".join(reasons))
    title = os.path.basename(os.path.dirname(os.path.dirname(python)))
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in title).strip(".-") or "python"
    display = "Python (%s)" % title
    reason = _run([python, "-m", "ipykernel", "install", "--user", "--name", name.lower(), "--display-name", display])
    if reason is not None:
        raise InstallError(reason)
