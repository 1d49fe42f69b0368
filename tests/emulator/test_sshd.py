"""The SSH server inside a machine, both kinds of it, used by the real OpenSSH programs and by paramiko."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from codespace_kernels.emulator.inside import Inside
from codespace_kernels.emulator.machine import Machine, MachineSpec
from codespace_kernels.emulator.sshd import PORT, create_server
from codespace_kernels.errors import EmulatorError

from .machine_fixtures import PATIENCE, EchoServer, MachineRoom, echo, eventually

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="OpenSSH's client is not installed")


class Client:
    """The OpenSSH programs with a key, a machine and a port."""

    def __init__(self, machine: Machine, key: Path, port: int) -> None:
        self.machine = machine
        self.key = key
        self.port = port
        # Without a configuration and an agent of whoever runs the tests.
        self.options = ["-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
        self.options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
        self.options += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30"]

    @property
    def target(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"

    def ssh(self, *arguments: str, stdin: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        command = ["ssh", *self.options, "-p", str(self.port), self.target, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)

    def out(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, done
        return done.stdout.decode().strip()

    def scp(self, *arguments: str) -> None:
        command = ["scp", *self.options, "-P", str(self.port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def transport(self) -> paramiko.Transport:
        transport = paramiko.Transport(("127.0.0.1", self.port))
        transport.connect(username=getpass.getuser(), pkey=paramiko.Ed25519Key.from_private_key_file(str(self.key)))
        return transport


def exit_status_of(session: paramiko.Channel) -> int:
    """Wait for a command's end; paramiko's own wait has no bound."""
    assert session.status_event.wait(PATIENCE), "the command did not end"
    return session.recv_exit_status()


@contextlib.contextmanager
def in_the_background() -> Iterator[None]:
    """Ignore the terminal's signals, as a program that a script started in the background."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineRoom]:
    # A path that a careless shell or configuration file would break at.
    with MachineRoom(tmp_path_factory.mktemp("a room")) as room:
        yield room


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    return folder


@pytest.fixture(scope="module", params=["openssh", "paramiko"])
def client(request: pytest.FixtureRequest, room: MachineRoom, keys: Path) -> Iterator[Client]:
    machine = room.machine(request.param, sshd=request.param)
    try:
        # What the server ignores must not be ignored by the commands.
        with in_the_background():
            room.run(machine.start_ssh_server((keys / "mine.pub").read_text()))
    except EmulatorError as error:
        pytest.skip(str(error))
    with room.tunnel(machine) as tunnel:
        room.put_port(machine, PORT)
        assert tunnel.refresh()
        with tunnel.listener(PORT) as port:
            yield Client(machine, keys / "mine", port)


def test_exit_status_and_streams_are_the_commands_own(client: Client) -> None:
    done = client.ssh("cat; echo oops >&2; exit 7", stdin=b"from stdin")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"from stdin", b"oops\n")


def test_a_command_that_dies_of_a_signal_is_told_apart(client: Client) -> None:
    assert client.ssh("kill -9 $$").returncode == 255


def test_the_shells_own_words_arrive_unchanged(client: Client) -> None:
    assert client.out("""printf '%s|' "a  b" 'c"d' "$((1 + 2))" \\$HOME""") == 'a  b|c"d|3|$HOME|'


def test_commands_run_in_the_machines_home_and_environment(client: Client) -> None:
    inside = client.machine.inside
    assert client.out("pwd -P") == str(inside.home)
    assert client.out("echo ~") == str(inside.home)
    assert client.out("echo $CODESPACES $CODESPACE_NAME $GITHUB_REPOSITORY $HOSTNAME") == (
        f"true {client.machine.spec.name} octocat/hello {inside.hostname}"
    )
    assert client.out("python -c 'import sys; print(sys.prefix)'") == str(client.machine.spec.folder / "python")


@pytest.mark.parametrize("shell", ["bash -lc", "bash -c", "sh -c", "bash -ic"])
def test_python_is_the_machines_own_in_every_shell(client: Client, shell: str) -> None:
    assert client.out(f"{shell} 'command -v python' 2>/dev/null") == str(client.machine.inside.python.executable)


def test_nothing_of_the_servers_ways_is_seen(client: Client) -> None:
    names = {line.partition("=")[0] for line in client.out("env -0 | tr '\\n\\0' ' \\n'").splitlines()}
    assert not names & {"SSH_ORIGINAL_COMMAND", "PYTHONPATH", "MAIL", "OLDPWD"}


def test_a_shell_reads_commands_from_stdin(client: Client) -> None:
    done = client.ssh(stdin=b"cd ..\npwd -P\nexit 5\n")
    assert done.returncode == 5
    assert done.stdout.decode().splitlines()[-1] == str(client.machine.spec.folder)


def test_a_pseudo_terminal_has_size_and_kind(client: Client) -> None:
    with client.transport() as transport:
        session = transport.open_session(timeout=PATIENCE)
        session.get_pty("xterm-256color", 101, 41)
        session.exec_command("tty; stty size; echo $TERM; read line; stty size; echo got $line")
        reader = session.makefile("r")
        output = "".join(reader.readline() for _ in range(3))
        session.resize_pty(90, 30)
        session.sendall(b"hello\n")
        output += reader.read().decode()
    assert "/dev/" in output
    for expected in ("41 101", "xterm-256color", "30 90", "got hello"):
        assert expected in output


def test_a_terminals_interrupt_reaches_the_command(client: Client) -> None:
    with client.transport() as transport:
        session = transport.open_session(timeout=PATIENCE)
        session.get_pty()
        session.exec_command("trap 'echo caught; exit 9' INT; echo ready; while true; do sleep 0.05; done")
        session.settimeout(PATIENCE)
        seen = b""
        while b"ready" not in seen:
            seen += session.recv(1000)
        session.sendall(b"\x03")
        assert exit_status_of(session) == 9


def test_a_big_output_arrives_whole(client: Client) -> None:
    done = client.ssh("head -c 30000000 /dev/zero; echo end")
    assert len(done.stdout) == 30_000_004
    assert done.stdout.endswith(b"end\n")


def test_a_big_input_arrives_whole(client: Client) -> None:
    assert client.ssh("wc -c", stdin=bytes(30_000_000)).stdout.split() == [b"30000000"]


def test_a_command_that_reads_nothing_does_not_hang(client: Client) -> None:
    done = client.ssh("exec 0<&-; sleep 0.2; echo done", stdin=bytes(5_000_000))
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_many_sessions_on_one_connection(client: Client) -> None:
    with client.transport() as transport:
        sessions = [transport.open_session(timeout=PATIENCE) for _ in range(20)]
        for number, session in enumerate(sessions):
            session.exec_command(f"read line; echo {number} $line")
        for session in reversed(sessions):
            session.sendall(b"x\n")
        outputs = [session.makefile("r").read().decode().strip() for session in sessions]
        assert outputs == [f"{number} x" for number in range(20)]
        assert {exit_status_of(session) for session in sessions} == {0}


def test_output_comes_before_the_command_ends(client: Client) -> None:
    with client.transport() as transport:
        session = transport.open_session(timeout=PATIENCE)
        session.exec_command("echo first; read line; echo second")
        session.settimeout(PATIENCE)
        assert session.recv(100) == b"first\n"
        session.sendall(b"\n")
        assert session.recv(100) == b"second\n"


def test_a_command_outlives_a_client_that_is_gone(client: Client) -> None:
    mark = client.machine.inside.home / "survived"
    with client.transport() as transport:
        session = transport.open_session(timeout=PATIENCE)
        session.exec_command(f"echo started; sleep 0.5; touch '{mark}'")
        assert session.recv(100) == b"started\n"
    eventually(mark.exists, "the command's end")


def test_scp_both_ways(client: Client, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "up").write_bytes(data)
    client.scp(str(tmp_path / "up"), f"{client.target}:~/there")
    assert (client.machine.inside.home / "there").read_bytes() == data
    client.scp(f"{client.target}:there", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == data


def test_sftp_begins_in_the_home_folder(client: Client) -> None:
    home = client.machine.inside.home
    with client.transport() as transport, transport.open_sftp_client() as sftp:
        assert sftp.normalize(".") == str(home)
        sftp.mkdir("folder", 0o700)
        with sftp.open("folder/file", "w") as file:
            file.write("text")
        sftp.chmod("folder/file", 0o640)
        sftp.truncate("folder/file", 2)
        sftp.posix_rename("folder/file", "folder/renamed")
        sftp.symlink("renamed", "folder/link")
        assert sorted(sftp.listdir("folder")) == ["link", "renamed"]
        assert sftp.stat("folder/link").st_size == 2
        assert (home / "folder" / "renamed").read_text() == "te"
        assert (home / "folder" / "renamed").stat().st_mode & 0o777 == 0o640
        with pytest.raises(FileNotFoundError):
            sftp.stat("nothing")
        for name in ("link", "renamed"):
            sftp.remove(f"folder/{name}")
        sftp.rmdir("folder")
    assert not (home / "folder").exists()


def test_direct_tcpip_reaches_a_port_inside(client: Client) -> None:
    with EchoServer(echo) as server, client.transport() as transport:
        channel = transport.open_channel("direct-tcpip", ("127.0.0.1", server.port), ("127.0.0.1", 1), timeout=PATIENCE)
        channel.sendall(b"hello")
        assert channel.recv(5) == b"hello"
        channel.shutdown_write()
        assert channel.recv(5) == b""
    with client.transport() as transport, socket.socket() as bound:
        # Kept, so that nobody else listens there meanwhile.
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 1), timeout=PATIENCE)


def test_only_the_handed_over_key_is_accepted(client: Client, keys: Path) -> None:
    other = Client(client.machine, keys / "other", client.port)
    assert other.ssh("true").returncode == 255
    with paramiko.Transport(("127.0.0.1", client.port)) as transport:
        transport.start_client(timeout=PATIENCE)
        with pytest.raises(paramiko.BadAuthenticationType) as refusal:
            transport.auth_none(getpass.getuser())
        assert refusal.value.allowed_types == ["publickey"]


def test_a_key_is_accepted_as_soon_as_it_is_handed_over(client: Client, room: MachineRoom, tmp_path: Path) -> None:
    key = tmp_path / "late"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", key], check=True)
    late = Client(client.machine, key, client.port)
    assert late.ssh("true").returncode == 255
    room.run(client.machine.start_ssh_server((tmp_path / "late.pub").read_text()))
    assert late.ssh("true").returncode == 0


def test_kinds_of_server(tmp_path: Path) -> None:
    spec = MachineSpec("kinds", "octocat/hello", "main", tmp_path)
    assert create_server("none", Inside(spec)) is None
    with pytest.raises(EmulatorError, match="auto, openssh, paramiko"):
        create_server("dropbear", Inside(spec))


def test_an_ssh_server_that_is_killed_comes_back(client: Client, room: MachineRoom) -> None:
    address = room.run(client.machine.start_ssh_server(""))
    with contextlib.closing(client.transport()) as transport, transport.open_session() as session:
        session.exec_command("sleep 600")
        room.faults.set("sshd-down", client.machine.spec.name)
        eventually(lambda: not transport.is_active(), "the end of the connection")
        with pytest.raises(ConnectionRefusedError):
            client.machine.connect(address.port)
    room.faults.clear()
    room.run(client.machine.start_ssh_server(""))
    with contextlib.closing(client.machine.connect(address.port)) as connection:
        connection.settimeout(PATIENCE)
        assert connection.recv(4) == b"SSH-"
