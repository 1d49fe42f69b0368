"""Processes that take this machine for Windows, as far as `codespace_kernels.platforms` tells.

Python runs `sitecustomize` in every process, so the starter of a broker, the broker and what they start pretend alike.
The broker's event loop, moreover, can do what the Proactor loop of Windows can, and no more; Tornado, which asks for
that loop by its type, finds it.
"""

from __future__ import annotations

import os
from pathlib import Path

_SITECUSTOMIZE = """
import asyncio, os, subprocess, sys
from codespace_kernels import platforms

platforms.is_windows = lambda: True
_init = subprocess.Popen.__init__

def init(self, args, *rest, creationflags=0, **kwargs):
    with open(os.environ["PYTHON_FLAGS_FILE"], "a") as file:
        print(f"{creationflags:#x}", file=file)
    if creationflags & platforms.CREATE_BREAKAWAY_FROM_JOB and os.environ.get("PYTHON_JOB_HOLDS_ON"):
        raise PermissionError(13, "Access is denied")
    # As on Windows, a descendant is in nobody's session or console.
    kwargs["start_new_session"] = bool(creationflags & platforms.CREATE_NEW_PROCESS_GROUP)
    _init(self, args, *rest, **kwargs)

subprocess.Popen.__init__ = init

def unable(*args):
    raise NotImplementedError

def fork():
    raise AttributeError("module 'os' has no attribute 'fork'")

if "codespace_kernels.broker" in sys.orig_argv:
    os.setsid = os.fork = fork

    class ProactorEventLoop(asyncio.SelectorEventLoop):
        add_reader = add_writer = remove_reader = remove_writer = add_signal_handler = unable

    asyncio.ProactorEventLoop = ProactorEventLoop
    asyncio.DefaultEventLoopPolicy._loop_factory = ProactorEventLoop
"""


def pretended_windows(folder: Path, *, job_holds_on: bool = False) -> dict[str, str]:
    """Give the environment of a process that pretends; `flags` in the folder gets a line a process that is started.

    Args:
        folder: Gets what it takes.
        job_holds_on: Whether processes may not leave their starter's job.
    """
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    job = {"PYTHON_JOB_HOLDS_ON": "1"} if job_holds_on else {}
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHON_FLAGS_FILE": str(folder / "flags"), **job}
