"""A real OpenSSH server on a loopback port, and connections to it."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import paramiko
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.ssh.wire import SocketWire
from tests.ports import free_port
from tests.processes import name_of

WAIT = 60
"""Seconds that a single step may take on a busy machine."""

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def make_key(path: Path) -> paramiko.PKey:
    private = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b"\n")
    return paramiko.PKey.from_path(path)


@dataclasses.dataclass
class Sshd:
    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    user_key: paramiko.PKey
    host_key: paramiko.PKey
    username: str = dataclasses.field(default_factory=getpass.getuser)

    def wire(self) -> SocketWire:
        return SocketWire(socket.create_connection(("127.0.0.1", self.port), 10))

    def sessions(self) -> list[psutil.Process]:
        """The server's process of each connection, its listener excluded."""
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if "sshd" in name_of(p)]

    def kill_sessions(self) -> None:
        for process in self.sessions():
            # One of the two of a connection ends with the other.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


def start_sshd(folder: Path, more: str = "") -> Sshd:
    if not Path(SSHD).exists():
        pytest.skip("no sshd on this machine")
    host_key, user_key = make_key(folder / "host"), make_key(folder / "user")
    port = free_port()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nMaxSessions 200\nMaxStartups 200\nLogLevel VERBOSE\n{more}"
    )
    # Its privilege separation folder, which distributions make at boot.
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log, stdin=subprocess.DEVNULL)
    log.close()
    server = Sshd(folder, port, process, user_key, host_key)
    give_up = time.monotonic() + WAIT
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                pytest.fail((folder / "log").read_text())
            signal.sigtimedwait([], 0.01)
        else:
            return server
    pytest.fail("sshd does not listen")


def stop_sshd(server: Sshd) -> None:
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.terminate()
    server.process.wait(WAIT)
    for child in children:
        if child.is_running():
            child.kill()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    stop_sshd(server)


NO_KEEPALIVE = KeepaliveOptions(0)
Connect = Callable[..., Awaitable[SshConnection]]


@pytest.fixture
async def connect(sshd: Sshd) -> AsyncIterator[Connect]:
    """Connects to the server; what is not closed by the test is closed after it."""
    made: list[SshConnection] = []

    async def connect_now(keepalive: KeepaliveOptions = NO_KEEPALIVE, **changes: object) -> SshConnection:
        arguments = {
            "username": sshd.username,
            "key": sshd.user_key,
            "check_host_key": lambda key: None,
            "description": "test",
            **changes,
        }
        wire = arguments.pop("wire", None) or sshd.wire()
        made.append(await SshConnection.connect(wire, keepalive=keepalive, **arguments))
        return made[-1]

    yield connect_now
    for connection in made:
        await connection.close()
