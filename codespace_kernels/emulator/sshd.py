"""The SSH server inside an emulated codespace: OpenSSH's where it can be used, else one on paramiko.

Both accept the machine's `authorized_keys` only, listen on a free loopback port, and run commands in the machine's
environment and home folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import paramiko

from codespace_kernels.emulator.inside import shell
from codespace_kernels.errors import EmulatorError

if TYPE_CHECKING:
    from codespace_kernels.emulator.inside import Inside

logger = logging.getLogger(__name__)

PORT = 2222
"""The port that tunnel clients see; that of the devcontainers feature `sshd`."""

_SBIN = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/bin", "/usr/bin"))
_SFTP_SERVERS = ("/usr/lib/openssh", "/usr/libexec", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/lib64/ssh")


class SshServer(Protocol):
    """A running SSH server."""

    address: tuple[str, int]

    async def start(self) -> None:
        """Begin to accept connections."""

    async def stop(self) -> None:
        """Accept no more. Sessions are ended with the machine's processes."""

    @property
    def pids(self) -> list[int]:
        """Process ids of the server, for `end_processes`: it hides its environment."""

    @property
    def alive(self) -> bool:
        """Whether it can take connections."""


def create_server(kind: str, inside: Inside) -> SshServer | None:
    """Give the SSH server of a machine, not started; blocks.

    Args:
        kind: `openssh`, `paramiko`, `auto` (OpenSSH's where it is installed and works), or `none`.
        inside: The machine's folders.

    Returns:
        None for `none`.

    Raises:
        EmulatorError: The kind is not known, or OpenSSH's was asked for and cannot be used.
    """
    if kind == "none":
        return None
    if kind not in ("auto", "openssh", "paramiko"):
        raise EmulatorError(f"There is no SSH server {kind!r}. The emulator knows auto, openssh, paramiko and none.")
    if kind != "paramiko":
        try:
            return OpenSshServer(inside)
        except EmulatorError as error:
            if kind == "openssh":
                raise
            logger.info("%s The one on paramiko takes its place.", error)
    return ParamikoServer(inside)


class OpenSshServer:
    """OpenSSH's `sshd`, one process a connection (`sshd -i`), so that no port can be taken in between.

    `sshd` takes the home folder from the user database. `SetEnv` gives sessions the machine's environment, and a forced
    command enters the home folder before it runs what the client asked for.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._folder = inside.etc / "ssh"
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        binary = shutil.which("sshd", path=_SBIN)
        if binary is None:
            raise EmulatorError("OpenSSH's server (sshd) is not installed.")
        _check_user()
        self._command = [binary, "-f", str(self._folder / "sshd_config"), "-E", str(self._folder / "log")]
        self._configure()

    @property
    def pids(self) -> list[int]:
        """Process ids of the servers of open connections."""
        self._children = [child for child in self._children if child.poll() is None]
        return [child.pid for child in self._children]

    @property
    def alive(self) -> bool:
        """Whether it can take connections: always, as each has a process of its own."""
        return True

    async def start(self) -> None:
        """Listen."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address = self._socket.getsockname()[:2]
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def stop(self) -> None:
        """Stop listening."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            with connection:
                connection.setblocking(True)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.to_thread(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        _ = self.pids
        child = subprocess.Popen(
            [*self._command, "-i"],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            stderr=subprocess.DEVNULL,
            env=self._inside.environment(),
            start_new_session=True,
        )
        self._children.append(child)

    def _configure(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = self._folder / "host_key"
        host_key(key)
        enter = self._folder / "enter"
        enter.write_text(self._enter_script(), encoding="utf-8")
        enter.chmod(0o700)
        (self._folder / "sshd_config").write_text(self._config(key, enter), encoding="utf-8")
        problem = self._problem()
        if problem.startswith("Missing privilege separation directory: ") and os.geteuid() == 0:
            # The system's service makes this empty folder when it starts; in containers it often never did.
            Path(problem.rpartition(": ")[2]).mkdir(mode=0o755, parents=True, exist_ok=True)
            problem = self._problem()
        if problem:
            raise EmulatorError(f"OpenSSH's server cannot be used here: {problem}.")

    def _problem(self) -> str:
        done = subprocess.run(
            [self._command[0], "-t", *self._command[1:3]], capture_output=True, text=True, timeout=10, check=False
        )
        return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""

    def _config(self, key: Path, enter: Path) -> str:
        env = self._inside.environment()
        variables = " ".join(f'"{name}={_quoted(value)}"' for name, value in env.items())
        return f"""\
HostKey "{key}"
AuthorizedKeysFile "{str(self._inside.authorized_keys).replace("%", "%%")}"
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
PermitUserRC no
PermitUserEnvironment no
X11Forwarding no
MaxSessions 100
PidFile none
LogLevel VERBOSE
ForceCommand {shlex.quote(str(enter))}
Subsystem sftp internal-sftp
SetEnv {variables}
"""

    def _enter_script(self) -> str:
        folders = [Path(folder) / "sftp-server" for folder in _SFTP_SERVERS]
        sftp = next((str(path) for path in folders if path.exists()), "sftp-server")
        return f"""\
#!/bin/sh
cd "$HOME" || exit 1
command=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND MAIL OLDPWD
case "$command" in
  "") exec {shlex.quote(shell())} -l ;;
  internal-sftp*) exec {shlex.quote(sftp)} ;;
  *) exec {shlex.quote(shell())} -c "$command" ;;
esac
"""


class ParamikoServer:
    """The SSH server on paramiko, one process a machine (`paramiko_sshd`)."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._process: subprocess.Popen[bytes] | None = None
        self._key = inside.etc / "ssh" / "host_key"
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        host_key(self._key)

    @property
    def pids(self) -> list[int]:
        """The server's process id."""
        return [self._process.pid] if self._process else []

    @property
    def alive(self) -> bool:
        """Whether it can take connections."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start the process. It inherits a socket that listens already, so nobody waits for its imports."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.address = listener.getsockname()[:2]
            self._process = await asyncio.to_thread(self._launch, listener)

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 3)

    def _launch(self, listener: socket.socket) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "codespace_kernels.emulator.paramiko_sshd", str(listener.fileno())]
        command += [str(self._key), str(self._inside.authorized_keys)]
        # Its own imports come from the emulator's Python; sessions get the environment without this path.
        env = self._inside.environment() | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with (self._inside.etc / "ssh" / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._inside.home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )


def host_key(path: Path) -> paramiko.ECDSAKey:
    """Give the ECDSA P-384 host key in this file; makes it (readable by its owner only) where it is missing."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        paramiko.ECDSAKey.generate(bits=384).write_private_key_file(str(path))
    return paramiko.ECDSAKey.from_private_key_file(str(path))


def _check_user() -> None:
    """Check that `sshd` can log this user in: one of the user database, not locked, with a shell that runs commands."""
    try:
        name, login_shell = pwd.getpwuid(os.getuid()).pw_name, pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        raise EmulatorError(f"OpenSSH's server cannot log in user {os.getuid()}, who has no name.") from None
    if Path(login_shell).name in ("nologin", "false"):
        raise EmulatorError(f"OpenSSH's server cannot run commands: this user's login shell is {login_shell}.")
    # Readable for root only, as whom sshd heeds it.
    with contextlib.suppress(OSError):
        if f"\n{name}:!" in f"\n{Path('/etc/shadow').read_text(encoding='utf-8')}":
            raise EmulatorError(f"OpenSSH's server cannot log in user {name}, whose account is locked.")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
