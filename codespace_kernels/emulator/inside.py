"""The inside of an emulated codespace: its folders and the environment that its processes see.

Below the machine's folder:

    <folder>/home                 the user's home
    <folder>/workspaces/<repo>    the working folder, as a clone of the repository
    <folder>/python               the Python environment
    <folder>/etc                  host keys and the SSH server's configuration; not part of what the user sees
"""

from __future__ import annotations

import datetime
import getpass
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from codespace_kernels.emulator.inside_processes import MARKER
from codespace_kernels.emulator.inside_python import Python

if TYPE_CHECKING:
    from codespace_kernels.emulator.machine import MachineSpec

_PASSED_ON = re.compile(r"LANG|LC_[A-Z]+|TZ|TMPDIR|SSL_CERT_(FILE|DIR)|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE)
"""What processes inside inherit from the emulator. All else stays out: tokens, agents, and paths of its user."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PUBLIC_KEY = re.compile(r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\r\n]*)?")

_README = """# {repository}

The working folder of an emulated codespace. Its files are real files of this machine, in
`{folder}`.
"""

_DEVCONTAINER = """// The features that a codespace needs for SSH and for JupyterLab.
{
  "image": "mcr.microsoft.com/devcontainers/universal:2",
  "features": {
    "ghcr.io/devcontainers/features/sshd:1": {},
    "ghcr.io/devcontainers/features/python:1": { "installJupyterlab": true }
  }
}
"""

_DATA = "day,temperature\nmonday,18.5\ntuesday,21.0\nwednesday,19.5\nthursday,23.0\nfriday,24.5\n"


def machine_marker(folder: Path) -> str:
    """Give the mark that all processes of the machine in this folder carry in their environment."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


class Inside:
    """Folders and environment of one machine.

    Attributes:
        home: The user's home folder.
        workspace: The working folder.
        etc: Folder of the machine's own files.
        python: The Python inside.
        marker: See `machine_marker`.
        hostname: What `HOSTNAME` is inside.
    """

    def __init__(self, spec: MachineSpec) -> None:
        folder = spec.folder.resolve()
        self._spec = spec
        self.home = folder / "home"
        self.workspace = folder / "workspaces" / spec.repository.rpartition("/")[2]
        self.etc = folder / "etc"
        self.python = Python(spec.python, folder / "python" if spec.own_environment else None)
        self.marker = machine_marker(folder)
        self.hostname = f"codespaces-{hashlib.sha256(spec.name.encode()).hexdigest()[:6]}"

    @property
    def user(self) -> str:
        """The user that all inside runs as: the emulator's."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            # In a container with an arbitrary user id. The name then stands in the environment only.
            return "codespace"

    @property
    def authorized_keys(self) -> Path:
        """The file of the keys that the SSH server accepts."""
        return self.home / ".ssh" / "authorized_keys"

    @property
    def jupyter_runtime(self) -> Path:
        """Where Jupyter servers leave their address and token."""
        return self.home / ".local" / "share" / "jupyter" / "runtime"

    def create(self, *, bare: bool) -> bool:
        """Make what is missing: a new machine, or one that was stopped; blocks.

        Args:
            bare: Without Jupyter (see `Python.create`).

        Returns:
            Whether it is new.

        Raises:
            EmulatorError: The Python inside cannot be made.
        """
        for folder in (self.home, self.home / ".ssh", self.etc):
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._write_profile()
        self._write_jupyter_config()
        is_new = not self.workspace.exists()
        if is_new:
            self._clone()
            self._log("Repository", f"{self._spec.repository} at {self._spec.ref}")
        self.python.create(bare=bare)
        self._log("Container", f"ready, Python at {self.python.scripts}")
        return is_new

    def _log(self, step: str, what: str) -> None:
        """Add a line to the creation log; GitHub's own lines are others."""
        log = self.workspace.parent / ".codespaces" / ".persistedshare" / "creation.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S.%f}Z: {step}: {what}\n")

    def forget_container(self) -> None:
        """Lose what a rebuild loses: everything but the working folder and the tunnel's host key; blocks."""
        self.python.remove()
        for folder in (self.home, self.etc / "ssh"):
            shutil.rmtree(folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Give the environment of every process inside."""
        local = self.home / ".local"
        # A proxy's address can have a password in it.
        env = {name: text for name, text in os.environ.items() if _PASSED_ON.fullmatch(name) and "@" not in text}
        env.update(
            {
                MARKER: self.marker,
                "HOME": str(self.home),
                "USER": self.user,
                "LOGNAME": self.user,
                "SHELL": shell(),
                "HOSTNAME": self.hostname,
                "PATH": f"{self.python.scripts}:{local / 'bin'}:{_SYSTEM_PATH}",
                "CODESPACES": "true",
                "CODESPACE_NAME": self._spec.name,
                "CODESPACE_VSCODE_FOLDER": str(self.workspace),
                "GITHUB_REPOSITORY": self._spec.repository,
                "XDG_CONFIG_HOME": str(self.home / ".config"),
                "XDG_CACHE_HOME": str(self.home / ".cache"),
                "XDG_DATA_HOME": str(local / "share"),
                "XDG_STATE_HOME": str(local / "state"),
                "JUPYTER_CONFIG_DIR": str(self.home / ".jupyter"),
                "JUPYTER_DATA_DIR": str(local / "share" / "jupyter"),
                "JUPYTER_RUNTIME_DIR": str(self.jupyter_runtime),
                "IPYTHONDIR": str(self.home / ".ipython"),
            }
        )
        env.setdefault("LANG", "C.UTF-8")
        return env

    def authorize(self, public_key: str) -> bool:
        """Let the SSH server accept a key, besides those that it accepts already.

        Args:
            public_key: One line of an OpenSSH public key file.

        Returns:
            False: the text is no public key, and nothing was changed.
        """
        line = public_key.strip()
        if not _PUBLIC_KEY.fullmatch(line):
            return False
        path = self.authorized_keys
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if line not in known:
            path.touch(mode=0o600)
            path.write_text("".join(f"{key}\n" for key in [*known, line]), encoding="utf-8")
        return True

    def _write_profile(self) -> None:
        # A login shell reads /etc/profile first, which on many systems sets PATH anew.
        env = self.environment()
        text = f'export PATH="{env["PATH"]}"\n'
        for name in (".profile", ".bashrc"):
            path = self.home / name
            if not path.exists():
                path.write_text(text, encoding="utf-8")

    def _write_jupyter_config(self) -> None:
        """Have JupyterLab look for no language servers: those of this computer are not the codespace's.

        To look for them, it starts Node.js and R with each Jupyter server.
        """
        path = self.home / ".jupyter" / "jupyter_config.json"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps({"LanguageServerManager": {"autodetect": False}}), encoding="utf-8")

    def _clone(self) -> None:
        self.workspace.mkdir(parents=True)
        (self.workspace / "data").mkdir()
        (self.workspace / ".devcontainer").mkdir()
        readme = _README.format(repository=self._spec.repository, folder=self.workspace)
        (self.workspace / "README.md").write_text(readme, encoding="utf-8")
        (self.workspace / "data" / "temperatures.csv").write_text(_DATA, encoding="utf-8")
        (self.workspace / ".devcontainer" / "devcontainer.json").write_text(_DEVCONTAINER, encoding="utf-8")


def shell() -> str:
    """Give the shell of the machine's user: bash where there is one, as in GitHub's images."""
    return shutil.which("bash", path=_SYSTEM_PATH) or "/bin/sh"
