"""What a workspace has of what kernels need, found out without changing anything: for `codespace-kernels doctor`."""

from __future__ import annotations

import asyncio
import glob
import json
import os
import platform
import subprocess
import sys
from typing import Any, Dict, List, Optional
from urllib.parse import urlsplit

from . import environments, install, places, server
from .process import is_same_process, start_time_of
from .versions import versions_of

LIST_SECONDS = 30.0

_LIST = """
import json
from jupyter_client.kernelspec import KernelSpecManager
print(json.dumps({name: entry["spec"] for name, entry in KernelSpecManager().get_all_specs().items()}))
"""
"""Not `jupyter kernelspec list`: it makes folders of Jupyter's where there are none."""


def examine(folder: str, digest: str) -> Dict[str, Any]:
    """Describe the workspace.

    Args:
        folder: The workspace's folder.
        digest: Of the code that a client of the asker's version would upload.

    Returns:
        `python` and `python_version` that run this; `environments` (see `Environment`); `serving`, the Python whose
        Jupyter server would be started or runs, None where there is none; `server`, versions of the one that runs;
        `uploaded`, whether the code is there; `kernels` by name, with `display_name`, `language` and `versions`;
        `others`, the addresses of Jupyter servers that are not ours, as their files tell.
    """
    login = environments.login_environment()
    found = environments.find_environments(folder, login.get("PATH", os.defpath))
    # Looking for the runtime folder would make it.
    is_known = os.path.isdir(places.data_folder())
    state = server.running_server(server.Runtime(places.runtime_folder())) if is_known else None
    serving = _serving(found, state)
    return {
        "python": sys.executable,
        "python_version": platform.python_version(),
        "environments": [environment._asdict() for environment in found],
        "serving": serving,
        "server": state["versions"] if state else None,
        "uploaded": os.path.exists(os.path.join(places.data_folder(), digest, "bundle.zip")),
        "kernels": _kernels(serving, login) if serving else {},
        "others": _other_servers(login, state),
    }


def _serving(found: List[environments.Environment], state: Optional[Dict[str, Any]]) -> Optional[str]:
    if state is not None:
        return str(state["versions"]["python"])
    able = next((environment.python for environment in found if environment.can_serve), None)
    return able or install.private_python()


def _kernels(python: str, login: Dict[str, str]) -> Dict[str, Any]:
    """List the kernelspecs that a server of this Python would have; none where it cannot list them in time."""
    try:
        done = subprocess.run(
            [python, "-c", _LIST],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIST_SECONDS,
            env=login,
            cwd="/",
            check=True,
        )
        specs = json.loads(done.stdout.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    versions = asyncio.run(versions_of(specs))
    return {
        name: {
            "display_name": spec.get("display_name", ""),
            "language": spec.get("language", ""),
            "versions": versions.get(name, {}),
        }
        for name, spec in specs.items()
    }


def _other_servers(login: Dict[str, str], state: Optional[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Give port, host and path of running servers from the files in Jupyter's runtime folder; never their tokens."""
    home = login.get("HOME") or os.path.expanduser("~")
    runtime = login.get("JUPYTER_RUNTIME_DIR")
    data = login.get("JUPYTER_DATA_DIR") or os.path.join(home, ".local", "share", "jupyter")
    own = state["pid"] if state else None
    others = []
    for path in sorted(glob.glob(os.path.join(runtime or os.path.join(data, "runtime"), "jpserver-*.json"))):
        try:
            with open(path) as file:
                info = json.load(file)
            pid = int(info["pid"])
            if pid == own or not is_same_process(pid, start_time_of(pid)):
                continue
            url = urlsplit(str(info["url"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        others.append({"port": info.get("port"), "scheme": url.scheme, "host": url.hostname, "path": url.path})
    return others
