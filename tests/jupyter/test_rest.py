"""The REST client against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import uuid
import zlib

import pytest

from codespace_kernels.errors import (
    AuthError,
    KernelNotFoundError,
    KernelStartError,
    RemoteServerError,
    WaitTimeoutError,
)
from codespace_kernels.jupyter import ServerClient, ServerUrl, WebsocketKernel
from tests.jupyter.conftest import TOKEN, running


async def test_kernelspecs_and_their_files(client):
    specs = await client.kernelspecs()
    assert specs[0].name == "python3"
    assert specs[0].language == "python"
    assert "Python" in specs[0].display_name
    assert (await client.resource(specs[0], "logo-64x64")).startswith(b"\x89PNG")
    with pytest.raises(KernelNotFoundError):
        await client.resource(specs[0], "logo-of-nobody")


async def test_life_of_a_kernel(client):
    kernel_id = str(uuid.uuid4())
    first = await client.start_kernel("python3", kernel_id=kernel_id)
    again = await client.start_kernel("python3", kernel_id=kernel_id)
    assert first.id == again.id == kernel_id
    assert [kernel.id for kernel in await client.kernels()].count(kernel_id) == 1
    # Opening the websocket waits for the kernel; an interrupt would end one that still boots.
    await (await WebsocketKernel.connect(client, kernel_id)).close()
    await client.interrupt(kernel_id)
    await client.restart(kernel_id)
    assert (await client.kernel(kernel_id)).name == "python3"
    await client.shutdown(kernel_id)
    await client.shutdown(kernel_id)
    for call in (client.kernel, client.interrupt, client.restart):
        with pytest.raises(KernelNotFoundError):
            await call(kernel_id)


async def test_unknown_kernelspec(client):
    with pytest.raises(KernelNotFoundError, match="no-such-spec"):
        await client.start_kernel("no-such-spec")


async def test_a_kernel_that_cannot_start(tmp_path):
    spec = tmp_path / "kernels" / "broken"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["/no/such/program"], "display_name": "Broken", "language": "python"}')
    with running(tmp_path / "server", JUPYTER_PATH=str(tmp_path)) as server:
        client = ServerClient(server.url)
        try:
            with pytest.raises(KernelStartError, match="broken"):
                await client.start_kernel("broken")
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def client_of(url: ServerUrl, **kwargs):
    client = ServerClient(url, **kwargs)
    try:
        yield client
    finally:
        await client.close()


async def test_wrong_token(server):
    async with client_of(ServerUrl(server.url.base_url, "wrong")) as client:
        for call in (client.kernelspecs(), client.kernels(), client.start_kernel("python3")):
            with pytest.raises(AuthError):
                await call
        with pytest.raises(AuthError):
            await WebsocketKernel.connect(client, str(uuid.uuid4()))


async def test_websocket_of_a_kernel_that_is_not_there(client):
    with pytest.raises(KernelNotFoundError):
        await WebsocketKernel.connect(client, str(uuid.uuid4()))


async def test_a_server_without_a_token_wants_the_xsrf_round(tmp_path):
    with running(tmp_path / "server", token="") as server:
        async with client_of(server.url) as client:
            model = await client.start_kernel("python3")
            kernel = await WebsocketKernel.connect(client, model.id)
            await kernel.interrupt()
            await kernel.close()
            await client.shutdown(model.id)


async def test_a_server_below_a_path(tmp_path):
    with running(tmp_path / "server", base="/some/base/") as server:
        async with client_of(server.url) as client:
            specs = await client.kernelspecs()
            assert (await client.resource(specs[0], "logo-64x64")).startswith(b"\x89PNG")
            model = await client.start_kernel("python3")
            kernel = await WebsocketKernel.connect(client, model.id)
            await kernel.shutdown()
            await kernel.close()
            assert await client.kernels() == []


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with client_of(server.url, settle=0) as client:
        assert await client.status()
        with pytest.raises(KernelNotFoundError):
            await WebsocketKernel.connect(client, str(uuid.uuid4()))


async def test_credentials_are_asked_for_each_time(server):
    class Renewed:
        base_url = server.url.base_url
        asked = 0

        async def headers(self) -> dict[str, str]:
            self.asked += 1
            return {"Authorization": f"token {TOKEN}"}

    url = Renewed()
    async with client_of(url) as client:
        await client.status()
        await client.status()
        assert url.asked == 2


async def test_no_token_in_logs_or_addresses(server, caplog):
    caplog.set_level(logging.DEBUG)
    async with client_of(server.url) as client:
        model = await client.start_kernel("python3")
        kernel = await WebsocketKernel.connect(client, model.id)
        assert TOKEN not in repr(client) + repr(kernel) + client.channels_url(model.id, "s")
        await kernel.shutdown()
        await kernel.close()
    assert TOKEN not in caplog.text
    assert TOKEN not in server.log.read_text()


class Answers:
    """An HTTP server that says what it is told, one answer after the other, and repeats the last."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []

    async def __aenter__(self) -> ServerUrl:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return ServerUrl(f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/")

    async def __aexit__(self, *exc_info) -> None:
        self.server.close()

    async def serve(self, reader, writer) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        await writer.drain()
        writer.close()


def answer(status: str, body: bytes = b"", kind: str = "text/html") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
        status.encode(), kind.encode(), len(body), body)  # fmt: skip


OK = answer("200 OK", b"[]", "application/json")
PROXY_404 = answer("404 Not Found", b"<html>no tunnel</html>")


async def test_a_server_that_comes_up_is_waited_for():
    answers = Answers(PROXY_404, answer("502 Bad Gateway"), answer("503 Unavailable"), b"", OK)
    async with answers as url, client_of(url) as client:
        assert await client.kernels() == []
        assert len(answers.requests) == 5


async def test_the_wait_for_a_server_is_bounded_and_ends_with_its_first_answer():
    async with Answers(PROXY_404) as url, client_of(url, settle=0.5) as client:
        with pytest.raises(RemoteServerError, match="no Jupyter server"):
            await client.kernels()
    answers = Answers(OK, answer("502 Bad Gateway"))
    async with answers as url, client_of(url) as client:
        await client.kernels()
        with pytest.raises(RemoteServerError, match="502"):
            await client.kernels()
        assert len(answers.requests) == 2


async def test_a_request_that_starts_something_is_not_sent_twice():
    answers = Answers(b"")
    async with answers as url, client_of(url) as client:
        with pytest.raises(RemoteServerError):
            await client.start_kernel("python3")
        assert len(answers.requests) == 1


async def test_a_lost_answer_to_a_start_is_looked_up():
    kernel_id = str(uuid.uuid4())
    model = answer("200 OK", f'{{"id": "{kernel_id}", "name": "python3"}}'.encode(), "application/json")
    answers = Answers(b"", model)
    async with answers as url, client_of(url) as client:
        assert (await client.start_kernel("python3", kernel_id=kernel_id)).id == kernel_id
        assert [request.split()[0] for request in answers.requests] == [b"POST", b"GET"]


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + b" " * 5_000_000
BOMB = zlib.compress(bytes(50_000_000))
COMPRESSED = answer("200 OK", BOMB).replace(b"text/html", b"application/json\r\nContent-Encoding: deflate")


@pytest.mark.parametrize(("said", "text"), [(ENDLESS, "more than 4 MiB"), (COMPRESSED, "compresses its answers")])
async def test_an_answer_that_would_fill_the_memory(said, text):
    async with Answers(said) as url, client_of(url) as client:
        with pytest.raises(RemoteServerError, match=text):
            await client.status()


@pytest.mark.parametrize("spec", ["null", "[1]", '{"spec": 1}', '{"resources": [1]}'])
async def test_kernelspecs_that_are_none(spec):
    body = b'{"kernelspecs": {"p": %s}}' % spec.encode()
    async with Answers(answer("200 OK", body, "application/json")) as url, client_of(url) as client:
        with pytest.raises(RemoteServerError, match="not answer like a Jupyter server"):
            await client.kernelspecs()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"text"', b"[" * 100_000])
async def test_something_else_than_a_jupyter_server(body):
    async with Answers(answer("200 OK", body, "application/json")) as url, client_of(url) as client:
        with pytest.raises(RemoteServerError, match="not answer like a Jupyter server"):
            await client.status()


async def test_a_redirect_to_a_login_page_is_a_refusal():
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with Answers(redirect) as url, client_of(url) as client:
        with pytest.raises(AuthError):
            await client.kernels()


async def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = ServerUrl(f"http://127.0.0.1:{unused.getsockname()[1]}/")
        async with client_of(url, settle=0.3) as client:
            with pytest.raises(RemoteServerError, match="cannot be reached"):
                await client.status()
            with pytest.raises(RemoteServerError, match="cannot be reached"):
                await WebsocketKernel.connect(client, str(uuid.uuid4()))


async def test_a_server_that_never_answers():
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    try:
        url = ServerUrl(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/")
        async with client_of(url, timeout=0.3, settle=0) as client:
            with pytest.raises(WaitTimeoutError, match=r"0\.3 s"):
                await client.status()
    finally:
        silent.close()
