"""An SSH server on paramiko, for machines without OpenSSH's. A program: `python -m …paramiko_sshd FD HOST_KEY KEYS`.

It listens on the inherited descriptor FD, is known by the key in the file HOST_KEY, and accepts the keys in the file
KEYS, which it reads anew for every log-in. Commands run in its own environment and folder, so it is started in those
of the machine. It serves exec, shell, pseudo terminals, SFTP and direct-tcpip.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import signal
import socket
import sys
import threading
import weakref
from pathlib import Path

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
)

from codespace_kernels.emulator.channel_pump import PumpedTransport
from codespace_kernels.emulator.paramiko_session import Session, Terminal
from codespace_kernels.emulator.paramiko_sftp import Files, SftpServer

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Rules(paramiko.ServerInterface):
    """What one connection may do. Called on its transport's thread.

    Args:
        transport: The connection.
        authorized_keys: File of the keys that are accepted.
    """

    def __init__(self, transport: PumpedTransport, authorized_keys: Path) -> None:
        self._transport = transport
        self._authorized_keys = authorized_keys
        self._targets: dict[int, socket.socket] = {}
        self._terminals: dict[int, Terminal] = {}
        self._variables: dict[int, dict[str, str]] = {}
        self._idle: list[paramiko.Channel] = []
        self._started: dict[int, Session] = {}
        self._sessions: weakref.WeakValueDictionary[int, Session] = weakref.WeakValueDictionary()

    def get_allowed_auths(self, username: str) -> str:
        """Give the only method: public key."""
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Accept the machine's user with a key of the file."""
        accepted = username == getpass.getuser() and key.asbytes() in _accepted(self._authorized_keys)
        return AUTH_SUCCESSFUL if accepted else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Accept sessions."""
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        """Connect before the channel is confirmed; to loopback only, where connecting never keeps others waiting."""
        if destination[0] not in _LOOPBACK:
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            self._targets[chanid] = socket.create_connection(destination, timeout=5)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        return OPEN_SUCCEEDED

    def opened(self, channel: paramiko.Channel) -> None:
        """Take a new channel: tie it to the connection that was opened for it, or keep it until a request says more."""
        target = self._targets.pop(channel.chanid, None)
        if target is None:
            # paramiko itself holds channels weakly.
            self._idle = [known for known in self._idle if not known.closed] + [channel]
            return
        target.setblocking(False)
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.splice(
            channel,
            sources={target.fileno(): channel.send},
            sink=target.fileno(),
            on_sources_end=channel.close,
            on_sink_end=lambda: _shut(target),
            on_close=target.close,
        )

    def request_served(self, channel: paramiko.Channel) -> None:
        """Begin to move bytes of a session whose request was answered; the answer comes before the output."""
        session = self._started.pop(channel.chanid, None)
        if session is not None:
            self._idle.remove(channel)
            session.splice()

    def check_channel_env_request(self, channel: paramiko.Channel, name: bytes, value: bytes) -> bool:
        """Take locale variables, as the usual `AcceptEnv LANG LC_*`."""
        text = name.decode(errors="replace")
        if text != "LANG" and not text.startswith("LC_"):
            return False
        self._variables.setdefault(channel.chanid, {})[text] = value.decode(errors="replace")
        return True

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes,
    ) -> bool:
        """Make a pseudo terminal for the session."""
        try:
            self._terminals[channel.chanid] = Terminal(term.decode(errors="replace"), width, height)
        except OSError:
            return False
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        """Change the terminal's size."""
        session = self._sessions.get(channel.chanid)
        return session is not None and session.resize(width, height)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Run a command."""
        return self._run(channel, ["-c", os.fsdecode(command)])

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        """Run a login shell."""
        return self._run(channel, ["-l"])

    def _run(self, channel: paramiko.Channel, arguments: list[str]) -> bool:
        environment = {**os.environ, **self._variables.pop(channel.chanid, {})}
        terminal = self._terminals.pop(channel.chanid, None)
        session = Session(self._transport, channel, terminal)
        if not session.start([environment["SHELL"], *arguments], environment):
            return False
        self._sessions[channel.chanid] = session
        self._started[channel.chanid] = session
        return True


class Connection(PumpedTransport):
    """One client's connection."""

    def __init__(self, sock: socket.socket, host_key: paramiko.PKey, authorized_keys: Path) -> None:
        super().__init__(sock)
        self._rules = Rules(self, authorized_keys)
        self._socket = sock
        self.add_server_key(host_key)
        self.set_subsystem_handler("sftp", SftpServer, Files)

    def begin(self) -> None:
        """Start the connection's threads."""
        self.start_server(event=threading.Event(), server=self._rules)

    def request_served(self, channel: paramiko.Channel) -> None:
        """Go on with a session."""
        self._rules.request_served(channel)

    def ended(self) -> None:
        """Free the connection."""
        self._socket.close()

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # Where paramiko would keep the channel for `accept`, which nobody calls here.
        self._rules.opened(channel)


def _accepted(authorized_keys: Path) -> set[bytes]:
    """Give the keys of an `authorized_keys` file as plain SSH key blobs."""
    blobs = set()
    with contextlib.suppress(FileNotFoundError):
        for line in authorized_keys.read_text(encoding="utf-8").splitlines():
            fields = line.split()
            with contextlib.suppress(IndexError, ValueError):
                blobs.add(base64.b64decode(fields[1], validate=True))
    return blobs


def _shut(target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _give_sessions_usual_signals() -> None:
    """Let commands begin with the signals that a log-in has.

    A program that a script started in the background, or `nohup` did, ignores some of them, and so do all programs that
    it starts: a shell then cannot even trap them, and an interrupt from a terminal does nothing.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """Serve until the process is ended."""
    descriptor, host_key, authorized_keys = sys.argv[1:]
    _give_sessions_usual_signals()
    # Of the emulator's Python, no business of the sessions.
    os.environ.pop("PYTHONPATH", None)
    key = paramiko.ECDSAKey.from_private_key_file(host_key)
    listener = socket.socket(fileno=int(descriptor))
    listener.set_inheritable(False)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Connection(connection, key, Path(authorized_keys)).begin()


if __name__ == "__main__":
    main()
