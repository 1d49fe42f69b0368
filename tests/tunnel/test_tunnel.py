"""What goes wrong on the way into a tunnel."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging

import httpx
import pytest

from codespace_kernels.errors import HostKeyError, TunnelError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.progress import silent
from codespace_kernels.tunnel.errors import TunnelRefusedError
from codespace_kernels.tunnel.management import API_VERSION
from codespace_kernels.tunnel.properties import TunnelProperties
from codespace_kernels.tunnel.tunnel import open_tunnel
from tests.tunnel.conftest import Answer, HttpService


async def tunnel_object(properties):
    headers = {"Authorization": f"Tunnel {properties.manage_ports_access_token}"}
    url = f"{properties.service_uri}tunnels/{properties.tunnel_id}?includePorts=true&api-version={API_VERSION}"
    async with httpx.AsyncClient(headers=headers) as client:
        return (await client.get(url)).json()


def with_endpoint(tunnel, **changes):
    return {**tunnel, "endpoints": [{**tunnel["endpoints"][0], **changes}]}


async def test_published_key_is_verified(codespace):
    tunnel = await open_tunnel(codespace.properties, silent)
    assert tunnel.verified
    await tunnel.close()


async def test_other_key_than_the_published_is_refused_after_a_second_look(codespace):
    tunnel = with_endpoint(await tunnel_object(codespace.properties), hostPublicKeys=["AAAAB3NzaC1yc2E="])
    async with HttpService(lambda method, target: Answer(200, tunnel)) as service:
        with pytest.raises(HostKeyError, match="another key than the tunnel service publishes"):
            await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)
        assert len(service.requests) == 2


async def test_key_that_changed_between_reading_and_connecting_is_accepted(codespace):
    tunnel = await tunnel_object(codespace.properties)
    answers = [with_endpoint(tunnel, hostPublicKeys=["AAAA"]), tunnel]
    async with HttpService(lambda method, target: Answer(200, answers.pop(0))) as service:
        opened = await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)
        assert opened.verified
        await opened.close()


async def test_no_published_key_is_accepted_with_a_warning(codespace, caplog):
    tunnel = with_endpoint(await tunnel_object(codespace.properties), hostPublicKeys=None)
    async with HttpService(lambda method, target: Answer(200, tunnel)) as service:
        with caplog.at_level(logging.WARNING):
            opened = await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)
        assert not opened.verified
        assert "cannot be verified" in caplog.text
        await opened.close()


async def test_wrong_management_token(codespace):
    with pytest.raises(TunnelRefusedError, match=r"HTTP 401.*connect again to have a new one fetched") as caught:
        await open_tunnel(dataclasses.replace(codespace.properties, manage_ports_access_token="wrong"), silent)
    assert caught.value.token_expired


async def test_wrong_connect_token(codespace):
    with pytest.raises(TunnelRefusedError, match=r"connection to the relay.*HTTP 401") as caught:
        await open_tunnel(dataclasses.replace(codespace.properties, connect_access_token="wrong"), silent)
    assert caught.value.token_expired


@pytest.mark.parametrize(("status", "may_retry"), [(403, False), (404, False), (429, True), (503, True)])
async def test_relay_that_refuses(codespace, status, may_retry):
    async with HttpService(lambda method, target: Answer(status, {}, {"Retry-After": "7"})) as relay:
        tunnel = with_endpoint(
            await tunnel_object(codespace.properties), clientRelayUri=relay.url.replace("http", "ws", 1)
        )
        async with HttpService(lambda method, target: Answer(200, tunnel)) as service:
            with pytest.raises(TunnelRefusedError, match=f"HTTP {status}") as caught:
                await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)
        _, _, headers, _ = relay.requests[0]
    assert (caught.value.may_retry, caught.value.retry_after) == (may_retry, 7.0)
    assert headers["sec-websocket-protocol"] == "tunnel-relay-client"
    assert "sec-websocket-extensions" not in headers
    assert headers["authorization"] == f"Tunnel {codespace.properties.connect_access_token}"


@pytest.mark.parametrize("uri", ["ws://127.0.0.1:1/", "ws://127.0.0.1:99999/", "wss://127.0.0.1:1/x"])
async def test_relay_that_is_not_there(codespace, uri):
    tunnel = with_endpoint(await tunnel_object(codespace.properties), clientRelayUri=uri)
    async with HttpService(lambda method, target: Answer(200, tunnel)) as service:
        with pytest.raises(TunnelError, match="relay cannot be reached"):
            await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)


async def test_relay_that_hangs_up(codespace):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    relay = await asyncio.start_server(serve, "127.0.0.1", 0)
    uri = f"ws://127.0.0.1:{relay.sockets[0].getsockname()[1]}/"
    tunnel = with_endpoint(await tunnel_object(codespace.properties), clientRelayUri=uri)
    async with HttpService(lambda method, target: Answer(200, tunnel)) as service:
        with pytest.raises(TunnelError, match="did not open the websocket"):
            await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)
    relay.close()


@pytest.mark.parametrize("endpoints", [None, []])
async def test_tunnel_without_a_host(codespace, endpoints):
    async with HttpService(lambda method, target: Answer(200, {"endpoints": endpoints})) as service:
        with pytest.raises(TunnelError, match="Nothing is connected"):
            await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)


async def test_nobody_at_the_service(codespace):
    with pytest.raises(TunnelError, match=r"127\.0\.0\.1 cannot be reached"):
        await open_tunnel(dataclasses.replace(codespace.properties, service_uri="http://127.0.0.1:1/"), silent)


async def test_secrets_are_in_no_text(codespace, caplog):
    secrets = (codespace.properties.connect_access_token, codespace.properties.manage_ports_access_token)
    with caplog.at_level(logging.DEBUG):
        tunnel = await open_tunnel(codespace.properties, silent)
        await tunnel.services.notify_activity(["connected"])
        await tunnel.close()
        with pytest.raises(WorkspaceConnectionError) as caught:
            await open_tunnel(dataclasses.replace(codespace.properties, connect_access_token="also-secret"), silent)
    ours = [
        r.getMessage()
        for r in caplog.records
        if r.name.startswith(("codespace_kernels.tunnel", "codespace_kernels.ssh"))
    ]
    text = "\n".join([*ours, repr(codespace.properties), str(caught.value)])
    assert not [secret for secret in (*secrets, "also-secret") if secret in text]


def test_properties_need_all_fields_but_the_domain():
    complete = {
        "connectAccessToken": "a", "managePortsAccessToken": "b", "serviceUri": "http://x/", "tunnelId": "t",
        "clusterId": "c", "domain": "",
    }  # fmt: skip
    assert TunnelProperties.from_json(complete).tunnel_id == "t"
    for name in ("connectAccessToken", "clusterId"):
        for value in (None, "", 3):
            with pytest.raises(TunnelError, match=f"{name} missing"):
                TunnelProperties.from_json({**complete, name: value})


async def test_port_is_added_as_gh_does(codespace):
    tunnel = await tunnel_object(codespace.properties)
    answers = {"GET": Answer(200, tunnel), "PUT": Answer(409, {"title": "conflict"})}
    async with HttpService(lambda method, target: answers[method]) as service:
        opened = await open_tunnel(dataclasses.replace(codespace.properties, service_uri=service.url), silent)
        with pytest.raises(WaitTimeoutError, match="to offer port 1"):
            # The host knows nothing of it: only the stand-in service was asked.
            await opened.open_port(1, timeout=2)
        await opened.close()
        method, target, headers, body = service.requests[-1]
    assert (method, headers["if-none-match"]) == ("PUT", "*")
    assert target == f"/tunnels/{codespace.properties.tunnel_id}/ports/1?api-version={API_VERSION}"
    assert json.loads(body)["labels"] == ["UserForwardedPort"]
