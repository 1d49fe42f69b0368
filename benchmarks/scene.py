"""What a run consists of: a home of its own, the far end, a network in between, and the ways that are compared."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir

from benchmarks.network import Distance, Proxy
from benchmarks.programs import WAIT, BenchmarkError, Program, running, wait_for_port
from benchmarks.ways import Way
from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.link.client import LinkClient
from codespace_kernels.processes import is_alive
from tests.chaos.place import quietly
from tests.e2e.conftest import cli, end_broker
from tests.launchers import processes_inside
from tests.ports import free_port
from tests.remote.local_connection import LocalConnection
from tests.ssh.conftest import make_key

OUR_SERVER = "-m jupyter_server --config="
GH_SERVER = "-m jupyterlab --no-browser"
WAYS = (
    "local",
    "ours, tunnel",
    "ours, SSH",
    "sshpyk",
    "ssh -L, five ports",
    "gateway client",
    "jupyter-kernel-client",
)
AT_ONCE = 4
"""Idle kernels that are started together."""


class Scene:
    """All that runs for one network.

    Args:
        home: Of all processes; see `temporary_home`.
        peers: Environment that has the peers; None: they are left out.
        distance: The network.
        proxied: Whether there is a proxy also where it adds nothing.
        wanted: Names of the ways that are compared; none: all.
    """

    def __init__(
        self,
        home: Path,
        peers: Path | None,
        distance: Distance,
        *,
        proxied: bool = False,
        wanted: tuple[str, ...] = (),
    ) -> None:
        self._wanted = wanted
        self.home, self.peers, self._distance = home, peers, distance
        self._proxied = proxied or bool(distance)
        self._stack = contextlib.ExitStack()
        self.proxies: list[Proxy] = []
        self.log = home / "log"
        self._loop: asyncio.AbstractEventLoop | None = None
        self.codespace_homes: list[Path] = []

    def __enter__(self) -> Self:
        with self._stack:
            self._set_up()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        self.far = self.home / "far"
        self.far.mkdir()
        self._stack.callback(shutil.rmtree, self.far, ignore_errors=True)
        self._stack.callback(self._end_far_processes)
        self._emulate()
        self.ssh_port = self._between(self._start_sshd())
        self._stack.callback(self._end_shared_connection)
        self._start_server()

    def _between(self, port: int) -> int:
        if not self._proxied:
            return port
        proxy = Proxy(port, self._distance)
        self._stack.callback(proxy.end)
        self.proxies.append(proxy)
        return proxy.port

    def black_out(self, seconds: float) -> None:
        for proxy in self.proxies:
            proxy.black_out(seconds)

    # -- the far end --------------------------------------------------------------------------------------------------

    def _start_sshd(self) -> int:
        host, user, port = self.far / "host", self.far / "user", free_port()
        make_key(host)
        make_key(user)
        inside = {"HOME": self.far, "JUPYTER_DATA_DIR": self.far / "jupyter", "JUPYTER_RUNTIME_DIR": self.far / "run"}
        inside |= {"IPYTHONDIR": self.far / "ipython"}
        variables = " ".join(f'"{name}={value}"' for name, value in [*inside.items(), ("PATH", self._path)])
        (self.far / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {user}.pub\nStrictModes no\n"
            f"UsePAM no\nPidFile none\nMaxSessions 500\nMaxStartups 500\nSetEnv {variables}\n"
            'ForceCommand cd "$HOME" && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        command = [sshd, "-D", "-e", "-f", str(self.far / "sshd_config")]
        self._stack.enter_context(running(command, Path(os.devnull)))
        wait_for_port(port)
        return port

    def _emulate(self) -> None:
        """An account that is where the proxy is, and the kernelspec of its codespace."""
        emulator = Program(sys.executable, "-m", "benchmarks.far_emulator", log=self.log)
        self._stack.callback(emulator.end)
        told = emulator.read()
        port = self._between(told["port"])
        emulator.write(str(port))
        emulator.read()
        before = dict(os.environ)
        os.environ.update(told["environment"], GITHUB_API_URL=f"http://127.0.0.1:{port}")
        self._stack.callback(_restore, before)
        self._stack.callback(end_broker)
        self.codespace, self.codespace_homes = told["codespace"], [Path(told["folder"])]
        done = quietly(lambda: cli("connect", self.codespace, "--json"))
        if done.returncode:
            raise BenchmarkError(done.stderr)
        specs = json.loads(done.stdout)["kernelspecs"]
        self.spec = next(spec["name"] for spec in specs if spec["kernel"] == "python3")
        # All ways lead to the Python of the codespace.
        self._path = self._inside(OUR_SERVER)[0].environ()["PATH"]
        self.python = shutil.which("python3", path=self._path) or sys.executable

    def _start_server(self) -> None:
        """A Jupyter server as peers find it, and the way there that `ssh -L` makes."""
        port = free_port()
        env = {**os.environ, "JUPYTER_DATA_DIR": str(self.far / "jupyter")}
        command = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--no-browser", "--allow-root"]
        # The gateway client sends no token with its websocket.
        command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
        command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.far}"]
        self._stack.enter_context(running(command, self.log, env))
        wait_for_port(port)
        self.forwarded = free_port()
        forward = f"127.0.0.1:{self.forwarded}:127.0.0.1:{port}"
        self._stack.enter_context(running([*self.ssh_command(), "-N", "-L", forward, "far"], self.log))
        wait_for_port(self.forwarded)

    @property
    def ssh_config(self) -> Path:
        config = self.home / ".ssh" / "config"
        config.parent.mkdir(mode=0o700, exist_ok=True)
        config.write_text(
            f"Host far\n  HostName 127.0.0.1\n  Port {self.ssh_port}\n  IdentityFile {self.far}/user\n"
            "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
            "  ServerAliveInterval 2\n  ServerAliveCountMax 3\n"
            f"  ControlMaster auto\n  ControlPath {self.home}/run/%C\n  ControlPersist 600\n"
        )
        return config

    def ssh_command(self) -> list[str]:
        return ["ssh", "-F", str(self.ssh_config), "-o", "ControlPath=none", "-o", "ControlMaster=no"]

    # -- our part of it -----------------------------------------------------------------------------------------------

    def make_cold(self) -> None:
        """End what a start would find: broker, servers at the far end, the shared connection of sshpyk."""
        end_broker()
        self._end_shared_connection()
        servers = [*self._inside(OUR_SERVER), *self._inside(GH_SERVER)]
        for process in servers:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        ends = time.monotonic() + WAIT
        # Whose child it is may collect it later.
        while any(map(is_alive, servers)):
            if time.monotonic() > ends:
                raise BenchmarkError(f"a server at the far end does not end within {WAIT:g} s")
            time.sleep(0.02)

    def _end_shared_connection(self) -> None:
        # It stays for minutes otherwise, and its environment does not say whose it is.
        command = ["ssh", "-F", str(self.ssh_config), "-O", "exit", "far"]
        subprocess.run(command, capture_output=True, check=False)

    def _end_far_processes(self) -> None:
        """End what outlives its connection: kernels, and our server."""
        left = self._inside("")
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(left, timeout=10)[1]:
            process.kill()

    def _inside(self, wanted: str) -> list[psutil.Process]:
        return processes_inside((str(self.far), *map(str, self.codespace_homes)), wanted)

    def our_servers(self) -> list[dict[str, Any]]:
        """Ask our servers in the codespace and at the far end of plain SSH where they are: url, token, folder."""
        return [asyncio.run(_server_info(process)) for process in self._inside(OUR_SERVER)]

    def our_server(self, *, in_codespace: bool) -> dict[str, Any]:
        """Give one of them."""
        servers = [one for one in self.our_servers() if one["folder"].startswith(str(self.far)) != in_codespace]
        if not servers:
            raise BenchmarkError("our server does not run")
        return servers[0]

    @contextlib.contextmanager
    def idle_kernels(self, count: int) -> Iterator[None]:
        """Hold kernels of ours, as a notebook server does."""
        managers: list[Any] = [AsyncKernelManager(kernel_name=self.spec) for _ in range(count)]
        started: list[Any] = []
        try:
            for at in range(0, count, AT_ONCE):
                some = managers[at : at + AT_ONCE]
                started += some
                self._in_loop(_all(manager.start_kernel() for manager in some))
            yield
        finally:
            self._in_loop(_all(manager.shutdown_kernel(now=True) for manager in started))

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * WAIT)

    def our_processes(self) -> dict[str, psutil.Process]:
        """Give the broker, the server in the codespace and its child that carries messages."""
        (child,) = self._inside("--listener")
        server = child.parent()
        assert server is not None
        return {
            "broker": psutil.Process(BrokerClient().call("GET", "")["pid"]),
            "server there": server,
            "its child": child,
        }

    @property
    def gh(self) -> Path | None:
        """GitHub's own command line; None where the peers have none."""
        program = self.peers / "bin" / "gh" if self.peers is not None else None
        return program if program is not None and program.exists() else None

    # -- the ways -----------------------------------------------------------------------------------------------------

    def ways(self) -> dict[str, Way]:
        """Give all ways to a kernel by their names; the peers' only where there are peers."""
        options = {"port": self.ssh_port, "key": str(self.far / "user"), "user": getpass.getuser()}
        plain = [sys.executable, "-m", "benchmarks.plain_ssh", json.dumps(options)]
        forwarded = [sys.executable, "-m", "benchmarks.forwarded_ports", json.dumps(self.ssh_command()), self.python]
        every = [
            Way("local", "manager", {"kernel_name": "python3"}, self.log),
            Way("ours, tunnel", "manager", {"kernel_name": self.spec}, self.log),
            Way("ours, SSH", "info", {"command": plain}, self.log),
            Way("ssh -L, five ports", "info", {"command": forwarded}, self.log),
        ]
        if self.peers is not None:
            python, server = (
                str(self.peers / "bin" / "python"),
                {"url": f"http://127.0.0.1:{self.forwarded}", "token": ""},
            )
            every[3:3] = [Way("sshpyk", "manager", {"kernel_name": self._add_sshpyk(self.peers)}, self.log, python)]
            every += [
                Way("gateway client", "gateway", server, self.log, python),
                Way("jupyter-kernel-client", "kernel-client", server, self.log, python),
            ]
        return {way.name: way for way in every if way.name in (self._wanted or WAYS)}

    def _add_sshpyk(self, peers: Path) -> str:
        name = "ssh_far_python3"
        # It does not make the folder of its connection files.
        Path(jupyter_runtime_dir()).mkdir(parents=True, exist_ok=True)
        command = [str(peers / "bin" / "sshpyk"), "add", "--kernel-name", name, "--language", "python", "--replace"]
        command += ["--display-name", "far", "--ssh-host-alias", "far", "--ssh-config", str(self.ssh_config)]
        command += ["--remote-python", self.python, "--remote-kernel-name", "python3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(done.stdout + done.stderr)
        return name


async def _all(work: Iterable[Awaitable[Any]]) -> None:
    """Do all at once, to the end of each."""
    failed = [came for came in await asyncio.gather(*work, return_exceptions=True) if isinstance(came, BaseException)]
    if failed:
        raise failed[0]


async def _server_info(process: psutil.Process) -> dict[str, Any]:
    """Ask a server over its link, as one more client."""
    environment = process.environ()
    connection: Any = LocalConnection(Path(environment["HOME"]), dict(environment))
    link = LinkClient()
    await link.attach(await (await ensure_server(connection, install=False)).open_link(connection))
    try:
        info = await link.server_info()
    finally:
        await link.leave()
        await link.close()
        await connection.close()
    return {"url": f"http://127.0.0.1:{info['port']}{info['base_url']}", **info}


def _restore(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)
