"""The real `gh`, unmodified, against the emulator. Here: commands that reach into a codespace."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from codespace_kernels.emulator import Emulator, ThreadedEmulator
from tests.ports import free_port

from .conftest import Gh

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def emulator() -> Iterator[ThreadedEmulator]:
    """One emulator for this file; the first command wakes its codespace."""
    with ThreadedEmulator(Emulator(transition_seconds=0.1)) as running:
        yield running


@pytest.fixture
def gh(emulator: ThreadedEmulator) -> Iterator[Gh]:
    yield Gh(emulator.environment())
    emulator.faults.clear()


@contextlib.contextmanager
def interrupted_at_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def test_ssh_starts_the_codespace_and_runs_a_command(gh: Gh, emulator: ThreadedEmulator, name: str):
    out = gh.text("ssh", "-c", name, "--", 'echo "$CODESPACE_NAME"; pwd; cat')
    folder = emulator.account.codespaces[name].folder
    assert out.splitlines() == [name, str(folder / "home")]
    failed = gh("ssh", "-c", name, "--", "exit 7")
    assert failed.returncode == 1
    assert "exit status 7" in failed.stderr


def test_connecting_moves_last_used_at_and_holds_off_the_idle_timeout(gh: Gh, emulator: ThreadedEmulator, name: str):
    gh.text("ssh", "-c", name, "--", "true")
    codespace = emulator.account.codespaces[name]
    before = codespace.last_used
    gh.text("ssh", "-c", name, "--", "true")
    assert codespace.last_used > before


def test_ssh_stdio_is_a_proxy_command_of_openssh(gh: Gh, emulator: ThreadedEmulator, name: str, tmp_path: Path):
    if not shutil.which("ssh"):
        pytest.skip("no OpenSSH client on this machine")
    gh.text("ssh", "-c", name, "--", "true")
    config = tmp_path / "config"
    config.write_text(gh.text("ssh", "-c", name, "--config").replace("ControlMaster auto", "ControlMaster no"))
    # Three mebibytes there and back, so that windows and message borders matter.
    data = os.urandom(3 * 2**20)
    done = subprocess.run(
        ["ssh", "-F", config, f"cs.{name}.main", "cat"],
        env=gh.environment,
        input=data,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_cp_there_and_back(gh: Gh, emulator: ThreadedEmulator, name: str, tmp_path: Path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.write_bytes(os.urandom(100_000))
    gh.text("cp", "-e", "-c", name, str(original), "remote:there")
    assert (emulator.account.codespaces[name].folder / "home" / "there").read_bytes() == original.read_bytes()
    gh.text("cp", "-e", "-c", name, "remote:there", str(copy))
    assert copy.read_bytes() == original.read_bytes()


def test_jupyter_opens_the_server_of_the_codespace(gh: Gh, emulator: ThreadedEmulator, name: str):
    with interrupted_at_end(gh.start("jupyter", "-c", name)) as process:
        url = httpx.URL(process.stdout.readline().strip())
        assert url.host in {"127.0.0.1", "localhost"}
        token = url.params["token"]
        answer = httpx.get(
            url.copy_with(path="/api/kernelspecs", query=f"token={token}".encode()), trust_env=False, timeout=30
        )
        assert "python3" in answer.json()["kernelspecs"]


def test_no_jupyter(gh: Gh, emulator: ThreadedEmulator, name: str):
    emulator.faults.set("no-jupyter", name)
    done = gh("jupyter", "-c", name)
    assert done.returncode == 1
    assert "failed to start JupyterLab" in done.stderr


def test_no_ssh_server(gh: Gh, emulator: ThreadedEmulator, name: str):
    emulator.faults.set("no-sshd", name)
    done = gh("ssh", "-c", name, "--", "true")
    assert done.returncode == 1
    assert "failed to start SSH server" in done.stderr
    assert "features/sshd" in done.stderr


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from inside"
        self.send_response(200)
        # gh does not pass on that the far end has closed (cli/cli#6842): the client must know where the body ends.
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def served_port() -> Iterator[int]:
    """A port of the codespace, whose loopback is this machine's, where somebody listens."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_ports_forward(gh: Gh, emulator: ThreadedEmulator, name: str, served_port: int):
    local = free_port()
    with interrupted_at_end(gh.start("ports", "forward", f"{served_port}:{local}", "-c", name)):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{local}/", trust_env=False)
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer.text == "hello from inside"
        ports = json.loads(gh.text("ports", "-c", name, "--json", "sourcePort,visibility,browseUrl"))
        assert {"sourcePort": served_port, "visibility": "private",
                "browseUrl": f"https://{name}-{served_port}.app.github.dev"} in ports  # fmt: skip


def test_ports_have_the_labels_of_the_devcontainer(gh: Gh, emulator: ThreadedEmulator, name: str):
    with interrupted_at_end(gh.start("ports", "forward", f"8888:{free_port()}", "-c", name)):
        deadline = time.monotonic() + 60
        while {"sourcePort": 8888, "label": "Jupyter"} not in json.loads(
            gh.text("ports", "-c", name, "--json", "sourcePort,label")
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_ports_visibility(gh: Gh, emulator: ThreadedEmulator, name: str):
    with interrupted_at_end(gh.start("ports", "forward", f"8889:{free_port()}", "-c", name)):
        deadline = time.monotonic() + 60
        while 8889 not in [
            port["sourcePort"] for port in json.loads(gh.text("ports", "-c", name, "--json", "sourcePort"))
        ]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        gh.text("ports", "visibility", "8889:public", "-c", name)
        ports = json.loads(gh.text("ports", "-c", name, "--json", "sourcePort,visibility"))
        assert {"sourcePort": 8889, "visibility": "public"} in ports


def test_one_command_is_one_relay_connection(gh: Gh, emulator: ThreadedEmulator, name: str):
    gh.text("ssh", "-c", name, "--", "true")
    before = emulator.emulator.tunnels.relay_connections
    gh.text("ssh", "-c", name, "--", "true")
    assert emulator.emulator.tunnels.relay_connections == before + 1
