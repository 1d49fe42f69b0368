"""A broker on a port of this machine: nobody without its secret gets in, and nobody else is given the secret."""

import contextlib
import errno
import http.client
import json
import os
import secrets
import signal
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from codespace_kernels import platforms
from codespace_kernels.broker import loopback
from codespace_kernels.broker.endpoint import loopback_path
from codespace_kernels.broker.loopback import Guard, NotOurBrokerError
from codespace_kernels.errors import BrokerError
from tests.broker.test_process import client_with_a_home, ended, wait_until

PATIENT = loopback.PROOF_SECONDS


@pytest.fixture
def client(tmp_path_factory, monkeypatch):
    yield from client_with_a_home(tmp_path_factory, monkeypatch, "loopback")


@pytest.fixture
def place(client):
    """What the file of a running broker says."""
    client.ensure()
    return json.loads(loopback_path().read_text())


def ask(port, path, headers, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def bearer(place):
    return {"Authorization": f"Bearer {place['secret']}"}


@pytest.mark.parametrize("wrong", ["", "Bearer ", "Bearer {0}x", "{0}", "Basic {0}", "Bearer \xff"])
def test_without_the_secret_nothing_is_answered(place, wrong):
    headers = {"Authorization": wrong.format(place["secret"])} if wrong else {}
    for path in ("/v1/", "/v1/status", "/v1/kernels", "/no/such/thing", "/proof/short"):
        status, answer = ask(place["port"], path, headers)
        assert status == 403
        assert answer["error"]["type"] == "BrokerError"
        assert "secret is missing or wrong" in answer["error"]["message"]
        assert place["secret"] not in str(answer)


def test_without_the_secret_nothing_is_done(place, client):
    assert ask(place["port"], "/v1/quit", {}, b"{}")[0] == 403
    assert client.running()


@pytest.mark.parametrize("path", ["/v1/status", f"/proof/{'0' * 64}"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{0}"},
        {"Host": "127.0.0.1.evil.example:{0}"},
        {"Origin": "http://127.0.0.1:{0}"},
        {"Origin": "null"},
    ],
)
def test_web_pages_are_refused_even_with_the_secret(place, path, headers):
    sent = {name: value.format(place["port"]) for name, value in headers.items()}
    assert ask(place["port"], path, {**bearer(place), **sent})[0] == 403


def test_with_the_secret(place):
    assert ask(place["port"], "/v1/", bearer(place))[1]["pid"] == place["pid"]
    assert ask(place["port"], "/v1/", {**bearer(place), "Host": f"localhost:{place['port']}"})[0] == 200


def test_listens_on_this_machine_only(place):
    listening = [c.laddr for c in psutil.Process(place["pid"]).net_connections("inet") if c.status == "LISTEN"]
    assert listening == [("127.0.0.1", place["port"])]


def test_secret_is_nowhere_but_in_its_file(client, place):
    home = Path(os.environ["CODESPACE_KERNELS_HOME"])
    ask(place["port"], "/v1/status", {"Authorization": "Bearer wrong"})
    with pytest.raises(BrokerError) as failure:
        client.call("POST", "no/such/thing", {})
    process = psutil.Process(place["pid"])
    guard = Guard(place["port"], place["secret"])
    for text in (repr(failure.value), repr(guard), str(process.cmdline()), str(process.environ())):
        assert place["secret"] not in text
    folders = (home, loopback_path().parent)
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert [path for path in files if place["secret"] in path.read_text()] == [loopback_path()]


def test_each_broker_has_a_secret_of_its_own(client, place):
    client.call("POST", "quit", {})
    wait_until(lambda: ended(place["pid"]), "the broker to end")
    client.ensure()
    assert json.loads(loopback_path().read_text())["secret"] != place["secret"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"port": 1}', '{"port": "1", "secret": "x"}', '{"port": 70000, "secret": "x"}']
)
def test_file_that_makes_no_sense_is_no_broker(client, content):
    loopback_path().write_text(content)
    with pytest.raises(BrokerError, match=r"No broker answers at .*broker.json \(its content is not a broker's\)"):
        client.call("GET", "")
    client.ensure()


def test_file_that_another_process_looks_at_on_windows(client, monkeypatch):
    refusals = iter([PermissionError(13, "in use")] * 3)
    monkeypatch.setattr(platforms, "is_windows", lambda: True)
    replace = loopback.replace_file

    def replace_file(path, content):
        if error := next(refusals, None):
            raise error
        replace(path, content)

    monkeypatch.setattr(loopback, "replace_file", replace_file)
    place = loopback.LoopbackEndpoint(loopback_path())
    listening = place.listen()
    with listening.socket:
        assert json.loads(place.path.read_text())["port"] == listening.guard.port
    place.clear()
    assert not place.path.exists()


def listening():
    return {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}


def test_port_whose_file_cannot_be_written_is_not_kept(client, monkeypatch):
    def replace_file(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(loopback, "replace_file", replace_file)
    before = listening()
    with pytest.raises(PermissionError):
        loopback.LoopbackEndpoint(loopback_path()).listen()
    assert listening() == before


def test_body_without_end_is_cut_off(place):
    with socket.create_connection(("127.0.0.1", place["port"]), timeout=60) as sock:
        head = f"POST /v1/kernels HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {2**30}\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


class Stranger:
    """Somebody else on a port: answers each connection in its way and writes down what it hears."""

    def __init__(self, answer, port=0):
        self.heard = b""
        self._answer = answer
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A process is a zombie before the last of its threads lets go of its ports.
        wait_until(lambda: self._has(port), f"port {port} to be free")
        self._server.listen()
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _has(self, port):
        try:
            self._server.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(10)
                    self._answer(self, sock)
                    # Whoever is fooled goes on.
                    self.hear(sock)

    def hear(self, sock):
        data = sock.recv(65536)
        self.heard += data
        return data

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(15)
        assert not self._thread.is_alive()


def silent(stranger, sock):
    stranger.hear(sock)


def hangs_up(stranger, sock):
    stranger.hear(sock)
    sock.close()


def another_web_server(stranger, sock):
    stranger.hear(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + secrets.token_hex(32).encode())


def mirror(stranger, sock):
    sock.sendall(stranger.hear(sock))


def floods(stranger, sock):
    stranger.hear(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n" + b"x" * 10_000_000)


def drips(stranger, sock):
    stranger.hear(sock)
    for _ in range(100):
        sock.sendall(b"x")
        time.sleep(0.05)


@pytest.fixture(
    params=[silent, hangs_up, another_web_server, mirror, floods, drips], ids=lambda answer: answer.__name__
)
def answer(request, monkeypatch):
    monkeypatch.setattr(loopback, "PROOF_SECONDS", 0.5)
    return request.param


def test_stranger_on_the_port_of_a_killed_broker_is_not_told_the_secret(client, place, answer, monkeypatch):
    os.kill(place["pid"], signal.SIGKILL)
    wait_until(lambda: ended(place["pid"]), "the killed broker to be gone")
    stranger = Stranger(answer, place["port"])
    try:
        with pytest.raises(BrokerError, match="No broker answers"):
            client.call("POST", "quit", {})
        client.ensure()
        # The new broker itself is given the time that it has elsewhere.
        monkeypatch.setattr(loopback, "PROOF_SECONDS", PATIENT)
        assert client.call("GET", "")["pid"] != place["pid"]
    finally:
        stranger.close()
    assert stranger.heard.startswith(b"GET /proof/")
    assert place["secret"].encode() not in stranger.heard
    assert b"quit" not in stranger.heard


def test_stranger_cannot_have_the_broker_prove_for_it(place):
    def pass_on(stranger, sock):
        with socket.create_connection(("127.0.0.1", place["port"])) as broker:
            broker.sendall(stranger.hear(sock))
            sock.sendall(broker.recv(65536))

    stranger = Stranger(pass_on)
    try:
        with pytest.raises(NotOurBrokerError, match="another program listens on its port"):
            loopback.LoopbackConnection(Guard(stranger.port, place["secret"]), 5).connect()
    finally:
        stranger.close()
    assert place["secret"].encode() not in stranger.heard


def test_lost_connection_is_not_opened_again_without_a_proof(place):
    connection = loopback.LoopbackConnection(Guard(place["port"], place["secret"]), 5)
    connection.connect()
    connection.close()
    with pytest.raises(http.client.NotConnected):
        connection.request("GET", "/v1/")
