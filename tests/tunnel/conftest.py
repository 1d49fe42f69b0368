"""A running codespace of the emulated account, and what leads to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Self

import httpx
import pytest

from codespace_kernels.progress import silent
from codespace_kernels.ssh.keepalive import KeepaliveOptions
from codespace_kernels.tunnel.codespace import CodespaceConnection, connect_codespace
from codespace_kernels.tunnel.properties import TunnelProperties

WAIT = 60
"""Seconds that a single step may take on a busy machine."""


@pytest.fixture(scope="session")
def emulator_options() -> dict[str, Any]:
    # The interpreter of this run serves in the codespace: nothing is run in it but the shell.
    return {"transition_seconds": 0.02, "own_environment": False}


class Running(NamedTuple):
    name: str
    properties: TunnelProperties


async def running(emulator) -> Running:
    """Start the account's codespace; give its name and fresh tunnel properties."""
    headers = {"Authorization": f"token {emulator.token}"}
    async with httpx.AsyncClient(base_url=emulator.api_url, headers=headers) as api:
        name = (await api.get("/user/codespaces")).json()["codespaces"][0]["name"]
        codespace = (await api.get(f"/user/codespaces/{name}")).json()
        if codespace["state"] != "Available":
            await api.post(f"/user/codespaces/{name}/start")
        give_up = time.monotonic() + WAIT
        while time.monotonic() < give_up:
            codespace = (await api.get(f"/user/codespaces/{name}?internal=true&refresh=true")).json()
            if codespace["state"] == "Available" and codespace.get("connection"):
                return Running(name, TunnelProperties.from_json(codespace["connection"]["tunnelProperties"]))
            await asyncio.sleep(0.02)
    pytest.fail(f"the codespace is {codespace['state']}")


@pytest.fixture
async def codespace(shared_emulator) -> Running:
    return await running(shared_emulator)


NO_KEEPALIVE = KeepaliveOptions(0)
Connect = Callable[..., Awaitable[CodespaceConnection]]


@pytest.fixture
async def connect(shared_emulator) -> AsyncIterator[Connect]:
    made = []

    async def connect_now(target: Running | None = None, keepalive: KeepaliveOptions = NO_KEEPALIVE):
        target = target or await running(shared_emulator)
        connection = await connect_codespace(target.properties, name=target.name, progress=silent, keepalive=keepalive)
        made.append(connection)
        return connection

    yield connect_now
    for connection in made:
        await connection.close()


class Answer(NamedTuple):
    status: int
    body: Any = None
    headers: dict[str, str] = {}


class HttpService:
    """An HTTP server that answers what it is told, and notes what it was asked."""

    def __init__(self, answer: Callable[[str, str], Answer]) -> None:
        self._answer = answer
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {key.lower(): value.strip() for key, value in (line.split(":", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((method, target, headers, body))
        answer = self._answer(method, target)
        data = b"" if answer.body is None else json.dumps(answer.body).encode()
        extra = "".join(f"{key}: {value}\r\n" for key, value in answer.headers.items())
        writer.write(
            f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(data)}\r\n{extra}Connection: close\r\n\r\n".encode()
        )
        writer.write(data)
        await writer.drain()
        writer.close()
