from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import threading
import time

import paramiko
import psutil
import pytest

from codespace_kernels.errors import HostKeyError, SshError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.ssh.channel import ClientChannel
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.ssh.outbox import HIGH_WATER, OutboxPacketizer
from codespace_kernels.ssh.session import SshSession
from codespace_kernels.ssh.wire import SocketWire
from tests.ssh.blocked_link import Link
from tests.ssh.conftest import WAIT, make_key, start_sshd, stop_sshd


async def read_exactly(stream, size):
    data = bytearray()
    while len(data) < size:
        chunk = await stream.read()
        assert chunk, f"end after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


def wire_to(port):
    return SocketWire(socket.create_connection(("127.0.0.1", port), 10))


async def ended(connection):
    """The reason why a connection ended, once it has."""
    return await asyncio.wait_for(asyncio.shield(connection.closed), WAIT)


async def until(condition):
    """Wait for a condition, and give its value."""
    async with asyncio.timeout(WAIT):
        while not (value := condition()):
            await asyncio.sleep(0.02)
    return value


async def at_rest(count):
    """Wait until a count has begun to grow and has come to a stop, and give it."""
    looks = [0]
    async with asyncio.timeout(WAIT):
        while not looks[-1] or len(set(looks[-4:])) > 1:
            await asyncio.sleep(0.1)
            looks.append(count())
    return looks[-1]


class TestRun:
    async def test_gives_output_and_exit_status(self, connect):
        connection = await connect()
        result = await connection.run("cat; echo oops >&2; exit 3", stdin=b"hello")
        assert result == (3, b"hello", b"oops\n")

    async def test_whole_output_of_a_command_that_ends_at_once(self, connect):
        connection = await connect()
        results = await asyncio.gather(*(connection.run(f"echo {n}; exit {n}") for n in range(10)))
        assert [(r.exit_status, r.stdout) for r in results] == [(n, f"{n}\n".encode()) for n in range(10)]

    async def test_command_that_is_killed_has_no_exit_status(self, connect):
        connection = await connect()
        assert (await connection.run("kill -9 $$")).exit_status == -1

    async def test_large_input_that_is_not_read(self, connect):
        connection = await connect()
        result = await connection.run("exit 4", stdin=bytes(8_000_000))
        assert result.exit_status == 4

    async def test_command_that_takes_too_long_is_ended(self, connect):
        connection = await connect()
        with pytest.raises(WaitTimeoutError, match=r"0\.2 s"):
            await connection.run("sleep 30", timeout=0.2)
        assert (await connection.run("echo still here")).stdout == b"still here\n"

    async def test_after_close(self, connect):
        connection = await connect()
        await connection.close()
        with pytest.raises(WorkspaceConnectionError):
            await connection.run("true")


class TestStream:
    async def test_echoes(self, connect):
        connection = await connect()
        stream = await connection.open_command("cat")
        for message in (b"one", b"two", bytes(range(256)) * 4000):
            await stream.write(message)
            assert await read_exactly(stream, len(message)) == message
        stream.close()
        stream.close()

    async def test_read_gives_no_more_than_asked_for(self, connect):
        connection = await connect()
        stream = await connection.open_command("printf 0123456789")
        assert [await stream.read(4) for _ in range(4)] == [b"0123", b"4567", b"89", b""]

    async def test_huge_write_while_reading(self, connect):
        connection = await connect()
        stream = await connection.open_command("cat")
        data = os.urandom(1_000_000) * 40
        _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
        assert echoed == data

    async def test_writes_of_several_tasks_do_not_mix(self, connect):
        connection = await connect()
        stream = await connection.open_command("cat")
        blocks = [bytes([n]) * 3_000_000 for n in range(4)]
        *_, echoed = await asyncio.gather(*(stream.write(b) for b in blocks), read_exactly(stream, 12_000_000))
        assert echoed == b"".join(blocks)

    async def test_twenty_at_once(self, connect):
        connection = await connect()
        streams = await asyncio.gather(*(connection.open_command("cat") for _ in range(20)))

        async def echo(number, stream):
            data = bytes([number]) * 50_000
            await stream.write(data)
            return await read_exactly(stream, len(data)) == data

        assert all(await asyncio.gather(*(echo(n, s) for n, s in enumerate(streams))))

    async def test_end_of_the_command_ends_the_stream(self, connect):
        connection = await connect()
        stream = await connection.open_command("echo bye")
        assert await read_exactly(stream, 4) == b"bye\n"
        assert await stream.read() == b""
        await stream.wait_closed()
        with pytest.raises(WorkspaceConnectionError, match="closed"):
            await stream.write(b"too late")

    async def test_last_words_between_two_looks_are_read(self, connect, monkeypatch):
        # Only what the session's thread reads can come between two looks: the loop's reader waits for its turn.
        monkeypatch.setattr(SshSession, "_preferred_ciphers", ("aes128-ctr",))
        connection = await connect()
        stream = await connection.open_command("printf first; read line; printf last")
        assert await read_exactly(stream, 5) == b"first"
        look = ClientChannel.recv_ready
        closed_meanwhile = []

        def look_slowly(channel):
            ready = look(channel)
            give_up = time.monotonic() + WAIT
            # The session's thread goes on while the loop's is not given the processor.
            while not ready and not channel.closed and time.monotonic() < give_up:
                time.sleep(0.01)
            closed_meanwhile.append(not ready and channel.closed)
            return ready

        monkeypatch.setattr(ClientChannel, "recv_ready", look_slowly)
        await stream.write(b"\n")
        assert await read_exactly(stream, 4) == b"last"
        assert any(closed_meanwhile)

    async def test_close_ends_the_command(self, connect, tmp_path):
        connection = await connect()
        stream = await connection.open_command(f"echo $$; cat; touch {tmp_path}/done")
        pid = int(await stream.read())
        stream.close()
        await until(lambda: not psutil.pid_exists(pid))
        assert await stream.read() == b""

    async def test_close_wakes_a_reader(self, connect):
        connection = await connect()
        stream = await connection.open_command("cat")
        reader = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        stream.close()
        assert await asyncio.wait_for(reader, WAIT) == b""

    async def test_stderr_is_logged(self, connect, caplog):
        connection = await connect()
        with caplog.at_level("INFO"):
            stream = await connection.open_command("echo trouble >&2")
            assert await stream.read() == b""
            await stream.wait_closed()
        assert "workspace: trouble" in caplog.text

    async def test_everything_arrives_although_keys_are_exchanged_again(self, connect, monkeypatch):
        monkeypatch.setattr(OutboxPacketizer, "REKEY_BYTES", 300_000)
        connection = await connect()
        stream = await connection.open_command("cat")
        data = os.urandom(5_000_000)
        _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
        assert echoed == data
        assert (await connection.run("echo alive")).stdout == b"alive\n"


class TestLoopReader:
    async def test_data_is_decrypted_on_the_loop(self, connect, monkeypatch):
        threads = set()
        take = SshSession._take_packet

        def note(session, kind, message):
            taken = take(session, kind, message)
            if taken:
                threads.add(threading.get_ident())
            return taken

        monkeypatch.setattr(SshSession, "_take_packet", note)
        connection = await connect()
        stream = await connection.open_command("cat")
        for number in range(20):
            data = b"%d" % number * 10_000
            _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
            assert echoed == data
        assert threads == {threading.get_ident()}

    async def test_a_cipher_that_hides_lengths_is_read_by_the_thread(self, connect, monkeypatch):
        monkeypatch.setattr(SshSession, "_preferred_ciphers", ("aes128-ctr",))
        connection = await connect()
        stream = await connection.open_command("cat")
        data = os.urandom(1_000_000)
        _, echoed = await asyncio.gather(stream.write(data), read_exactly(stream, len(data)))
        assert echoed == data

    async def test_a_loop_that_watches_no_sockets_leaves_it_to_the_thread(self, connect, monkeypatch):
        def watch(*_args):
            raise NotImplementedError

        monkeypatch.setattr(SocketWire, "watch", watch)
        connection = await connect()
        assert [(await connection.run(f"echo {number}")).stdout for number in range(3)] == [b"0\n", b"1\n", b"2\n"]

    async def test_no_thread_and_no_socket_stays(self, connect):
        before = set(threading.enumerate())
        descriptors = psutil.Process().num_fds()
        for _ in range(5):
            connection = await connect()
            await connection.run("echo here")
            await connection.close()
        await until(lambda: set(threading.enumerate()) <= before)
        await until(lambda: psutil.Process().num_fds() <= descriptors)

    async def test_a_packet_that_is_damaged_ends_the_connection(self, connect, monkeypatch):
        connection = await connect()
        await connection.run("echo here")
        receive = SocketWire.receive_nowait

        def damage(wire):
            data = receive(wire)
            return data[:-1] + bytes([data[-1] ^ 1]) if data else data

        monkeypatch.setattr(SocketWire, "receive_nowait", damage)
        with pytest.raises(WorkspaceConnectionError):
            await connection.run("echo there")
        await asyncio.wait_for(asyncio.shield(connection.closed), WAIT)


class TestBlockedLink:
    async def test_writer_waits_and_the_loop_does_not(self, connect, sshd):
        async with Link(sshd.port) as link:
            connection = await connect(wire=wire_to(link.port))
            stream = await connection.open_command("echo ready; cat >/dev/null; echo end")
            assert await read_exactly(stream, 6) == b"ready\n"
            link.hold()
            written = 0

            async def write():
                nonlocal written
                for _ in range(400):
                    await stream.write(bytes(100_000))
                    written += 100_000

            writer = asyncio.create_task(write())
            # The loop turns all the while, and the writer comes to a stop.
            # Socket buffers, the link's two chunks, the window and the outbox.
            assert await at_rest(lambda: written) < 24_000_000 + HIGH_WATER
            assert not writer.done()
            link.release()
            await asyncio.wait_for(writer, WAIT)
            stream.write_eof()
            assert await stream.read() == b"end\n"

    async def test_many_writers_together_wait_as_early_as_one(self, connect, sshd):
        async with Link(sshd.port) as link:
            connection = await connect(wire=wire_to(link.port))
            streams = [await connection.open_command("echo ready; cat >/dev/null") for _ in range(20)]
            # OpenSSH opens a window only once the command runs.
            assert {await read_exactly(stream, 6) for stream in streams} == {b"ready\n"}
            link.hold()
            written = 0

            async def write(stream):
                nonlocal written
                for _ in range(80):
                    await stream.write(bytes(20_000))
                    written += 20_000

            # Every one alone would fit its channel's window.
            writers = [asyncio.create_task(write(stream)) for stream in streams]
            assert await at_rest(lambda: written) < 20 * 80 * 20_000 / 2
            link.release()
            await asyncio.wait_for(asyncio.gather(*writers), WAIT)

    async def test_close_while_a_writer_waits(self, connect, sshd):
        async with Link(sshd.port) as link:
            connection = await connect(wire=wire_to(link.port))
            stream = await connection.open_command("cat")
            link.hold()
            writer = asyncio.create_task(stream.write(bytes(60_000_000)))
            await asyncio.sleep(0.2)
            await asyncio.wait_for(connection.close(), WAIT)
            with pytest.raises(WorkspaceConnectionError):
                await asyncio.wait_for(writer, WAIT)

    async def test_silent_peer_is_given_up(self, connect, sshd):
        async with Link(sshd.port) as link:
            # A peer that answers, on a machine that keeps it waiting for a second, is not silent.
            connection = await connect(wire=wire_to(link.port), keepalive=KeepaliveOptions(0.1, 19))
            stream = await connection.open_command("cat")
            reader = asyncio.create_task(stream.read())
            await asyncio.sleep(2.2)
            assert not connection.closed.done()
            link.hold()
            started = asyncio.get_running_loop().time()
            assert "no answer from the other end" in await ended(connection)
            assert asyncio.get_running_loop().time() - started > 1.5
            with pytest.raises(WorkspaceConnectionError):
                await asyncio.wait_for(reader, WAIT)

    async def test_short_silence_is_survived(self, connect, sshd):
        async with Link(sshd.port) as link:
            connection = await connect(wire=wire_to(link.port), keepalive=KeepaliveOptions(0.2, 100))
            link.hold()
            await asyncio.sleep(0.7)
            link.release()
            assert (await connection.run("echo back")).stdout == b"back\n"
            assert not connection.closed.done()


class TestLoss:
    async def test_server_process_killed(self, connect, sshd):
        connection = await connect()
        stream = await connection.open_command("cat")
        reader = asyncio.create_task(stream.read())
        sshd.kill_sessions()
        assert re.search("other end closed|reset by peer", await ended(connection))
        with pytest.raises(WorkspaceConnectionError, match="lost"):
            await asyncio.wait_for(reader, WAIT)
        with pytest.raises(WorkspaceConnectionError, match="lost"):
            await stream.write(b"x")
        with pytest.raises(WorkspaceConnectionError, match="lost"):
            await connection.open_command("true")

    async def test_connection_reset(self, connect, sshd):
        async with Link(sshd.port) as link:
            connection = await connect(wire=wire_to(link.port))
            link.cut()
            assert await ended(connection)

    async def test_release_is_called_once(self, connect, sshd):
        released = []

        async def release():
            released.append(True)

        connection = await connect(release=release)
        sshd.kill_sessions()
        await ended(connection)
        await connection.close()
        await connection.close()
        assert released == [True]

    async def test_close_leaves_no_thread_and_no_socket(self, connect, sshd):
        process = psutil.Process()
        threads = {t.ident for t in threading.enumerate()}
        sockets = process.num_fds()
        connection = await connect()
        stream = await connection.open_command("cat")
        await asyncio.gather(stream.write(bytes(5_000_000)), read_exactly(stream, 5_000_000))
        await connection.forward("127.0.0.1", sshd.port)
        await connection.close()
        assert await ended(connection) == "The SSH connection ended: it was closed here."
        await until(lambda: not [t for t in threading.enumerate() if t.ident not in threads])
        await until(lambda: process.num_fds() <= sockets)


class TestPorts:
    @pytest.fixture
    async def echo_port(self):
        async def serve(reader, writer):
            writer.write(b"hi ")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()

    async def test_open_tcp(self, connect, echo_port):
        connection = await connect()
        stream = await connection.open_tcp("127.0.0.1", echo_port)
        assert await read_exactly(stream, 3) == b"hi "
        await stream.write(b"there")
        assert await read_exactly(stream, 5) == b"there"
        stream.close()

    async def test_open_tcp_to_a_port_where_nobody_listens(self, connect):
        connection = await connect()
        with socket.socket() as bound:
            # Kept, so that nobody else listens there meanwhile.
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            with pytest.raises(WorkspaceConnectionError, match=f"127.0.0.1:{port} was refused"):
                await connection.open_tcp("127.0.0.1", port)
        assert (await connection.run("echo fine")).stdout == b"fine\n"

    async def test_server_that_speaks_and_leaves(self, connect):
        async def serve(reader, writer):
            writer.write(b"12345")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        connection = await connect()
        for _ in range(50):
            stream = await connection.open_tcp("127.0.0.1", server.sockets[0].getsockname()[1])
            assert await read_exactly(stream, 5) == b"12345"
            assert await stream.read() == b""
            stream.close()
        server.close()

    async def test_forward_carries_many_connections(self, connect, echo_port):
        connection = await connect()
        port = await connection.forward("127.0.0.1", echo_port)

        async def visit(number):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = bytes([number]) * 200_000
            writer.write(data)
            writer.write_eof()
            received = await reader.read(-1)
            writer.close()
            return received == b"hi " + data

        assert all(await asyncio.gather(*(visit(n) for n in range(20))))

    async def test_forward_to_nobody_closes_the_connection(self, connect):
        connection = await connect()
        port = await connection.forward("127.0.0.1", 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), WAIT) == b""
        writer.close()

    async def test_forward_ends_with_the_connection(self, connect, echo_port):
        connection = await connect()
        port = await connection.forward("127.0.0.1", echo_port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readexactly(3) == b"hi "
        await connection.close()
        assert await asyncio.wait_for(reader.read(), WAIT) == b""
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    async def test_forward_listens_on_loopback_only(self, connect, echo_port):
        connection = await connect()
        port = await connection.forward("127.0.0.1", echo_port)
        listening = [c.laddr.ip for c in psutil.Process().net_connections() if c.laddr and c.laddr.port == port]
        assert set(listening) == {"127.0.0.1"}

    async def test_a_command_is_run_where_only_ports_are_used(self, connect, sshd, echo_port):
        # OpenSSH sets TCP_NODELAY only then.
        connection = await connect()
        stream = await connection.open_tcp("127.0.0.1", echo_port)
        wanted = rf"Starting session: command .* port {port_of(sshd)} "
        await until(lambda: re.search(wanted, (sshd.folder / "log").read_text()))
        stream.close()


def port_of(sshd):
    """Port of this process's newest connection to the server."""
    connections = psutil.Process().net_connections()
    return [c.laddr.port for c in connections if c.raddr and c.raddr.port == sshd.port][-1]


class TestUpload:
    async def test_makes_folders_and_sets_the_mode(self, connect, tmp_path):
        connection = await connect()
        target = tmp_path / "new folder" / "it's"
        await connection.upload(b"data", str(target), mode=0o640)
        assert target.read_bytes() == b"data"
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700

    async def test_replaces_and_leaves_nothing_else(self, connect, tmp_path):
        connection = await connect()
        target = tmp_path / "-file"
        for data in (b"first", os.urandom(3_000_000)):
            await connection.upload(data, str(target))
            assert target.read_bytes() == data
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["-file"]

    async def test_relative_path_starts_at_home(self, connect):
        connection = await connect()
        await connection.upload(b"x", "upload-test/a")
        assert (await connection.run("cat ~/upload-test/a; rm -r ~/upload-test")).stdout == b"x"

    async def test_file_that_cannot_be_written(self, connect, tmp_path):
        connection = await connect()
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(WorkspaceConnectionError, match=r"file/below could not be written"):
            await connection.upload(b"x", str(tmp_path / "file" / "below"))
        with pytest.raises(WorkspaceConnectionError, match="it is a folder"):
            await connection.upload(b"x", str(tmp_path))
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    async def test_connection_lost_in_the_middle_keeps_the_old_file(self, connect, sshd, tmp_path):
        target = tmp_path / "file"
        target.write_bytes(b"old")
        async with Link(sshd.port) as link:
            connection = await connect(wire=wire_to(link.port))
            upload = asyncio.create_task(connection.upload(bytes(50_000_000), str(target)))
            await until(lambda: [p for p in tmp_path.iterdir() if p.stat().st_size > 1_000_000])
            link.cut()
            with pytest.raises(WorkspaceConnectionError):
                await upload
        await until(lambda: [p.name for p in tmp_path.iterdir()] == ["file"])
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


class TestHandshake:
    async def test_key_that_is_not_accepted(self, connect, tmp_path):
        with pytest.raises(SshError, match="does not accept our key for user"):
            await connect(key=make_key(tmp_path / "other"))

    async def test_host_key_that_is_refused(self, connect):
        def refuse(key: paramiko.PKey) -> None:
            raise HostKeyError(f"not {key.get_name()}")

        with pytest.raises(HostKeyError, match="not ssh-ed25519"):
            await connect(check_host_key=refuse)

    async def test_peer_that_is_no_ssh_server(self, connect):
        async def serve(reader, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        with pytest.raises(SshError, match="handshake with the workspace failed"):
            await connect(wire=wire_to(server.sockets[0].getsockname()[1]))
        server.close()

    async def test_peer_that_says_nothing(self, connect):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            threads = threading.active_count()
            with pytest.raises((WaitTimeoutError, SshError)):
                await connect(wire=wire_to(silent.getsockname()[1]), timeout=0.3)
        await until(lambda: threading.active_count() <= threads)

    async def test_other_host_key_after_a_restart(self, tmp_path, connect):
        seen = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            server = start_sshd(tmp_path / name)
            try:
                connection = await SshConnection.connect(
                    server.wire(),
                    username=server.username,
                    key=server.user_key,
                    check_host_key=lambda key: seen.append(key.asbytes()),
                    description="",
                )
                await connection.close()
            finally:
                stop_sshd(server)
        assert len(set(seen)) == 2
