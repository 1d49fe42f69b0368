"""Where a notebook stands in a clone of a repository: its kernel starts in the same folder of the codespace's clone.

A kernel that starts on this machine starts in its notebook's folder, so that relative paths to data work. Another
machine has that folder only where both have a clone of the same repository.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_GIT_SECONDS = 5.0
_REPOSITORY = re.compile(r"[/:]([^/:]+/[^/:]+?)(?:\.git)?/?$")


@dataclasses.dataclass(frozen=True)
class ClonePlace:
    """A folder in a clone.

    Attributes:
        repositories: `owner/name` of each of its remotes, in lower case. No address: there may be a password in it.
        folder: Relative to the clone's root, with `/`; empty for the root.
    """

    repositories: tuple[str, ...] = ()
    folder: str = ""

    def folder_in(self, repository: str) -> str:
        """Give the folder for a clone of `owner/name`; empty, the root, where this is no clone of that repository."""
        return self.folder if repository.lower() in self.repositories else ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClonePlace:
        """Rebuild from `dataclasses.asdict`."""
        return cls(tuple(map(str, data.get("repositories") or ())), str(data.get("folder") or ""))


def notebook_folder(env: Mapping[str, str], cwd: str = "") -> Path:
    """Give the folder that a kernel on this machine would start in.

    Args:
        env: Of the kernel. `JPY_SESSION_NAME` is the notebook's path, absolute since jupyter_server 2.0.
        cwd: What the front end asks for; this process's where it asks for none.
    """
    notebook = env.get("JPY_SESSION_NAME", "")
    if Path(notebook).is_absolute() and Path(notebook).parent.is_dir():
        return Path(notebook).parent
    return Path(cwd or Path.cwd())


def place_of(folder: Path) -> ClonePlace:
    """Find a folder's place in its clone, by git; blocks (about 10 ms). Nothing is found where there is no git."""
    prefix = _git(folder, "rev-parse", "--show-prefix")
    if not prefix:
        return ClonePlace()
    addresses = _git(folder, "config", "--get-regexp", r"^remote\..*\.url$").splitlines()
    found = {match[1].lower() for address in addresses if (match := _REPOSITORY.search(address))}
    return ClonePlace(tuple(sorted(found)), prefix.strip("\n").strip("/"))


def _git(folder: Path, *arguments: str) -> str:
    # Variables of a surrounding git command, a hook's say, would name another clone.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("git cannot tell of %s: %s", folder, error)
        return ""
    return os.fsdecode(done.stdout) if done.returncode == 0 else ""
