"""What the link says first, sent along with the command that finds or starts the server."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from codespace_kernels.bootstrap import ensure_server, make_bundle
from codespace_kernels.broker.hosts import LinkHost
from codespace_kernels.errors import RemoteServerError
from codespace_kernels.link.client import LinkClient
from codespace_kernels.progress import silent

from .conftest import environment, wait_until_empty
from .local_connection import LocalConnection, PipeStream


class Noted(PipeStream):
    """Notes what is written, in order; the first of it may be changed on its way."""

    def __init__(self, stream: PipeStream, *, spoils: bool) -> None:
        super().__init__(stream.process)
        self.written: list[bytes] = []
        self._spoils = spoils

    async def write(self, data: bytes) -> None:
        self.written.append(data)
        spoils, self._spoils = self._spoils, False
        await super().write(bytes(len(data)) if spoils else data)


class Workspace(LocalConnection):
    """A workspace whose streams are noted, in which something may spoil what is said before the server reads."""

    def __init__(self, home: Path, *, spoils: bool = False, **variables: str) -> None:
        super().__init__(home, {**environment(home), **variables})
        self.streams: list[Noted] = []
        self._spoils = spoils

    async def open_command(self, command: str, *, timeout: float = 30.0) -> PipeStream:
        stream = Noted(await super().open_command(command, timeout=timeout), spoils=self._spoils)
        self._spoils = False
        self.streams.append(stream)
        return stream


async def attach(workspace: Workspace) -> dict[str, Any]:
    """Attach a link as the broker does; give what the server tells of itself."""
    link = LinkClient()
    greeting = link.greeting()
    server = await ensure_server(workspace, install=False, greeting=greeting)
    assert workspace.streams[0].written[0] == greeting
    await link.attach(await server.open_link(workspace))
    info = await link.server_info()
    await link.close()
    return info


async def test_every_way_is_one_command_and_the_greeting_is_said_once(fresh_home: Path) -> None:
    # Nothing of ours is there: the greeting is thrown away, since the code has to come first.
    workspace = Workspace(fresh_home)
    info = await attach(workspace)
    greeting, bundle, again, *_ = workspace.streams[0].written
    assert (len(workspace.commands), bundle) == (1, make_bundle().data)
    assert again.startswith(greeting)

    # The server runs.
    workspace = Workspace(fresh_home)
    assert (await attach(workspace))["pid"] == info["pid"]
    greeting, *others = workspace.streams[0].written
    assert (len(workspace.commands), greeting in others) == (1, False)

    # The server is gone.
    os.kill(info["pid"], signal.SIGKILL)
    # Its child as well: until that has noticed, the socket is listened to, and the new link would end with it.
    wait_until_empty(fresh_home)
    workspace = Workspace(fresh_home)
    assert (await attach(workspace))["pid"] != info["pid"]
    greeting, *others = workspace.streams[0].written
    assert (len(workspace.commands), greeting in others) == (1, False)


async def test_a_greeting_that_was_spoilt_is_said_again(fresh_home: Path) -> None:
    workspace = Workspace(fresh_home, spoils=True)
    (fresh_home / make_bundle().path).parent.mkdir(parents=True)
    (fresh_home / make_bundle().path).write_bytes(make_bundle().data)
    host = await LinkHost.open(workspace, silent)
    assert len(workspace.commands) == 2
    assert "python3" in await host.kernelspecs()
    await host.close()


async def test_a_shell_without_the_usual_tools_has_the_code_uploaded(fresh_home: Path, tmp_path: Path) -> None:
    (tmp_path / "head").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "head").chmod(0o755)
    path = f"{tmp_path}:{environment(fresh_home)['PATH']}"
    workspace = Workspace(fresh_home, PATH=path)
    await attach(workspace)
    assert workspace.uploads == [make_bundle().path]


async def test_no_variable_of_ours_is_left_in_the_server_s_environment(fresh_home: Path) -> None:
    workspace = Workspace(fresh_home)
    info = await attach(workspace)
    names = {entry.partition(b"=")[0] for entry in Path(f"/proc/{info['pid']}/environ").read_bytes().split(b"\0")}
    assert not names & {b"b", b"d", b"f", b"t"}


async def test_what_asks_for_the_code_again_and_again_has_it_once(fresh_home: Path) -> None:
    class Greedy(Workspace):
        async def open_command(self, command: str, *, timeout: float = 30.0) -> PipeStream:
            want = 'codespace-kernels: {"want": "bundle"}'
            return await super().open_command(f"for i in 1 2 3; do echo '{want}'; done; head -c 1 >/dev/null")

    workspace = Greedy(fresh_home)
    with pytest.raises(RemoteServerError, match="ended without a result"):
        await ensure_server(workspace, install=False)
    assert workspace.streams[0].written == [make_bundle().data]
    await workspace.close()
