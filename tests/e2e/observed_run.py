"""One run of everything that handles secrets, under a loose umask, with every process, file and output looked at.

As a program (`python -m tests.e2e.observed_run KERNELSPEC`) this is the front end of that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psutil

from codespace_kernels.broker.client import broker_environment

from .clients import execute, running_kernel, text_of
from .conftest import REPOSITORY, wait_until

TIMEOUT = 120.0
CLI = (sys.executable, "-m", "codespace_kernels.cli")

INHERITED = {
    "GH_TOKEN": "c4nary-gh-token",
    "GITHUB_TOKEN": "c4nary-github-token",
    "GH_ENTERPRISE_TOKEN": "c4nary-enterprise-token",
    "GITHUB_ENTERPRISE_TOKEN": "c4nary-second-enterprise-token",
    "AWS_SECRET_ACCESS_KEY": "c4nary-aws-key",
    "JUPYTER_TOKEN": "c4nary-jupyter-token",
    "HTTPS_PROXY": "http://c4nary-user:c4nary-proxy-password@127.0.0.1:9",
}
"""Secrets in the environment of whoever runs the command line and the front ends."""

BROKER = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from codespace_kernels.broker.__main__ import main
from codespace_kernels.broker.broker import Broker
async def find(self, access, recipe, **options):
    raise RuntimeError("a defect")
Broker.find = find
sys.exit(main())
"""
"""A broker with every library's debug messages, and a defect."""

DEFECT = """
import sys
from codespace_kernels.cli import main, list
async def fail(options):
    access = list.shared.chosen_access(options)
    raise RuntimeError("a defect")
list._list = fail
sys.exit(main(["list", *sys.argv[1:]]))
"""
"""A command line that fails where it holds a token."""

REQUEST = """
import os
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.protocol import Access
from codespace_kernels.github.hosts import account_from_environment
access = Access.of(account_from_environment(os.environ), os.environ)
BrokerClient().stream("workspaces/find", {"access": access.to_json(), "recipe": {"repository": "octocat/x"}})
"""
"""Asks the broker for what fails there, with tokens in the request."""

INSIDE = """
import json, os, psutil
seen = []
for process in psutil.process_iter():
    try:
        if process.environ().get("CODESPACE_NAME") == os.environ["CODESPACE_NAME"]:
            seen.append([process.cmdline(), process.environ()])
    except psutil.Error:
        pass
print(json.dumps(seen))
"""
"""What the processes of the codespace look like, told by a kernel there."""


@dataclasses.dataclass
class SeenProcess:
    """A process of the run, as others may see it."""

    pid: int
    arguments: str
    environment: dict[str, str]
    listens_on: list[str]

    @property
    def is_ours(self) -> bool:
        """Whether it is a front end or the command line: whose secrets these are."""
        return "AWS_SECRET_ACCESS_KEY" in self.environment


class ObservedRun:
    """Runs, and keeps what was seen.

    Attributes:
        home: Home folder of the run.
        outputs: What each program wrote, by what it was.
        processes: Those that lived while a kernel ran.
        inside: Those in the codespace, as it sees them.
        codespace_modes: Permission bits of our files and folders there, by path.
        modes: Those of everything below the home, by path relative to it: while a kernel ran, and in the end.
        files_with: Files below the home in which a secret stands, by its name.
        secrets: Everything that must not be seen, by name.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.outputs: dict[str, str] = {}
        self.processes: list[SeenProcess] = []
        self.inside: list[SeenProcess] = []
        self.codespace_modes: dict[str, int] = {}
        self.modes: dict[str, int] = {}
        self.files_with: dict[str, set[str]] = {}
        self.secrets: dict[str, str] = {name: value for name, value in INHERITED.items() if name != "HTTPS_PROXY"}
        self.secrets["proxy password"] = "c4nary-proxy-password"
        (home / "run").mkdir(mode=0o700)
        self.env = {name: text for name, text in os.environ.items() if not name.startswith("CODESPACE_KERNELS_")}
        self.env |= {
            "HOME": str(home),
            "CODESPACE_KERNELS_HOME": str(home / "ck" / "data"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "JUPYTER_DATA_DIR": str(home / "jupyter" / "data"),
            "JUPYTER_CONFIG_DIR": str(home / "jupyter" / "config"),
            "JUPYTER_RUNTIME_DIR": str(home / "jupyter" / "runtime"),
            "IPYTHONDIR": str(home / "ipython"),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "NO_PROXY": "127.0.0.1",
        }

    def go(self) -> None:
        """Do all of it."""
        started = self.cli("emulator", "start", "--json", "--transition-seconds", "0.1", show=False)
        environment = json.loads(started.stdout)["environment"]
        self.secrets["account's token"] = environment.pop("GH_ENTERPRISE_TOKEN")
        # Not before: the emulator is somebody else's machine here.
        self.env |= environment | INHERITED
        try:
            self._sign_in()
            with self._broker():
                self._use()
                self._fail()
            self.cli("logout", "--debug")
            self._look_at_files()
        finally:
            self.cli("emulator", "stop", show=False)

    def cli(self, *arguments: str, show: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, and keep what it wrote where `show` says so."""
        done = subprocess.run(
            [*CLI, *arguments], env=self.env | env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT, check=False, umask=0,
        )  # fmt: skip
        if show:
            self.outputs[f"{len(self.outputs)}: {' '.join(arguments)}"] = done.stdout + done.stderr
        return done

    def start(self, *command: str, **options) -> subprocess.Popen[str]:
        """Start a program of the run."""
        usual = {"env": self.env, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, **{**usual, **options}, text=True, umask=0, cwd=REPOSITORY)

    def finish(self, what: str, process: subprocess.Popen[str], said: str = "") -> None:
        """Wait for the end of a program and keep what it wrote."""
        rest, _ = process.communicate(timeout=TIMEOUT)
        self.outputs[what] = said + rest

    def _sign_in(self) -> None:
        process = self.start(*CLI, "login", "--force", "--insecure-storage", "--client-id", "Iv1.client", "--debug")
        said = ""
        while not (found := re.search(r"Open (\S+) and enter the code (\S+)", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        page, code = found.groups()
        assert httpx.post(page, data={"user_code": code}, trust_env=False).status_code == 200
        self.finish("login", process, said)
        assert process.returncode == 0, self.outputs["login"]
        (file,) = (self.home / "ck" / "data" / "tokens").glob("*.json")
        tokens = json.loads(file.read_text())
        self.secrets |= {f"login's {key}": tokens[key] for key in ("access_token", "refresh_token") if tokens.get(key)}

    @contextlib.contextmanager
    def _broker(self):
        with tempfile.TemporaryFile("w+") as said:
            process = self.start(sys.executable, "-c", BROKER, env=broker_environment(self.env), stdout=said)
            try:
                wait_until(lambda: json.loads(self.cli("status", "--json", show=False).stdout)["broker"], "the broker")
                yield
            finally:
                quitting = self.start(*CLI, "quit", "--debug")
                # It waits for the end of the process, of which its parent hears first.
                process.wait(TIMEOUT)
                self.finish("quit", quitting)
                said.seek(0)
                self.outputs["broker"] = said.read()

    def _use(self) -> None:
        done = self.cli("list", "--json", "--debug")
        (self.codespace,) = (entry["name"] for entry in json.loads(done.stdout)["codespaces"])
        connected = self.cli("connect", self.codespace, "--json")
        assert connected.returncode == 0, connected.stderr
        (spec,) = (spec for spec in json.loads(connected.stdout)["kernelspecs"] if spec["kernel"] == "python3")
        # Its connection file is to be found.
        (self.home / "tmp").mkdir()
        env = self.env | {"TMPDIR": str(self.home / "tmp")}
        front_end = self.start(sys.executable, "-m", "tests.e2e.observed_run", spec["name"], env=env)
        said = ""
        while "SEEN " not in said:
            line = front_end.stdout.readline()
            assert line, said
            said += line
        seen = json.loads(said.rpartition("SEEN ")[2])
        self.secrets["kernel's key"] = seen["key"]
        self.inside = [
            SeenProcess(0, " ".join(arguments), environment, []) for arguments, environment in seen["inside"]
        ]
        self._look()
        self.cli("status", "--json", "--debug")
        self.report = self.home / "report.md"
        self.cli("doctor", self.codespace, "--report", str(self.report), "--json", "--debug")
        front_end.stdin.write("\n")
        front_end.stdin.flush()
        self.finish("front end", front_end)
        assert front_end.returncode == 0, self.outputs["front end"]

    def _look(self) -> None:
        """Look at every process that lives in this home, those inside the codespace included."""
        mine = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME", "").startswith(str(self.home)):
                    mine |= {process, *process.children(recursive=True)}
        for process in mine:
            with contextlib.suppress(psutil.Error):
                listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                arguments = " ".join(process.cmdline())
                self.processes.append(
                    SeenProcess(process.pid, arguments, process.environ(), [c.laddr.ip for c in listening])
                )
        self._look_into_the_codespace()
        self._look_at_files()

    def _look_at_files(self) -> None:
        for path in (self.home, *self.home.rglob("*")):
            with contextlib.suppress(OSError):
                mode, name = path.lstat().st_mode, str(path.relative_to(self.home))
                if not stat.S_ISLNK(mode):
                    self.modes[name] = stat.S_IMODE(mode)
                content = path.read_bytes() if stat.S_ISREG(mode) else b""
                for secret, value in self.secrets.items():
                    if value.encode() in content:
                        self.files_with.setdefault(secret, set()).add(name)

    def _look_into_the_codespace(self) -> None:
        (home,) = {Path(process.environment["HOME"]) for process in self.inside}
        (file,) = home.rglob("jpserver-*.json")
        self.secrets["Jupyter server's token"] = json.loads(file.read_text())["token"]
        (config,) = {found[1] for process in self.inside if (found := re.search(r"--config=(\S+)", process.arguments))}
        for folder in (Path(config).parent, home / ".local" / "share" / "codespace-kernels"):
            for path in (folder, *folder.rglob("*")):
                if not path.is_symlink():
                    self.codespace_modes[str(path)] = stat.S_IMODE(path.stat().st_mode)

    def _fail(self) -> None:
        self.cli("disconnect", self.codespace, "--debug")
        for fault in ("unauthorized", "server-error", "relay-refusal", "token-expired"):
            assert self.cli("emulator", "fault", fault, show=False).returncode == 0
            assert self.cli("connect", self.codespace, "--debug", "--transport", "tunnel").returncode != 0, fault
            self.cli("emulator", "fault", "--clear", show=False)
        for flags in ([], ["--debug"]):
            self.finish(f"defect {flags}", self.start(sys.executable, "-c", DEFECT, *flags))
        self.finish("request", self.start(sys.executable, "-c", REQUEST))
        assert "The broker failed inside (RuntimeError('a defect'))" in self.outputs["request"]
        self._interrupt()

    def _interrupt(self) -> None:
        process = self.start(*CLI, "connect", self.codespace, "--debug")
        said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        self.finish("interrupted", process, said)
        assert process.returncode == 130, self.outputs["interrupted"]


async def front_end(kernel_name: str) -> None:
    """Be a front end: start a kernel, run cells, stay until told to go."""
    async with running_kernel(kernel_name) as (manager, client):
        inside = json.loads(text_of(await execute(client, INSIDE)))
        await execute(client, "raise RuntimeError('of the cell')")
        print("SEEN", json.dumps({"key": manager.session.key.decode(), "inside": inside}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    asyncio.run(front_end(sys.argv[1]))
