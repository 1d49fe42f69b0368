"""What the codespace's agent may answer, from a real gRPC server."""

from __future__ import annotations

import asyncio
import socket

import pytest
from grpclib.const import Cardinality, Handler
from grpclib.const import Status as GrpcStatus
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from codespace_kernels import codespace_rpc as rpc
from codespace_kernels.errors import NoJupyterError, NoSshServerError, TunnelError, WorkspaceConnectionError
from codespace_kernels.tunnel.services import CodespaceServices, RunningServer, SshServer


class Agent:
    """Gives each method the answer that a test sets."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.requests: list[tuple[str, object, dict[str, str]]] = []

    def __mapping__(self):
        return {
            m.path: Handler(self._handler(m), Cardinality.UNARY_UNARY, m.request, m.response)
            for m in (rpc.NOTIFY_ACTIVITY, rpc.REBUILD_CONTAINER, rpc.START_SSH_SERVER, rpc.GET_RUNNING_SERVER)
        }

    def _handler(self, method):
        async def handle(stream):
            self.requests.append((method.path, await stream.recv_message(), dict(stream.metadata)))
            answer = self.answers[method.path]
            if isinstance(answer, Exception):
                raise answer
            await stream.send_message(method.response(**answer))

        return handle


class SocketStream:
    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes=262144):
        return await self._reader.read(max_bytes)

    async def write(self, data):
        self._writer.write(data)
        await self._writer.drain()

    def close(self):
        self._writer.close()


@pytest.fixture
async def agent():
    agent = Agent()
    server = Server([agent])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.start(sock=listener)

        async def open_stream():
            return SocketStream(*await asyncio.open_connection("127.0.0.1", listener.getsockname()[1]))

        agent.services = CodespaceServices(open_stream)
        yield agent
        agent.services.close()
        server.close()
        await server.wait_closed()


async def test_notification(agent):
    agent.answers[rpc.NOTIFY_ACTIVITY.path] = {"Result": True}
    await agent.services.notify_activity(["connected"])
    path, request, metadata = agent.requests[0]
    assert path == rpc.NOTIFY_ACTIVITY.path
    assert list(request.ClientActivities) == ["connected"]
    assert metadata["authorization"] == "Bearer token"


async def test_notification_that_is_not_taken(agent):
    agent.answers[rpc.NOTIFY_ACTIVITY.path] = {"Result": False, "Message": "too late"}
    with pytest.raises(TunnelError, match="too late"):
        await agent.services.notify_activity(["keepAlive"])


async def test_ssh_server(agent):
    agent.answers[rpc.START_SSH_SERVER.path] = {"Result": True, "ServerPort": "2222", "User": "vscode"}
    assert await agent.services.start_ssh_server("ssh-ed25519 AAAA me") == SshServer(2222, "vscode")
    assert agent.requests[0][1].UserPublicKey == "ssh-ed25519 AAAA me"


async def test_no_ssh_server(agent):
    agent.answers[rpc.START_SSH_SERVER.path] = {"Result": False, "Message": "sshd not found"}
    with pytest.raises(NoSshServerError, match=r"sshd not found.*ghcr\.io/devcontainers/features/sshd:1"):
        await agent.services.start_ssh_server("key")


@pytest.mark.parametrize("user", ["", "-oProxyCommand=x", "a b", "root\n", "a/b"])
async def test_user_that_cannot_be_one(agent, user):
    agent.answers[rpc.START_SSH_SERVER.path] = {"Result": True, "ServerPort": "2222", "User": user}
    with pytest.raises(TunnelError, match="user that cannot be one"):
        await agent.services.start_ssh_server("key")


@pytest.mark.parametrize("port", ["", "0", "65536", "-1", "22 22", "²"])
async def test_port_that_cannot_be_one(agent, port):
    agent.answers[rpc.START_SSH_SERVER.path] = {"Result": True, "ServerPort": port, "User": "me"}
    with pytest.raises(TunnelError, match="port that cannot be one"):
        await agent.services.start_ssh_server("key")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_jupyter_server(agent, host):
    url = f"http://{host}:8888/lab?token=abc"
    agent.answers[rpc.GET_RUNNING_SERVER.path] = {"Result": True, "Port": "8888", "ServerUrl": url}
    server = await agent.services.get_running_server()
    assert server == RunningServer(8888, url)
    assert "abc" not in f"{server} {server!r}"


@pytest.mark.parametrize("url", ["", "http://example.com/", "ftp://127.0.0.1/", "http://10.0.0.1:8888/", "http://[::1"])
async def test_jupyter_server_elsewhere(agent, url):
    agent.answers[rpc.GET_RUNNING_SERVER.path] = {"Result": True, "Port": "8888", "ServerUrl": url}
    with pytest.raises(TunnelError, match="not on its own loopback"):
        await agent.services.get_running_server()


async def test_no_jupyter(agent):
    agent.answers[rpc.GET_RUNNING_SERVER.path] = {"Result": False, "Message": "Could not match"}
    with pytest.raises(NoJupyterError, match="Could not match"):
        await agent.services.get_running_server()


async def test_rebuild(agent):
    agent.answers[rpc.REBUILD_CONTAINER.path] = {"RebuildContainer": True}
    await agent.services.rebuild()
    await agent.services.rebuild(full=True)
    requests = [request for _, request, _ in agent.requests]
    assert [(r.HasField("Incremental"), r.Incremental) for r in requests] == [(True, True), (True, False)]


async def test_agent_that_fails(agent):
    agent.answers[rpc.NOTIFY_ACTIVITY.path] = GRPCError(GrpcStatus.UNAVAILABLE, "not yet")
    with pytest.raises(TunnelError, match="agent failed to note the activity: not yet"):
        await agent.services.notify_activity(["connected"])


async def test_peer_that_leaves():
    async def serve(reader, writer):
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    async def open_stream():
        return SocketStream(*await asyncio.open_connection(*server.sockets[0].getsockname()))

    services = CodespaceServices(open_stream)
    with pytest.raises(TunnelError, match="agent failed"):
        await services.notify_activity(["connected"])
    services.close()
    server.close()


async def test_port_that_cannot_be_opened():
    async def open_stream():
        raise WorkspaceConnectionError("gone")

    services = CodespaceServices(open_stream)
    with pytest.raises(WorkspaceConnectionError, match="gone"):
        await services.notify_activity(["connected"])
    services.close()
