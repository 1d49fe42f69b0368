"""An SSH server that keeps to no rule costs a stated amount of memory, and the fault is named."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading

import paramiko
import pytest

from codespace_kernels.errors import SshError, WorkspaceConnectionError
from codespace_kernels.ssh import connection as connections
from codespace_kernels.ssh import outbox
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.ssh.session import WINDOW
from codespace_kernels.ssh.wire import SocketWire
from tests.ssh.conftest import WAIT, make_key

CHUNK = 32 * 1024
MIB = 1024 * 1024


class Server(paramiko.ServerInterface):
    """Lets everybody in and answers commands with what it is told to do."""

    def __init__(self, behave) -> None:
        self.behave = behave
        self.sent = 0

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, chanid):
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._run, args=(channel,), daemon=True).start()
        return True

    def _run(self, channel):
        with contextlib.suppress(OSError, EOFError):
            for data in self.behave(channel):
                self.sent += len(data)


@contextlib.contextmanager
def serving(tmp_path, behave):
    """A server of its own for one connection; gives its port and what counts the bytes it sent."""
    server = Server(behave)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transports = []

        def accept():
            transport = paramiko.Transport(listener.accept()[0])
            transport.add_server_key(make_key(tmp_path / "host"))
            transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(threading.Event(), server)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], server
        finally:
            thread.join(WAIT)
            for transport in transports:
                transport.close()
                transport.join(WAIT)


async def connect(port, tmp_path):
    return await SshConnection.connect(
        SocketWire(socket.create_connection(("127.0.0.1", port), 10)),
        username="me",
        key=make_key(tmp_path / "user"),
        check_host_key=lambda key: None,
        description="test",
        keepalive=KeepaliveOptions(0),
    )


def ignore_window(send):
    def behave(channel):
        for _ in range(1024):
            channel.out_window_size = 1 << 30
            yield bytes(send(channel, bytes(CHUNK)))

    return behave


@pytest.mark.parametrize("send", [paramiko.Channel.send, paramiko.Channel.send_stderr])
async def test_more_than_the_window(tmp_path, send):
    with serving(tmp_path, ignore_window(send)) as (port, _):
        connection = await connect(port, tmp_path)
        stream = await connection.open_command("flood")
        # Nobody reads. Its stderr is read at once, so the flood of that is one of the log, which is bounded.
        if send is paramiko.Channel.send_stderr:
            stream._channel.listen(None)
        async with asyncio.timeout(WAIT):
            reason = await asyncio.shield(connection.closed)
        assert f"sent more than the {WINDOW} bytes that it may" in reason
        await connection.close()


async def test_output_of_a_command_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "MOST_OUTPUT", MIB)

    def behave(channel):
        for _ in itertools.count():
            channel.sendall(bytes(CHUNK))
            yield bytes(CHUNK)

    with serving(tmp_path, behave) as (port, server):
        connection = await connect(port, tmp_path)
        with pytest.raises(WorkspaceConnectionError, match="writes more than 1 MiB"):
            await connection.run("yes")
        # The channel's window and what is on its way may come on top.
        assert server.sent < 16 * MIB
        await connection.close()


@pytest.mark.parametrize("kind", ["forwarded-tcpip", "x11", "auth-agent@openssh.com", "session", "direct-tcpip"])
async def test_channels_towards_this_computer(tmp_path, kind):
    refused = []

    def behave(channel):
        try:
            channel.get_transport().open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 22), timeout=WAIT)
        except paramiko.ChannelException as error:
            refused.append(error.code)
        channel.close()
        yield b""

    with serving(tmp_path, behave) as (port, _):
        connection = await connect(port, tmp_path)
        await connection.run("open", timeout=WAIT)
        await connection.close()
    assert refused == [paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED]


ENDLESS = b"0" * 65536
PACKET = b"SSH-2.0-x\r\n\x7f\xff\xff\xf4" + ENDLESS


@pytest.mark.parametrize(
    ("said", "text"),
    [(PACKET, "announced a packet of 21474836"), (ENDLESS, "more than 65536 bytes before its first packet")],
)
async def test_what_has_no_end_before_anybody_is_known(tmp_path, said, text):
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            nonlocal sent
            with contextlib.suppress(OSError), listener.accept()[0] as sock:
                sock.sendall(said)
                while True:
                    sock.sendall(ENDLESS)
                    sent += len(ENDLESS)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(SshError, match=text):
            await connect(listener.getsockname()[1], tmp_path)
        thread.join(WAIT)
        assert not thread.is_alive()
    # What fits into the buffers of both sockets, on a machine that has large ones.
    assert sent < 64 * MIB


def test_answers_that_nobody_takes(monkeypatch):
    class Stuck:
        closed = False

        def send_nowait(self, data):
            return 0

        def flush_nowait(self):
            return False

        def wait_writable(self, seconds):
            threading.Event().wait(0.01)

        def close(self):
            self.closed = True

    wire = Stuck()
    packetizer = outbox.OutboxPacketizer(wire)
    most = outbox.MOST_WAITING // MIB
    for _ in range(most):
        packetizer.write_all(bytes(MIB))
    with pytest.raises(EOFError):
        packetizer.write_all(bytes(MIB))
    assert wire.closed
    assert "wants answers and takes none" in str(packetizer.failure)
    packetizer.close()
