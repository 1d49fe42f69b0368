"""Broker and client look who is at the other end of the socket, also where its mode and folder let others in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.endpoint import UnixEndpoint, socket_path
from codespace_kernels.broker.process import log_path
from codespace_kernels.errors import BrokerError
from tests.broker.test_process import client_with_a_home, wait_until

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of other users")

AS_USER = """
    import os, socket, sys
    folder, user = sys.argv[1], int(sys.argv[2])
    os.chdir(folder)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
"""
ASK = """
    sock.connect("broker.sock")
    sock.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    try:
        print(sock.recv(15).decode())
    except ConnectionResetError:
        print()
"""
LISTEN = """
    sock.bind("broker.sock")
    os.chmod("broker.sock", 0o666)
    sock.listen()
    print("listens", flush=True)
    connection, _ = sock.accept()
    print(connection.recv(100))
"""


def start(code, folder, user):
    program = textwrap.dedent(AS_USER) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", program, str(folder), str(user)], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def client(tmp_path_factory, monkeypatch):
    yield from client_with_a_home(tmp_path_factory, monkeypatch, "unix")


@pytest.mark.parametrize(("user", "answer"), [(0, "HTTP/1.1 200 OK"), (NOBODY, "")])
def test_the_broker_answers_its_own_user_only(client, user, answer):
    client.ensure()
    path = socket_path()
    path.chmod(0o666)
    path.parent.chmod(0o711)
    with start(ASK, path.parent, user) as process:
        said, _ = process.communicate(timeout=60)
    path.parent.chmod(0o700)
    assert said.strip() == answer
    if user == NOBODY:
        wait_until(lambda: f"user {NOBODY} was refused" in log_path().read_text(), "the broker to note it")
    assert client.running()


@pytest.mark.parametrize("user", [0, NOBODY])
def test_a_client_says_nothing_to_another_user_s_broker(tmp_path, user):
    """`0` shows that the test can fail: what a client sends does arrive at a listener of its own user."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    endpoint = UnixEndpoint(folder / "broker.sock")
    with start(LISTEN, folder, user) as process:
        assert process.stdout.readline() == "listens\n"
        if user == NOBODY:
            with pytest.raises(BrokerError, match=r"No broker answers at .*broker\.sock \(user 65534 listens"):
                BrokerClient([endpoint]).call("GET", "status")
        else:
            connection = endpoint.connect(60)
            connection.request("GET", "/v1/status", headers={"Secret": "c4nary"})
            connection.close()
        said, _ = process.communicate(timeout=60)
    assert ("c4nary" in said) is (user == 0)
    assert said.strip() == "b''" or user == 0
