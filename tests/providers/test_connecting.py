"""Reaching an emulated codespace: by our own tunnel, by the real gh, and by its own JupyterLab."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import traceback
from pathlib import Path

import httpx
import psutil
import pytest

from codespace_kernels import errors
from codespace_kernels.progress import silent
from codespace_kernels.providers import github as providers_github
from codespace_kernels.tunnel import codespace as tunnel_to_codespace
from tests.processes import name_of

GH = shutil.which("gh", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
needs_gh = pytest.mark.skipif(GH is None, reason="gh is not installed")


@pytest.fixture
async def running(provider, name):
    """The name of a codespace that runs."""
    await provider.ensure_running(name, silent)
    return name


def gh_processes():
    return [child for child in psutil.Process().children(recursive=True) if name_of(child) == "gh"]


async def text_of(connection, command):
    return (await connection.run(command)).stdout.decode().strip()


async def test_by_tunnel(provider, running):
    events = []
    connection = await provider.connect(running, events.append)
    assert connection.description.startswith("dev tunnel + SSH as ")
    assert await text_of(connection, "echo $((6 * 7))") == "42"
    assert [event.stage for event in events][:2] == ["tunnel", "ssh"]
    await connection.close()
    assert connection.closed.done()


async def test_closing_the_provider_closes_its_connections(provider, running):
    first, second = [await provider.connect(running, silent) for _ in range(2)]
    await first.close()
    await provider.close()
    assert second.closed.done()
    with pytest.raises(errors.WorkspaceConnectionError):
        await second.run("true")


async def test_each_connection_has_tokens_of_its_own(provider, emulator, running):
    """A reconnect after the tunnel's tokens have expired."""
    connection = await provider.connect(running, silent)
    emulator.faults.set("token-expired", count=1)
    await connection.close()
    emulator.faults.clear()
    again = await provider.connect(running, silent)
    assert await text_of(again, "echo again") == "again"


async def test_what_github_has_just_said_is_not_asked_again(provider, emulator, name, running, monkeypatch):
    lookups = []
    look = provider._api.get_internal
    monkeypatch.setattr(provider._api, "get_internal", lambda name: lookups.append(name) or look(name))
    provider.prepare(name)
    first = await provider.connect(name, silent)
    assert lookups == []
    # Its tokens are that connection's.
    second = await provider.connect(name, silent)
    assert lookups == [name]
    await provider.ensure_running(name, silent)
    monkeypatch.setattr(providers_github, "FRESH_SECONDS", -1.0)
    third = await provider.connect(name, silent)
    assert lookups == [name] * 3
    for connection in (first, second, third):
        await connection.close()


async def test_what_is_prepared_for_nothing_is_closed_with_the_provider(provider, running):
    await (await provider.connect(running, silent)).close()
    for _ in range(2):
        provider.prepare(running)
    preparation = provider._preparations[running]
    sock = await asyncio.wait_for(asyncio.shield(preparation._socket), 60)
    await provider.close()
    await asyncio.sleep(0)
    assert sock.fileno() == -1


async def test_activity_is_told_through_the_open_connection(provider, emulator, running):
    codespace = emulator.account.codespaces[running]
    connection = await provider.connect(running, silent)
    before = codespace.last_used
    await provider.notify_activity(running)
    assert codespace.last_used > before
    await connection.close()
    before = codespace.last_used
    await provider.notify_activity(running)
    assert codespace.last_used == before


@needs_gh
async def test_by_gh(make_provider, emulator, running):
    provider = make_provider(transport="gh")
    connection = await provider.connect(running, silent)
    assert connection.description.startswith("gh codespace ssh --stdio")
    assert await text_of(connection, "echo $((6 * 7))") == "42"
    blob = os.urandom(300_000)
    await connection.upload(blob, "blob")
    assert (await connection.run("cat blob")).stdout == blob
    await provider.notify_activity(running)
    (gh,) = gh_processes()
    assert emulator.token not in " ".join(gh.cmdline())
    await connection.close()
    assert not gh_processes()


@needs_gh
async def test_a_gh_that_is_killed_ends_the_connection(make_provider, running):
    connection = await make_provider(transport="gh").connect(running, silent)
    for process in gh_processes():
        process.kill()
    async with asyncio.timeout(10):
        await asyncio.shield(connection.closed)
    await connection.close()


@needs_gh
async def test_gh_cannot_connect(make_provider, emulator, running):
    emulator.faults.set("no-sshd")
    with pytest.raises(errors.NoSshServerError, match="sshd"):
        await make_provider(transport="gh").connect(running, silent)
    assert not gh_processes()


@pytest.mark.parametrize("transport", ["gh"])
async def test_gh_is_not_installed(make_provider, env, running, transport):
    provider = make_provider(transport=transport, env={**env, "PATH": "/nonexistent"})
    with pytest.raises(errors.SshError, match="gh is not installed"):
        await provider.connect(running, silent)


@pytest.fixture
def broken_tunnel(monkeypatch):
    """Have our own tunnel client fail, as behind a firewall that breaks websockets."""

    async def fail(*args, **kwargs):
        raise errors.TunnelError("The relay cannot be reached.")

    monkeypatch.setattr(tunnel_to_codespace, "connect_codespace", fail)


@needs_gh
async def test_gh_where_the_tunnel_cannot_be_had(provider, running, broken_tunnel):
    events = []
    connection = await provider.connect(running, events.append)
    assert connection.description.startswith("gh codespace ssh --stdio")
    assert any("trying gh" in event.message for event in events)
    await connection.close()


async def test_no_gh_where_only_the_tunnel_is_wanted(make_provider, running, broken_tunnel):
    with pytest.raises(errors.TunnelError, match="relay cannot be reached"):
        await make_provider(transport="tunnel").connect(running, silent)


async def test_without_gh_the_tunnel_s_error_stands(make_provider, env, running, broken_tunnel):
    provider = make_provider(env={**env, "PATH": "/nonexistent"})
    with pytest.raises(errors.TunnelError, match="relay cannot be reached"):
        await provider.connect(running, silent)


@needs_gh
async def test_where_gh_fails_too_the_tunnel_s_error_stands(make_provider, env, running, broken_tunnel, tmp_path):
    (tmp_path / "gh").write_text("#!/bin/sh\necho nothing works >&2\nexit 1\n")
    (tmp_path / "gh").chmod(0o755)
    provider = make_provider(env={**env, "PATH": f"{tmp_path}:/usr/bin:/bin"})
    with pytest.raises(errors.TunnelError, match="relay cannot be reached"):
        await provider.connect(running, silent)


async def test_no_ssh_server_in_the_image(provider, emulator, running):
    emulator.faults.set("no-sshd")
    with pytest.raises(errors.NoSshServerError, match="sshd"):
        await provider.connect(running, silent)


async def ask_jupyter(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url.base_url}api/kernelspecs", headers=await url.headers())
    answer.raise_for_status()
    return answer.json()["kernelspecs"]


async def test_the_codespace_s_own_jupyterlab(provider, emulator, running):
    emulator.faults.set("no-sshd")
    url = await provider.jupyter_url(running, silent)
    assert url.base_url.startswith("http://127.0.0.1:")
    assert url.base_url.endswith("/")
    assert "token" not in url.base_url
    assert "python3" in await ask_jupyter(url)
    assert await provider.jupyter_url(running, silent) is url

    codespace = emulator.account.codespaces[running]
    before = codespace.last_used
    await provider.notify_activity(running)
    assert codespace.last_used > before

    await provider.close()
    with pytest.raises(httpx.TransportError):
        await ask_jupyter_without_token(url)


async def ask_jupyter_without_token(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"{url.base_url}api")


async def test_its_address_outlives_the_tunnel(provider, emulator, running):
    url = await provider.jupyter_url(running, silent)
    await ask_jupyter(url)
    address = url.base_url
    emulator.faults.set("relay-drop")
    emulator.faults.clear("relay-drop")
    async with asyncio.timeout(60):
        while True:
            try:
                assert await ask_jupyter(url)
                break
            except (httpx.HTTPError, errors.WorkspaceConnectionError):
                await asyncio.sleep(0.05)
    assert url.base_url == address


async def test_no_jupyter_in_the_image(provider, emulator, running):
    emulator.faults.set("no-jupyter")
    with pytest.raises(errors.NoJupyterError):
        await provider.jupyter_url(running, silent)


@pytest.mark.parametrize("transport", ["tunnel", pytest.param("gh", marks=needs_gh)])
async def test_no_secret_in_logs_progress_and_errors(make_provider, emulator, running, caplog, transport):
    caplog.set_level(logging.DEBUG)
    events = []
    provider = make_provider(transport=transport)
    connection = await provider.connect(running, events.append)
    await provider.notify_activity(running)
    url = await provider.jupyter_url(running, events.append)
    secrets = [emulator.token, (await url.headers())["Authorization"].removeprefix("token ")]
    await connection.close()
    emulator.faults.set("token-expired")
    with pytest.raises(errors.WorkspaceConnectionError) as caught:
        await provider.connect(running, events.append)
    shown = "".join(traceback.format_exception(caught.value)) + repr([connection, provider, url, events])
    # Log records of the emulator, which shares this process, are its own affair.
    shown += "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("codespace_kernels.emulator")
    )
    assert not [secret for secret in secrets if secret in shown]
    # Tunnel tokens are JWTs.
    assert "eyJ" not in shown


async def test_a_refused_token_leads_to_a_fresh_one_at_once(make_provider, emulator, running):
    provider = make_provider(transport="tunnel")
    emulator.faults.set("token-expired", count=1)
    connection = await provider.connect(running, silent)
    assert await text_of(connection, "echo in") == "in"
    assert not list(emulator.faults)


async def test_while_the_api_is_down_the_last_way_is_taken(provider, emulator, running):
    with pytest.raises(errors.WorkspaceConnectionError):
        await provider.connect(running, silent, api_down=True)
    connection = await provider.connect(running, silent)
    await connection.close()
    emulator.faults.set("api-down")
    with pytest.raises(errors.GitHubUnavailableError):
        await provider.connect(running, silent)
    again = await provider.connect(running, silent, api_down=True)
    assert await text_of(again, "echo again") == "again"
    emulator.faults.set("token-expired", which="old")
    with pytest.raises(errors.TunnelError):
        await provider.connect(running, silent, api_down=True)


async def test_an_open_connection_does_not_care_for_the_api(provider, emulator, running):
    connection = await provider.connect(running, silent)
    emulator.faults.set("api-down", how="close", tunnels=1)
    assert await text_of(connection, "echo on") == "on"
    await provider.notify_activity(running)
