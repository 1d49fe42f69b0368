"""Streams that break: nothing is lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import psutil
import pytest

from codespace_kernels.bootstrap import RemoteServer, ensure_server
from codespace_kernels.connection import Stream
from codespace_kernels.errors import LinkError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.link.client import LinkClient
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState
from tests.processes import command_line

from .conftest import processes_of
from .local_connection import LocalConnection
from .recorder import Recorder


class CutStream:
    """A stream that breaks after so many bytes in each direction, or falls silent."""

    def __init__(self, stream: Stream, reads: int = 1 << 60, writes: int = 1 << 60, *, silent: bool = False) -> None:
        self._stream, self._reads, self._writes, self._silent = stream, reads, writes, silent

    async def read(self, max_bytes: int = 262144) -> bytes:
        data = await self._stream.read(max_bytes)
        data = data[: max(0, self._reads)]
        self._reads -= len(data)
        if data:
            return data
        await self._break()
        return b""

    async def write(self, data: bytes) -> None:
        await self._stream.write(data[: max(0, self._writes)])
        self._writes -= len(data)
        if self._writes < 0:
            await self._break()

    async def _break(self) -> None:
        if self._silent:
            await asyncio.Event().wait()
        self._stream.close()
        raise WorkspaceConnectionError("The test cut the stream.")

    def close(self) -> None:
        self._stream.close()


@pytest.fixture
async def server(connection: LocalConnection) -> RemoteServer:
    return await ensure_server(connection, install=False)


async def test_a_flood_survives_many_cuts(connection: LocalConnection, server: RemoteServer) -> None:
    dice = random.Random(7)
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("count = 0")
    code = "count += 1\nfor i in range(3000): print(i, 'x' * 200, flush=True)\nprint('ran', count)"
    request = recorder.request(code)
    done = asyncio.ensure_future(recorder.until(lambda: recorder.is_idle(request), 100))
    cuts = 0
    while not done.done():
        stream = await server.open_link(connection)
        try:
            await client.attach(CutStream(stream, dice.randrange(2000, 120_000)))
        except LinkError:
            continue
        # A stream that may carry more than is left of the flood is not cut.
        detached = asyncio.ensure_future(client.wait_detached())
        await asyncio.wait({done, detached}, return_when=asyncio.FIRST_COMPLETED)
        detached.cancel()
        cuts += 1
        if cuts > 15 and not done.done():
            await client.attach(await server.open_link(connection))
            break
    await done
    assert cuts > 5
    lines = recorder.text(request).splitlines()
    assert lines == [f"{i} {'x' * 200}" for i in range(3000)] + ["ran 1"]
    assert not recorder.gaps
    states = [state for state, _ in recorder.states]
    assert set(states) == {KernelState.RECONNECTING, KernelState.ALIVE}
    await recorder.kernel.shutdown()
    await client.close()


async def test_requests_that_were_cut_run_exactly_once(connection: LocalConnection, server: RemoteServer) -> None:
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("seen = []")
    requests = []
    for index in range(12):
        stream = await server.open_link(connection)
        with contextlib.suppress(LinkError):  # cut before the hello was answered
            await client.attach(CutStream(stream, writes=300 + 120 * index))
        requests.append(recorder.request(f"seen.append({index})"))
        await client.wait_detached()
        requests.append(recorder.request(f"seen.append({index} + 0.5)"))
    await client.attach(await server.open_link(connection))
    await recorder.until(lambda: recorder.is_idle(requests[-1]))
    result = recorder.text(await recorder.run("print(seen)"))
    assert result == str([half for index in range(12) for half in (index, index + 0.5)]) + "\n"
    await recorder.kernel.shutdown()
    await client.close()


async def test_a_silent_stream_is_given_up_and_nothing_is_lost(
    connection: LocalConnection, server: RemoteServer
) -> None:
    reasons: list[str] = []
    client = LinkClient(on_detached=reasons.append, ping_interval=0.1, busy_ping_interval=0.1, silence_limit=3.0)
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("import time")
    await client.attach(CutStream(await server.open_link(connection), reads=3000, silent=True))
    request = recorder.request("for i in range(100): print(i, flush=True); time.sleep(0.01)")
    assert "no sign of life" in await client.wait_detached()
    assert reasons == [await client.wait_detached()]
    await client.attach(await server.open_link(connection))
    await recorder.until(lambda: recorder.is_idle(request))
    assert recorder.text(request) == "".join(f"{i}\n" for i in range(100))
    await recorder.kernel.shutdown()
    await client.close()


NUMBERS = "for i in range(100): print(i, flush=True); time.sleep(0.02)"


async def test_a_server_that_is_stuck_leaves_running_cells_alone(
    connection: LocalConnection, server: RemoteServer
) -> None:
    client = LinkClient(command_timeout=60.0)
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("import time")
    pid = (await client.server_info())["pid"]
    request = recorder.request(NUMBERS)
    await recorder.until(lambda: recorder.text(request))
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(WaitTimeoutError, match="stuck or has too much to do"):
            await client.command("interrupt", timeout=0.5, kernel_id=recorder.kernel.kernel_id)
        await recorder.until(lambda: recorder.is_idle(request))
        assert recorder.text(await recorder.run("print('and on')")) == "and on\n"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert recorder.text(request) == "".join(f"{i}\n" for i in range(100))
    assert client.attached
    await recorder.kernel.restart()
    assert recorder.text(await recorder.run("print('time' in globals())")) == "False\n"
    await recorder.kernel.shutdown()
    await client.close()


async def test_a_child_that_is_stuck_is_found_and_loses_nothing(
    connection: LocalConnection, server: RemoteServer
) -> None:
    client = LinkClient(busy_ping_interval=0.1, silence_limit=2.0)
    client.is_running = lambda: True
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    await recorder.run("import time")
    pid = (await client.server_info())["child_pid"]
    request = recorder.request(NUMBERS)
    await recorder.until(lambda: recorder.text(request))
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "no sign of life" in await asyncio.wait_for(client.wait_detached(), 60)
        # The first part of the way is there: who listens for splices is not stuck.
        opening = asyncio.ensure_future(server.open_link(connection))
        await asyncio.wait({opening}, timeout=0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    await client.attach(await opening)
    await recorder.until(lambda: recorder.is_idle(request))
    assert recorder.text(request) == "".join(f"{i}\n" for i in range(100))
    assert not recorder.gaps
    await recorder.kernel.shutdown()
    await client.close()


async def test_a_second_stream_replaces_the_first_and_its_splice(
    connection: LocalConnection, server: RemoteServer, home: Path
) -> None:
    client = LinkClient()
    first = await connection_stream(server, connection)
    await client.attach(first)
    await one_splice(home)
    # The old stream is never closed on this side, as over a dead connection.
    await client.attach(NeverClosed(await connection_stream(server, connection)))
    await client.attach(await connection_stream(server, connection))
    await one_splice(home)
    assert "jupyter_server" in await client.server_info()
    await client.close()


async def one_splice(home: Path) -> None:
    """Wait until there is one, and those of streams before it have ended."""
    async with asyncio.timeout(60):
        while sum("splice.py" in command_line(process) for process in processes_of(home)) != 1:
            await asyncio.sleep(0.05)


async def connection_stream(server: RemoteServer, connection: LocalConnection) -> Stream:
    return await server.open_link(connection)


class NeverClosed(CutStream):
    def close(self) -> None:
        pass


async def test_commands_wait_for_the_next_stream(connection: LocalConnection, server: RemoteServer) -> None:
    client = LinkClient()
    waiting = asyncio.ensure_future(client.kernelspecs())
    await asyncio.sleep(0)
    await client.attach(await server.open_link(connection))
    assert "python3" in await waiting
    await client.close()
    with pytest.raises(LinkError, match="was closed"):
        await client.kernels()


async def test_a_command_without_a_stream_ends_in_time() -> None:
    client = LinkClient(command_timeout=0.1)
    with pytest.raises(
        WaitTimeoutError, match=r"after 0\.1 s waiting for the workspace to do 'kernels' \(no connection"
    ):
        await client.kernels()
    await client.close()


async def test_close_fails_what_waits() -> None:
    client = LinkClient()
    waiting = asyncio.ensure_future(client.kernels())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(LinkError, match="was closed"):
        await waiting


async def test_another_protocol_is_named(connection: LocalConnection) -> None:
    client = LinkClient()
    with pytest.raises(LinkError, match="unknown kind of frame"):
        await client.attach(await connection.open_command("echo HTTP/1.1 400 Bad Request; sleep 5"))
    with pytest.raises(LinkError, match="was not established"):
        await client.attach(await connection.open_command("true"))
    with pytest.raises(WaitTimeoutError, match="link process"):
        await client.attach(await connection.open_command("sleep 5"), timeout=0.2)
    await client.close()


async def test_two_clients_share_a_kernel(connection: LocalConnection, server: RemoteServer) -> None:
    clients = [LinkClient(), LinkClient()]
    for client in clients:
        await client.attach(await server.open_link(connection))
    one = Recorder(await clients[0].start_kernel("python3"))
    two = Recorder(await clients[1].attach_kernel(one.kernel.kernel_id))
    request = await one.run("print('shared')")
    await two.until(lambda: two.is_idle(request))
    assert two.text(request) == "shared\n"
    await clients[0].close()
    await two.run("pass")
    await two.kernel.shutdown()
    await clients[1].close()


async def test_the_round_trip_is_known_while_there_is_a_stream(
    connection: LocalConnection, server: RemoteServer
) -> None:
    client = LinkClient(ping_interval=0.05, busy_ping_interval=0.01)
    try:
        assert client.rtt is client.heard_at is None
        for _ in range(2):
            stream = await server.open_link(connection)
            await client.attach(stream)
            async with asyncio.timeout(60):
                while client.rtt is None:
                    await asyncio.sleep(0.01)
                first = client.heard_at
                while client.heard_at == first:
                    await asyncio.sleep(0.01)
                stream.close()
                await client.wait_detached()
            assert client.rtt is None
            assert client.heard_at is not None
    finally:
        await client.close()


async def test_hours_of_output_cost_the_codespace_little_memory(
    connection: LocalConnection, server: RemoteServer
) -> None:
    """300 MB are printed while the client is away; the process that keeps them has a fraction of that in memory."""
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    child = psutil.Process((await client.server_info())["child_pid"])
    await recorder.run("import sys")
    before = child.memory_info().rss
    code = "for i in range(3000): sys.stdout.write(f'{i} ' + 'x' * 100_000 + '\\n'); sys.stdout.flush()"
    request = recorder.request(code)
    await recorder.until(lambda: len(recorder.text(request)) > 1000)
    client._carrier._stream.close()  # type: ignore[union-attr]
    await client.wait_detached()
    async with asyncio.timeout(90):
        while spooled(child) < 60_000_000 or spooled(child) != await later(child):
            pass
    assert child.memory_info().rss - before < 200_000_000
    await client.attach(await server.open_link(connection))
    await recorder.until(lambda: recorder.is_idle(request), 90)
    numbers = [int(line.split()[0]) for line in recorder.text(request).splitlines()]
    assert numbers == list(range(3000))
    assert len(recorder.text(request)) > 300_000_000
    assert child.memory_info().rss - before < 200_000_000
    assert recorder.of_request(request, Channel.SHELL)
    assert spooled(child) == 0
    await recorder.kernel.shutdown()
    await client.close()


async def later(process: psutil.Process) -> int:
    await asyncio.sleep(0.3)
    return spooled(process)


def spooled(process: psutil.Process) -> int:
    """Bytes of a process's files without a name."""
    total = 0
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if "(deleted)" in str(link.readlink()):
                total += link.stat().st_size
        except OSError:
            continue
    return total
