"""Whole ends that are fed: the broker's end of the link, the codespace's, the script that starts it, gRPC, a bridge."""

from __future__ import annotations

import array
import asyncio
import json
import random
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpclib.const
import grpclib.server

from codespace_kernels import codespace_rpc as rpc
from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.bridge.bridge import KernelBridge
from codespace_kernels.bridge.sockets import LocalSockets
from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.link import commands
from codespace_kernels.link.client import LinkClient
from codespace_kernels.link.session import MessageReceived, Session
from codespace_kernels.messages import Channel
from codespace_kernels.remote.clients import Client
from codespace_kernels.remote.kernels import CommandError
from codespace_kernels.remote.reactor import Reactor
from codespace_kernels.remote.server_commands import ServerCommands
from codespace_kernels.remote.spool import Spool
from codespace_kernels.remote.streams import LinkStream
from codespace_kernels.remote.zmtp_socket import ZmtpSocket
from codespace_kernels.remote_kernel import KernelState
from codespace_kernels.tunnel.services import CodespaceServices
from tests.zmtp.hello import GREETING, ready

from .material import document, mutated, pieces
from .targets import ID, a_message, traffic, zmtp_stream


class HostileServer:
    """The other end of a `LinkClient`: speaks the link well, and says anything."""

    def __init__(self, dice: random.Random, session_id: str) -> None:
        self._dice = dice
        self._session = Session(session_id)
        self._session.attach()
        self._out = bytearray()
        self._ready = asyncio.Event()
        self._closed = False
        self._broken = dice.random() < 0.2

    async def write(self, data: bytes) -> None:
        for event in self._session.receive_data(data, time.monotonic()):
            if isinstance(event, MessageReceived) and event.kernel == commands.KERNEL:
                self._answer(json.loads(event.parts[0]))
        self._flush()

    def _answer(self, request: dict[str, Any]) -> None:
        dice = self._dice
        good = {"kernel_id": request.get("kernel_id"), "key": "k", "signature_scheme": "hmac-sha256", "kernels": []}
        good["kernelspecs"] = {"p": {"display_name": "P", "language": "python", "resources": ["logo.png"]}}
        for _ in range(dice.randrange(3)):
            event = {"event": dice.choice(("restarted", "died", "x")), "kernel_id": request.get("kernel_id"), **good}
            self._session.send(0, 0, [document(dice, event)])
            message = a_message(dice, dice.choice(("status", "stream")))
            self._session.send(1, dice.randrange(6), [b"id", b"<IDS|MSG>", b"", *message[1:5]])
            self._session.send(1, dice.randrange(6), [dice.randbytes(3) for _ in range(dice.randrange(8))])
        answer = {"id": request.get("id"), dice.choice(("ok",) * 7 + ("error",)): good}
        said = document(dice, answer) if dice.random() < 0.3 else json.dumps(answer).encode()
        self._session.send(0, 0, [said, *[b"logo"] * dice.randrange(4)])
        # Whatever became of that one, the client is not to wait for long.
        last = {"id": request.get("id"), "error": {"type": "KernelError", "message": "no"}}
        self._session.send(0, 0, commands.encode(last))

    def _flush(self) -> None:
        data = self._session.data_to_send(time.monotonic() + 1, 1 << 20)
        self._out += mutated(self._dice, data) if self._broken else data
        self._ready.set()

    async def read(self, max_bytes: int = 262144) -> bytes:
        while not self._out and not self._closed:
            self._ready.clear()
            await self._ready.wait()
        data = bytes(self._out[:max_bytes])
        del self._out[:max_bytes]
        return data

    def close(self) -> None:
        self._closed = True
        self._ready.set()


class Listener:
    def message_received(self, channel: Channel, message: Any, done: Any = None) -> None: ...

    def state_changed(self, state: KernelState, reason: str) -> None: ...

    def output_may_be_missing(self, reason: str) -> None: ...


async def link_client(dice: random.Random) -> bool:
    """The broker's end: commands end with an answer or one of our errors, whatever the workspace says."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    client = LinkClient(command_timeout=0.3)
    good = True
    try:
        await client.attach(HostileServer(dice, client._session.session_id), timeout=0.3)
        kernel = await client.start_kernel("python3")
        kernel.listen(Listener())
        await client.kernelspecs()
        await client.kernels()
        await kernel.restart()
    except CodespaceKernelsError:
        good = False
    await client.close()
    assert not faults, faults
    return good


class NoKernels:
    """In place of `Kernels`: nothing that is asked for exists."""

    def __contains__(self, kernel_id: object) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any) -> Any:
            raise CommandError("KernelNotFoundError", "no")

        return refuse


def any_request(dice: random.Random) -> bytes:
    do = dice.choice(("start", "attach", "detach", "leave", "interrupt", "restart", "shutdown", "kernels", "x"))
    request = {"id": dice.randrange(3), "do": do, "kernel_id": "k", "number": 1, "name": "python3", "env": {}}
    return document(dice, request)


async def codespace_end(dice: random.Random) -> bool:
    """The codespace's end: what a client sends never ends the process that carries all kernels, or the server."""
    with tempfile.TemporaryDirectory() as folder:
        written: list[Any] = []
        server = ServerCommands(NoKernels(), lambda *record: written.append(record), dict, lambda: None)  # type: ignore[arg-type]
        spool = Spool(folder)
        client = Client(Reactor(), ID, server.received, spool)
        info = {"transport": "tcp", "ip": "127.0.0.1", "key": "", "signature_scheme": "hmac-sha256"}
        info |= {f"{name}_port": 1 for name in ("shell", "iopub", "stdin", "control")}
        client.answer({"open": {"number": 1, "kernel_id": "k", "info": info}, "answer": {"id": 1, "ok": {}}}, [])
        client._kernels[1].channels._state = dice.randrange(4)  # type: ignore[union-attr]
        client.session.attach()
        far = Session(ID)
        far.attach()
        client.receive(far.data_to_send(0.0))
        far.receive_data(client.session.data_to_send(0.0), 0.0)
        for _ in range(dice.randrange(1, 6)):
            far.send(0, 0, [any_request(dice)])
            parts = [dice.randbytes(3) for _ in range(dice.randrange(4))]
            far.send(dice.randrange(3), dice.randrange(6), parts)
        data = far.data_to_send(1.0, 1 << 20)
        client.receive(mutated(dice, data) + traffic(dice) if dice.random() < 0.3 else data)
        client.tick(time.monotonic() + 10)
        await asyncio.sleep(0)
        client.close()
        spool.close()
        failed = [task for task in server._tasks if task.done() and task.exception()]
        for task in list(server._tasks):
            task.cancel()
        await asyncio.gather(*server._tasks, return_exceptions=True)
        assert not failed
    return bool(written)


def stream_of_a_splice(dice: random.Random) -> bool:
    """What connects to the link's socket passes descriptors, or does not."""
    lost: list[Any] = []
    reactor = Reactor()
    near, far = socket.socketpair()
    pipes = [socket.socketpair() for _ in range(2)]
    try:
        stream = LinkStream(reactor, near, lambda *_: None, lost.append)
        count = dice.randrange(4)
        passed = [end.fileno() for pair in pipes for end in pair][:count]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []
        far.sendmsg([dice.randbytes(dice.choice((1, 5)))], rights)
        reactor.turn(time.monotonic() + 0.01)
        if dice.random() < 0.5:
            far.close()
        reactor.turn(time.monotonic())
        assert stream.writable == (count >= 2 and not stream.closed)
        assert bool(lost) == stream.closed
        stream.close()
    finally:
        for end in (near, far, *pipes[0], *pipes[1]):
            end.close()
    return not lost


class ShellStream:
    """What a login shell and our script write."""

    def __init__(self, dice: random.Random) -> None:
        reports: list[Any] = [{"stage": "server", "message": "Starting"}, {"result": "no_bundle"}]
        reports += [{"result": "link", "versions": {"python": "x"}, "offers": [{"python": "p"}], "pid": 1}]
        reports += [
            {"result": "failed", "message": "no", "log": "x"},
            {"result": dice.choice(("no_jupyter", "missing"))},
        ]
        lines = [b"codespace-kernels: " + document(dice, dice.choice(reports)) for _ in range(dice.randrange(5))]
        lines += [dice.randbytes(20) for _ in range(dice.randrange(3))]
        dice.shuffle(lines)
        self._data = b"\n".join(lines) + b"\n"
        self._endless = dice.random() < 0.05

    async def read(self, max_bytes: int = 262144) -> bytes:
        data, self._data = self._data, b"x" * 262144 if self._endless else b""
        return data

    async def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Shell:
    """A `Connection` of which only commands and uploads are used."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    async def open_command(self, command: str, *, timeout: float = 30.0) -> ShellStream:
        return ShellStream(self._dice)

    async def upload(self, data: bytes, path: str) -> None: ...


async def bootstrap(dice: random.Random) -> bool:
    """What the script says makes a server or one of our errors."""
    try:
        server = await ensure_server(Shell(dice), timeout=20)  # type: ignore[arg-type]
    except CodespaceKernelsError:
        return False
    assert isinstance(server.python, str)
    assert all(isinstance(offer["python"], str) for offer in server.offers)
    server.close()
    return True


class RawCodec(grpclib.encoding.base.CodecBase):  # type: ignore[misc]
    """Sends bytes as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class HostileAgent:
    """The services of a codespace: one answer to whatever is asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        async def answer(stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(self._answer)

        methods = (rpc.START_SSH_SERVER, rpc.GET_RUNNING_SERVER, rpc.NOTIFY_ACTIVITY, rpc.REBUILD_CONTAINER)
        handler = grpclib.const.Handler(answer, grpclib.const.Cardinality.UNARY_UNARY, bytes, bytes)
        return {method.path: handler for method in methods}


class SocketStream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int = 262144) -> bytes:
        return await self._reader.read(max_bytes)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


async def grpc_replies(dice: random.Random) -> bool:
    """Replies of the codespace's agent: any bytes as a message, or no HTTP/2 at all."""
    near, far = socket.socketpair()
    reply = rpc.StartSshResponse(Result=True, ServerPort="2222", User="codespace", Message="x").SerializeToString()
    listening: Any = None
    reader, writer = await asyncio.open_connection(sock=near)
    if dice.random() < 0.3:
        far.sendall(
            dice.choice(
                (b"HTTP/1.1 400 Bad Request\r\n\r\n", dice.randbytes(50), b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 2)
            )
        )
        far.shutdown(socket.SHUT_WR)
    else:
        agent = grpclib.server.Server([HostileAgent(mutated(dice, reply))], codec=RawCodec())
        listening, _ = await asyncio.get_running_loop().connect_accepted_socket(agent._protocol_factory, far)

    async def open_stream() -> Any:
        return SocketStream(reader, writer)

    services = CodespaceServices(open_stream)
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: services.start_ssh_server("ssh-ed25519 AAAA"),
        services.get_running_server,
        lambda: services.notify_activity(["keepAlive"]),
        services.rebuild,
    ]
    try:
        await dice.choice(calls)()
        return True
    except CodespaceKernelsError:
        return False
    finally:
        services.close()
        writer.close()
        if listening is not None:
            listening.close()
        far.close()
        await asyncio.sleep(0)


async def kernel_bridge(dice: random.Random) -> bool:
    """What a kernel sends goes to clients or is dropped, and never raises."""
    bridge = await KernelBridge.bind(key=b"key")
    try:
        for _ in range(60):
            kind = dice.choice(("status", "stream", "execute_reply", "kernel_info_reply", "input_request", "comm_msg"))
            bridge.message_received(dice.choice(list(Channel)), a_message(dice, kind))
            if dice.random() < 0.03:
                bridge.state_changed(dice.choice(list(KernelState)), "x")
        return sum(bridge.stats.to_clients.values()) > 0
    finally:
        await bridge.close()


async def kernel_ports(dice: random.Random) -> bool:
    """Whatever connects to a kernel's ports, an honest client is served."""
    heard: list[list[bytes]] = []
    sockets = LocalSockets("127.0.0.1", None)
    sockets.start(lambda _channel, frames: heard.append(frames) or False, lambda _topic: None)  # type: ignore[func-returns-value]
    try:
        others = []
        for port in dice.choices(sockets.ports, k=4):
            others.append(await asyncio.open_connection("127.0.0.1", port))
            for piece in pieces(dice, mutated(dice, zmtp_stream(dice))):
                others[-1][1].write(piece)
        reader, writer = await asyncio.open_connection("127.0.0.1", sockets.ports.shell)
        writer.write(GREETING + ready(identity=b"honest") + b"\x00\x05hello")
        async with asyncio.timeout(30):
            while [b"honest", b"hello"] not in heard:
                await asyncio.sleep(0)
            sockets.send(Channel.SHELL, [b"honest", b"answer"])
            await reader.readuntil(b"\x00\x06answer")
        for _, one in (*others, (reader, writer)):
            one.close()
        return len(heard) > 1
    finally:
        sockets.close()


def kernel_channel(dice: random.Random) -> bool:
    """Whatever a kernel's port says, the process that carries all kernels goes on, and calls again."""
    kind, identity = dice.choice(((b"ROUTER", b"me"), (b"XPUB", None)))
    reactor = Reactor()
    taken: list[list[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        info = {"transport": "tcp", "ip": "127.0.0.1", "shell_port": listener.getsockname()[1]}
        channel = ZmtpSocket(reactor, info, "shell", identity, taken.append, lambda: None)
        reactor.turn(time.monotonic() + 1)
        with listener.accept()[0] as came:
            hello = GREETING + ready(kind)
            for piece in pieces(dice, mutated(dice, hello + zmtp_stream(dice)[len(hello) :])):
                came.sendall(piece)
                channel.send([dice.randbytes(5)])
                reactor.turn(time.monotonic())
                if channel.ended:
                    break
        for _ in range(5):
            reactor.turn(time.monotonic())
        while not channel.ended:
            reactor.turn(time.monotonic() + 1)
        heard = len(taken)
        while channel.ended:
            reactor.turn(None)
        with listener.accept()[0] as came:
            came.sendall(GREETING + ready(kind) + b"\x00\x06honest")
            while [b"honest"] not in taken:
                reactor.turn(time.monotonic() + 1)
        channel.close()
    return heard > 0


ENDPOINTS: dict[str, Any] = {
    target.__name__: target
    for target in (
        link_client,
        codespace_end,
        stream_of_a_splice,
        bootstrap,
        grpc_replies,
        kernel_bridge,
        kernel_ports,
        kernel_channel,
    )
}
