"""A home of its own for a run of programs, so that it meets nothing of the person's who runs it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil

_FORGET = ("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN", "GH_HOST", "GITHUB_API_URL",
           "GITHUB_SERVER_URL", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_TOKEN",
           "CODESPACES", "CODESPACE_NAME", "SSH_AUTH_SOCK", "DISPLAY",
           # Else each of the many programs would compile again what it imports.
           "PYTHONDONTWRITEBYTECODE")  # fmt: skip


def isolate(home: Path) -> None:
    """Move this process, and so all its children, into a home."""
    for name in list(os.environ):
        if name in _FORGET or name.startswith("CODESPACE_KERNELS_"):
            del os.environ[name]
    (home / "run").mkdir(mode=0o700)
    write_jupyter_config(home / "config" / "jupyter")
    os.environ.update(
        {
            "HOME": str(home),
            # Programs of this environment are found, as where it is activated.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "JUPYTER_DATA_DIR": str(home / "data" / "jupyter"),
            "JUPYTER_CONFIG_DIR": str(home / "config" / "jupyter"),
            "IPYTHONDIR": str(home / "ipython"),
            "GH_CONFIG_DIR": str(home / "config" / "gh"),
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_TELEMETRY": "0",
            "GH_PROMPT_DISABLED": "1",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
            "NO_COLOR": "1",
        }
    )


def write_jupyter_config(folder: Path) -> None:
    """Have JupyterLab look for no language servers: with each server it starts Node.js and R for that."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"LanguageServerManager": {"autodetect": False}}
    (folder / "jupyter_config.json").write_text(json.dumps(config), encoding="utf-8")


def living_in(home: Path) -> list[psutil.Process]:
    """Processes other than this one whose home it is."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("HOME") == str(home):
                left.append(process)
        except psutil.Error:
            continue
    return left
