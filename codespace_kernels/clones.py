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
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

_SECONDS = 5.0
"""How long git or ssh may take to tell something."""

_REMOTE = re.compile(r"^\S+\t(.*) \(fetch\)(?: \[.*\])?$", re.MULTILINE)
"""A line of `git remote -v`: name, address, `(fetch)` or `(push)`, and a filter in brackets for a partial clone."""

_SCP_ADDRESS = re.compile(r"(?:[^@/]+@)?([^:/]{2,}):(.*)")
"""git's short form of an SSH address, `git@github.com:owner/name`; one letter is a drive of Windows."""

_PATH = re.compile(r"/*([^/]+/[^/]+?)(?:\.git)?/*")
_HOST = re.compile(r"[\w.-]+")

_OTHER_NAMES = {"ssh.github.com": "github.com", "www.github.com": "github.com"}
"""SSH where port 22 is closed, and the web's redirection."""


@dataclasses.dataclass(frozen=True)
class ClonePlace:
    """A folder in a clone.

    Attributes:
        repositories: `host/owner/name` of each of its remotes, in lower case. No address: that may hold a password.
        folder: Relative to the clone's root, with `/`; empty for the root.
    """

    repositories: tuple[str, ...] = ()
    folder: str = ""

    def folder_in(self, repository: str) -> str:
        """Give the folder for a clone of `host/owner/name`; empty, the root, where this is no clone of that repository.

        Any remote counts: a fork's clone has the original as its `upstream`, and the same folders.
        """
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
    prefix = _output("git", "-C", str(folder), "rev-parse", "--show-prefix")
    if not prefix:
        return ClonePlace()
    # Not the configuration's own text: `url.<base>.insteadOf` may stand for a host.
    addresses = _REMOTE.findall(_output("git", "-C", str(folder), "remote", "-v"))
    found = {repository for address in addresses for repository in repositories_at(address)}
    return ClonePlace(tuple(sorted(found)), prefix.strip("\n").strip("/"))


def repositories_at(address: str) -> Iterator[str]:
    """Give `host/owner/name` for a remote's address; twice where its host is a name from the user's SSH configuration.

    Who has two accounts writes `git@github-work:owner/name`, with a `Host github-work` there. Blocks (some 5 ms) to ask
    ssh for it. Nothing for an address that is not of this form, such as a path.
    """
    host, path, by_ssh = _parts(address)
    name = _PATH.fullmatch(path)
    if name is None or not _HOST.fullmatch(host):
        return
    hosts = {host, _configured_host(host)} if by_ssh and host not in _OTHER_NAMES.values() else {host}
    yield from {f"{_OTHER_NAMES.get(one, one)}/{name[1]}".lower() for one in hosts if one}


def _parts(address: str) -> tuple[str, str, bool]:
    """Split an address: host in lower case, path, and whether ssh carries it."""
    if "://" not in address:
        short = _SCP_ADDRESS.fullmatch(address)
        return (short[1].lower(), short[2], True) if short else ("", "", False)
    try:
        parts = urlsplit(address)
    except ValueError:
        return "", "", False
    return parts.hostname or "", parts.path, "ssh" in parts.scheme


def _configured_host(host: str) -> str:
    found = re.search(r"^hostname (\S+)$", _output("ssh", "-G", "--", host), re.MULTILINE)
    return found[1].lower() if found else ""


def _output(*command: str) -> str:
    # Variables of a surrounding git command, a hook's say, would name another clone.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s cannot tell: %s", " ".join(command), error)
        return ""
    return os.fsdecode(done.stdout) if done.returncode == 0 else ""
