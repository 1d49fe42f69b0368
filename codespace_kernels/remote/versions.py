"""Asks the Pythons behind kernelspecs for their versions: no kernel has to be started for that."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any, Dict, Mapping, Sequence

PROBE_SECONDS = 10.0

_PROBE = """
import json, platform
found = {"python": platform.python_version()}
try:
    from importlib.metadata import version
    found["ipython"] = version("ipython")
except Exception:
    pass
print(json.dumps(found))
"""

_MODULES = ("ipykernel_launcher", "ipykernel")


async def versions_of(specs: Mapping[str, Mapping[str, Any]]) -> Dict[str, Dict[str, str]]:
    """Give the versions `python` and `ipython` of kernelspecs, by name.

    Only those are asked whose command says which Python runs the kernel: `PYTHON … -m ipykernel_launcher …`. Kernels of
    other languages, and a Python that does not answer in time, are left out.

    Args:
        specs: Content of each `kernel.json`.
    """
    pythons = {name: python_of(spec.get("argv") or ()) for name, spec in specs.items()}
    loop = asyncio.get_event_loop()
    answers = {python: loop.run_in_executor(None, _ask, python) for python in set(pythons.values()) if python}
    await asyncio.gather(*answers.values())
    found = {name: answers[python].result() for name, python in pythons.items() if python}
    return {name: versions for name, versions in found.items() if versions}


def python_of(argv: Sequence[str]) -> str:
    """Give the Python that runs an IPython kernel of this command; empty where it is another kernel."""
    if "-m" not in argv[1:-1] or argv[argv.index("-m") + 1] not in _MODULES:
        return ""
    # As jupyter_client's `format_kernel_cmd` has it: these mean the server's own Python, whatever stands in PATH.
    own = ("python", "python%d" % sys.version_info[0], "python%d.%d" % sys.version_info[:2])
    return sys.executable if argv[0] in own else argv[0]


def _ask(python: str) -> Dict[str, str]:
    try:
        done = subprocess.run(
            [python, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            # The empty first entry of its import path must not be a folder of the user's modules.
            cwd=os.sep,
            check=True,
        )
        found = json.loads(done.stdout.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return found if isinstance(found, dict) else {}
