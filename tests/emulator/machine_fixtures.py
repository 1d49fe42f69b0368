"""Machines and their tunnel service on an event loop in a thread, and a small client of the tunnel protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import paramiko
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from codespace_kernels import codespace_rpc
from codespace_kernels.emulator.faults import FaultBoard
from codespace_kernels.emulator.machine import Machine, MachineSpec
from codespace_kernels.emulator.tunnels import TunnelService

T = TypeVar("T")

API_VERSION = {"api-version": "2023-09-27-preview"}
PATIENCE = 30.0
"""Seconds that a single step may take on a busy machine."""


def eventually(condition: Callable[[], T], what: str) -> T:
    """Wait until a condition holds; gives its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.01)
    return value


class MachineRoom:
    """Machines and their tunnel service, on an event loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults = FaultBoard()
        self.tunnels = TunnelService(self.faults)
        self.activities: list[str] = []
        self.machines: list[Machine] = []
        self._relays = contextlib.ExitStack()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._relays.close()
        for machine in self.machines:
            self.run(machine.shutdown())
        self.run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    async def _listen(self) -> None:
        self._server = HTTPServer(Application(self.tunnels.handlers()))
        sockets = bind_sockets(0, "127.0.0.1")
        self._server.add_sockets(sockets)
        self.tunnels.base_url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()
        await self.loop.shutdown_default_executor()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 40) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def machine(self, name: str = "fluffy-robot", *, boot: bool = True, **options: Any) -> Machine:
        spec = MachineSpec(name, "octocat/hello", "main", self.folder / name, **options)
        machine = Machine(spec, tunnels=self.tunnels, faults=self.faults, on_activity=self.activities.extend)
        self.machines.append(machine)
        if boot:
            self.run(machine.boot())
        return machine

    def call(
        self, machine: Machine, method: str = "GET", path: str = "", token: str | None = None, **options: Any
    ) -> httpx.Response:
        """Call the management API about a machine's tunnel."""
        properties = machine.tunnel_properties()
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            return client.request(
                method,
                f"{properties['serviceUri']}tunnels/{properties['tunnelId']}{path}",
                **{
                    "headers": {"Authorization": f"Tunnel {token or properties['managePortsAccessToken']}"},
                    "params": API_VERSION,
                    **options,
                },
            )

    def relay_address(self, machine: Machine) -> str:
        (endpoint,) = self.call(machine).raise_for_status().json()["endpoints"]
        return endpoint["clientRelayUri"]

    def tunnel(self, machine: Machine, **options: Any) -> TunnelClient:
        return TunnelClient(self.open_relay(machine), **options)

    def open_relay(self, machine: Machine, token: str | None = None, **options: Any) -> ClientConnection:
        address = self.relay_address(machine)
        token = token or machine.tunnel_properties()["connectAccessToken"]
        websocket = connect(
            address,
            **{
                "subprotocols": ["tunnel-relay-client"],
                "additional_headers": {"Authorization": f"Tunnel {token}"},
                "compression": None,
                "max_size": None,
                "proxy": None,
                "close_timeout": 1,
                **options,
            },
        )
        return self._relays.enter_context(websocket)

    def put_port(self, machine: Machine, port: int) -> None:
        self.call(machine, "PUT", f"/ports/{port}", json={"portNumber": port}).raise_for_status()


class _RelaySocket:
    """A relay websocket as paramiko wants its sockets."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._closed = False  # paramiko wants it
        self._rest = b""
        self._timeout: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        if not self._rest:
            try:
                self._rest = self.websocket.recv(timeout=self._timeout)
            except ConnectionClosed:
                return b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def send(self, data: bytes) -> int:
        try:
            self.websocket.send(data)
        except ConnectionClosed as error:
            raise OSError("closed") from error
        return len(data)

    def close(self) -> None:
        self._closed = True
        self.websocket.close()


class TunnelClient(paramiko.Transport):
    """The client's side of the tunnel's SSH session.

    Args:
        websocket: The relay.
        refuse: Ports whose announcement it refuses.
        login: Whether to log in at once.
        cipher: The only cipher it offers; empty: paramiko's list.
    """

    def __init__(
        self,
        websocket: ClientConnection,
        refuse: frozenset[int] = frozenset(),
        login: bool = True,
        cipher: str = "",
    ) -> None:
        super().__init__(_RelaySocket(websocket), default_window_size=8 * 2**20)
        self.websocket = websocket
        self.refused = refuse
        self.announcements: list[tuple[str, int]] = []
        # What the transport's own thread may not send, or would wait for ever to send, while keys are exchanged.
        self._sender = ThreadPoolExecutor(1)
        self.session_keys = 0
        if cipher:
            self.get_security_options().ciphers = (cipher,)
        self.start_client(timeout=PATIENCE)
        if login:
            self.auth_none("tunnel")

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._sender.shutdown(wait=False)

    def _parse_newkeys(self, message: paramiko.Message) -> None:
        super()._parse_newkeys(message)
        self.session_keys += 1

    def _send_user_message(self, message: paramiko.Message) -> None:
        if threading.current_thread() is self:
            self._sender.submit(self._send_user_message, message)
        else:
            super()._send_user_message(message)

    def _parse_global_request(self, message: paramiko.Message) -> None:
        kind, wants_reply, address, port = (
            message.get_text(),
            message.get_boolean(),
            message.get_text(),
            message.get_int(),
        )
        assert wants_reply
        assert address == "127.0.0.1"
        reply = paramiko.Message()
        if port in self.refused:
            reply.add_byte(bytes([82]))
        else:
            reply.add_byte(bytes([81]))
            reply.add_int(port)
        self._sender.submit(self._reply, reply, (kind, port))

    def _reply(self, reply: paramiko.Message, announcement: tuple[str, int]) -> None:
        self._send_user_message(reply)
        # Noted only now: the host refuses a port that is opened before it is accepted.
        self.announcements.append(announcement)

    def announced(self, port: int) -> int:
        return self.announcements.count(("tcpip-forward", port))

    def wait_for(self, port: int) -> None:
        eventually(lambda: self.announced(port), f"announcement of port {port}")

    def refresh(self) -> bool:
        return self.global_request("RefreshPorts", wait=True) is not None

    def open_port(self, port: int) -> paramiko.Channel:
        return self.open_channel("forwarded-tcpip", ("127.0.0.1", port), ("", 0), timeout=PATIENCE)

    @contextlib.contextmanager
    def listener(self, port: int) -> Iterator[int]:
        """Listen on a loopback port that leads to a port of the machine."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=self._accept, args=(server, port), daemon=True).start()
            try:
                yield server.getsockname()[1]
            finally:
                server.shutdown(socket.SHUT_RDWR)

    def _accept(self, server: socket.socket, port: int) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = self.open_port(port)
            threading.Thread(target=_pump, args=(connection, channel), daemon=True).start()
            threading.Thread(target=_pump, args=(channel, connection), daemon=True).start()


def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        source.close()
    with contextlib.suppress(OSError):
        if isinstance(target, socket.socket):
            target.shutdown(socket.SHUT_RDWR)
        target.close()


class EchoServer:
    """A server on a free loopback port; what a connection does is up to `serve`."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        self.port: int = self._server.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


RPC_PORT = codespace_rpc.PORT
