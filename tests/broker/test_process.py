"""The broker as a process: started on demand, nobody's child, one a user, gone when unused."""

import concurrent.futures
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from codespace_kernels.broker.client import BrokerClient, broker_environment
from codespace_kernels.broker.endpoint import loopback_path, socket_path
from codespace_kernels.errors import BrokerError, KernelNotFoundError, SettingsError


def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def ended(pid):
    """Whether a process runs no more; whoever adopted it may not have collected it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(params=["unix", "loopback"])
def endpoint(request):
    return request.param


only_unix = pytest.mark.parametrize("endpoint", ["unix"], indirect=True)
only_loopback = pytest.mark.parametrize("endpoint", ["loopback"], indirect=True)


def client_with_a_home(tmp_path_factory, monkeypatch, endpoint):
    """A client whose broker lives in a home of its own; the broker is ended at the end."""
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", endpoint)
    client = BrokerClient()
    yield client
    if client.running():
        pid = client.call("GET", "")["pid"]
        client.call("POST", "quit", {})
        wait_until(lambda: ended(pid), "the broker to end")


@pytest.fixture
def client(tmp_path_factory, monkeypatch, endpoint):
    yield from client_with_a_home(tmp_path_factory, monkeypatch, endpoint)


def test_ensure_starts_one_that_is_nobodys_child(client):
    client.ensure()
    process = psutil.Process(client.call("GET", "")["pid"])
    assert process.ppid() != os.getpid()
    assert os.getsid(process.pid) == process.pid
    assert process.cwd() == "/"


def test_ensure_twice_is_one_broker(client):
    client.ensure()
    first = client.call("GET", "")["pid"]
    client.ensure()
    assert client.call("GET", "")["pid"] == first


def test_started_by_many_at_once_is_one_broker(client):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = [future.exception() for future in [pool.submit(client.ensure) for _ in range(4)]]
    assert outcomes == [None] * 4


def test_file_that_leads_to_it_is_private(client, endpoint):
    client.ensure()
    path, other = (socket_path(), loopback_path()) if endpoint == "unix" else (loopback_path(), socket_path())
    assert path.exists()
    assert not other.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(os.fsencode(path)) < 104


def test_left_over_file_is_no_hindrance(client, endpoint):
    client.ensure()
    pid = client.call("GET", "")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(pid), "the killed broker to be gone")
    assert (socket_path() if endpoint == "unix" else loopback_path()).exists()
    assert not client.running()
    client.ensure()
    assert client.call("GET", "")["pid"] != pid


def test_front_ends_with_another_setting_share_the_broker(client, endpoint, monkeypatch):
    client.ensure()
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", "loopback" if endpoint == "unix" else "unix")
    other = BrokerClient()
    other.ensure()
    assert other.call("GET", "")["pid"] == client.call("GET", "")["pid"]


def test_file_of_the_other_kind_that_a_killed_broker_left_is_removed(client, endpoint, monkeypatch):
    client.ensure()
    pid = client.call("GET", "")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(pid), "the killed broker to be gone")
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", "loopback" if endpoint == "unix" else "unix")
    BrokerClient().ensure()
    assert not (socket_path() if endpoint == "unix" else loopback_path()).exists()
    assert client.running()


def test_unknown_kind_of_endpoint(monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", "carrier-pigeon")
    with pytest.raises(SettingsError, match="'carrier-pigeon'; it can be 'unix' or 'loopback'"):
        BrokerClient()


def test_leaves_when_unused(client):
    process = subprocess.Popen([sys.executable, "-m", "codespace_kernels.broker", "--idle-timeout", "0.3"])
    assert process.wait(60) == 0
    assert not socket_path().exists()
    assert not loopback_path().exists()


def test_second_one_refuses(client):
    client.ensure()
    done = subprocess.run(
        [sys.executable, "-m", "codespace_kernels.broker"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert done.stderr.strip().startswith("Another broker of this user is alive")


@only_unix
def test_answers_over_plain_http(client):
    client.ensure()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(socket_path()))
        sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    status = json.loads(data.partition(b"\r\n\r\n")[2])
    assert status["workspaces"] == status["kernels"] == []


@only_loopback
def test_answers_over_plain_http_on_its_port(client):
    client.ensure()
    port, secret = (json.loads(loopback_path().read_text())[name] for name in ("port", "secret"))
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/status")
    request.add_header("Authorization", f"Bearer {secret}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        status = json.load(answer)
    assert status["workspaces"] == status["kernels"] == []


@pytest.mark.parametrize(
    ("path", "body", "error", "text"),
    [
        ("kernels/00-00/restart", {}, KernelNotFoundError, "no kernel 00-00"),
        ("workspaces/connect", {"workspace": "x"}, SettingsError, "'access'"),
        ("workspaces/connect", [1], SettingsError, "JSON object"),
        ("no/such/thing", {}, BrokerError, "no such request"),
    ],
)
def test_bad_requests(client, path, body, error, text):
    client.ensure()
    with pytest.raises(error, match=text):
        client.call("POST", path, body)
    assert client.running()


def test_no_broker(monkeypatch, endpoint):
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", endpoint)
    with pytest.raises(BrokerError, match="No broker answers"):
        BrokerClient().call("GET", "status")


def test_born_without_account_or_address():
    kept = broker_environment(
        {"PATH": "/bin", "GH_TOKEN": "x", "GITHUB_API_URL": "y", "AWS_SECRET": "z", "LC_ALL": "C"}
    )
    assert kept == {"PATH": "/bin", "LC_ALL": "C"}


def test_broker_that_cannot_start_says_why(client, monkeypatch, tmp_path):
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tornado.py").write_text("raise RuntimeError('no tornado today')")
    with pytest.raises(BrokerError, match="no tornado today"):
        client.ensure()
