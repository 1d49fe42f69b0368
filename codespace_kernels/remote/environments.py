"""Finds the Python environments of a workspace and what is in them."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

PROBE_SECONDS = 20.0

_PROBE = """
import json, sys
try:
    from importlib.metadata import version
except ImportError:
    version = None
found = {"version": "%d.%d.%d" % sys.version_info[:3], "prefix": sys.prefix}
for name in ("jupyter_server", "ipykernel"):
    try:
        found[name] = version(name)
    except Exception:
        found[name] = ""
print(json.dumps(found))
"""

_FIXED = (
    "/usr/local/python/current/bin",
    "/opt/conda/bin",
    "/usr/local/bin",
    "/usr/bin",
    "~/.local/bin",
    "~/miniconda3/bin",
    "~/miniforge3/bin",
    "~/mambaforge/bin",
    "~/anaconda3/bin",
)
_PATTERNS = ("~/.pyenv/versions/*/bin", "~/miniconda3/envs/*/bin", "~/miniforge3/envs/*/bin", "/opt/conda/envs/*/bin")


class Environment(NamedTuple):
    """A Python that runs.

    Attributes:
        python: Path of the interpreter.
        prefix: Its environment's folder.
        version: Of Python, "3.11.7".
        jupyter_server, ipykernel: Versions, empty where not installed.
    """

    python: str
    prefix: str
    version: str
    jupyter_server: str
    ipykernel: str

    @property
    def can_serve(self) -> bool:
        """Whether it has Python and jupyter_server as new as we need."""
        return _numbers(self.version) >= (3, 8) and _numbers(self.jupyter_server) >= (2,)


def _numbers(version: str) -> Tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def find_environments(folder: str, path: str) -> List[Environment]:
    """Look at every Python that can be found, the likeliest home of the user's Jupyter first.

    Args:
        folder: The workspace's folder, whose virtual environments count.
        path: The `PATH` of the user's login shell.
    """
    interpreters = _first_of_each_folder(_candidates(folder, path))
    # All at once: each costs a start of Python.
    started = [(python, _start_probe(python)) for python in interpreters]
    found = (_finish_probe(python, process) for python, process in started)
    return [environment for environment in found if environment is not None]


def _candidates(folder: str, path: str) -> Iterator[str]:
    for name in ("jupyter", "jupyter-server", "jupyter-lab"):
        script = shutil.which(name, path=path)
        if script is not None:
            yield from _interpreter_of(script)
    for name in (".venv", "venv", "env"):
        yield os.path.join(folder, name, "bin", "python")
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(variable):
            yield os.path.join(os.environ[variable], "bin", "python")
    for name in ("python3", "python"):
        yield shutil.which(name, path=path) or ""
    for place in _FIXED:
        yield os.path.join(os.path.expanduser(place), "python3")
    for pattern in _PATTERNS:
        for place in sorted(glob.glob(os.path.expanduser(pattern)), reverse=True):
            yield os.path.join(place, "python")


def _interpreter_of(script: str) -> Iterator[str]:
    """Give the interpreter that a console script names in its first line."""
    try:
        with open(script, "rb") as file:
            first = file.readline(4096).decode("utf-8", "replace").strip()
    except OSError:
        return
    words = first[2:].split() if first.startswith("#!") else []
    if words and "python" in os.path.basename(words[0]):
        yield words[0]


def _first_of_each_folder(candidates: Iterator[str]) -> List[str]:
    """Drop what does not exist, and all but one interpreter of a folder (a virtual environment's are links)."""
    chosen: Dict[str, str] = {}
    for python in candidates:
        if python and os.access(python, os.X_OK) and not os.path.isdir(python):
            chosen.setdefault(os.path.realpath(os.path.dirname(python)), python)
    return list(chosen.values())


def _start_probe(python: str) -> Optional["subprocess.Popen[bytes]"]:
    try:
        return subprocess.Popen(
            [python, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
    except OSError:
        return None


def _finish_probe(python: str, process: Optional["subprocess.Popen[bytes]"]) -> Optional[Environment]:
    if process is None:
        return None
    try:
        output, _ = process.communicate(timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    try:
        found = json.loads(output.decode())
    except ValueError:
        return None
    return Environment(python, found["prefix"], found["version"], found["jupyter_server"], found["ipykernel"])


def login_environment() -> Dict[str, str]:
    """Give the environment that the user's terminals have: profiles set paths and secrets that a bare command lacks."""
    shell = os.environ.get("SHELL", "")
    if os.path.basename(shell) not in ("bash", "zsh", "sh", "dash", "ksh"):
        shell = "/bin/sh"
    mark = b"codespace-kernels-environment"
    try:
        done = subprocess.run(
            [shell, "-lc", "printf %s; env -0" % mark.decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
        )
        entries = done.stdout.partition(mark)[2].split(b"\0")
    except (OSError, subprocess.TimeoutExpired):
        entries = []
    login = dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)
    # A profile may set PATH anew; what an image's own variables had put there still counts.
    path = os.pathsep.join(filter(None, (login.get("PATH"), os.environ.get("PATH"))))
    return _lasting({**os.environ, **login, "PATH": path or os.defpath})


def _lasting(environment: Dict[str, str]) -> Dict[str, str]:
    """Leave out what is only true for this one connection or shell."""
    passing = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SSH_AUTH_SOCK", "SHLVL", "OLDPWD", "PWD", "_")
    return {name: value for name, value in environment.items() if name not in passing}
