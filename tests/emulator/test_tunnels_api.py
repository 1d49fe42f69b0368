"""The tunnel management API and its tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from codespace_kernels.emulator.machine import Machine

from .machine_fixtures import RPC_PORT, MachineRoom

PUBLIC = {"entries": [{"type": "Anonymous", "subjects": [], "scopes": ["connect"]}]}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineRoom]:
    with MachineRoom(tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture(scope="module")
def machine(room: MachineRoom) -> Machine:
    return room.machine()


@pytest.fixture(scope="module")
def other(room: MachineRoom) -> Machine:
    return room.machine("other-robot")


@pytest.fixture(autouse=True)
def no_faults(room: MachineRoom) -> Iterator[None]:
    yield
    room.faults.clear()


def put(room: MachineRoom, machine: Machine, port: int, *, create: bool = True, **fields: Any) -> Any:
    headers = {"Authorization": f"Tunnel {machine.tunnel_properties()['managePortsAccessToken']}"}
    if create:
        headers["If-None-Match"] = "*"
    return room.call(machine, "PUT", f"/ports/{port}", headers=headers, json={"portNumber": port, **fields})


def test_properties_are_complete(machine: Machine) -> None:
    properties = machine.tunnel_properties()
    assert all(isinstance(value, str) and value for value in properties.values())
    assert set(properties) == {
        "connectAccessToken",
        "managePortsAccessToken",
        "serviceUri",
        "tunnelId",
        "clusterId",
        "domain",
    }
    # Else a client would put the cluster before the host.
    assert properties["serviceUri"].removeprefix("http://").startswith(properties["clusterId"])


def test_tokens_are_new_each_time_and_readable(machine: Machine) -> None:
    first, second = (machine.tunnel_properties()["connectAccessToken"] for _ in range(2))
    assert first != second
    payload = first.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["scp"] == "connect"
    assert claims["tunnelId"] == machine.tunnel_properties()["tunnelId"]
    assert claims["exp"] > claims["iat"]


def test_tunnel_has_one_relay_endpoint(room: MachineRoom, machine: Machine) -> None:
    tunnel = room.call(machine).json()
    (endpoint,) = tunnel["endpoints"]
    assert endpoint["connectionMode"] == "TunnelRelay"
    assert endpoint["clientRelayUri"].startswith("ws://127.0.0.1:")
    assert "ports" not in tunnel
    params = {"api-version": "2023-09-27-preview", "includePorts": "true"}
    assert [port["portNumber"] for port in room.call(machine, params=params).json()["ports"]] == [RPC_PORT]


def test_port_is_created_once(room: MachineRoom, machine: Machine) -> None:
    assert room.call(machine, path="/ports/8080").status_code == 404
    created = put(room, machine, 8080, labels=["UserForwardedPort"], protocol="http", portForwardingUris=None)
    assert created.status_code == 201
    assert created.json()["labels"] == ["UserForwardedPort"]
    again = put(room, machine, 8080)
    assert again.status_code == 409
    assert again.headers["X-Ms-Error-Code"] == "TunnelPortConflict"
    assert again.json()["title"] == "Conflict"
    assert put(room, machine, 8080, create=False, protocol="https").status_code == 200
    assert room.call(machine, path="/ports/8080").json()["protocol"] == "https"
    assert room.call(machine, "DELETE", "/ports/8080").status_code == 204
    assert room.call(machine, "DELETE", "/ports/8080").status_code == 404


def test_access_control_is_kept_and_always_there(room: MachineRoom, machine: Machine) -> None:
    put(room, machine, 9001, accessControl=PUBLIC)
    put(room, machine, 9002)
    ports = {port["portNumber"]: port for port in room.call(machine, path="/ports").json()["value"]}
    assert ports[9001]["accessControl"] == PUBLIC
    assert ports[9002]["accessControl"] == {"entries": []}


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/ports/0", {}),
        ("/ports/65536", {}),
        ("/ports/http", {}),
        ("/ports/8080", {"content": b"not json"}),
        ("/ports/8080", {"content": b"[]"}),
        ("/ports/8080", {"json": {"portNumber": 8081}}),
        ("/ports/8080", {"params": {}}),
        ("/ports/8080", {"params": {"api-version": "2020-01-01"}}),
    ],
)
def test_bad_requests_are_told_as_problem_details(
    room: MachineRoom, machine: Machine, path: str, options: dict[str, Any]
) -> None:
    answer = room.call(machine, "PUT", path, **options)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json()["title"]
    assert answer.json()["detail"]
    assert room.call(machine, path="/ports/8080").status_code == 404


@pytest.mark.parametrize(
    "authorization", ["", "Tunnel", "Tunnel x", "Tunnel a.b.c", "Bearer {token}", "Tunnel {token}x"]
)
def test_missing_and_forged_tokens_are_refused(room: MachineRoom, machine: Machine, authorization: str) -> None:
    token = machine.tunnel_properties()["connectAccessToken"]
    headers = {"Authorization": authorization.format(token=token)} if authorization else {}
    answer = room.call(machine, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["detail"]


def test_the_scheme_may_be_in_small_letters(room: MachineRoom, machine: Machine) -> None:
    token = machine.tunnel_properties()["connectAccessToken"]
    assert room.call(machine, headers={"Authorization": f"tunnel {token}"}).status_code == 200


def test_a_token_of_another_tunnel_is_refused(room: MachineRoom, machine: Machine, other: Machine) -> None:
    token = other.tunnel_properties()["managePortsAccessToken"]
    assert room.call(machine, token=token).status_code == 401
    with pytest.raises(InvalidStatus) as refusal:
        room.open_relay(machine, token=other.tunnel_properties()["connectAccessToken"])
    assert refusal.value.response.status_code == 401


def test_scopes_are_kept_apart(room: MachineRoom, machine: Machine) -> None:
    properties = machine.tunnel_properties()
    assert room.call(machine, token=properties["connectAccessToken"]).status_code == 200
    assert room.call(machine, "DELETE", "/ports/1", token=properties["connectAccessToken"]).status_code == 403
    with pytest.raises(InvalidStatus) as refusal:
        room.open_relay(machine, token=properties["managePortsAccessToken"])
    assert refusal.value.response.status_code == 403


def test_tokens_expire(room: MachineRoom, machine: Machine) -> None:
    room.tunnels.token_lifetime = -1
    expired = machine.tunnel_properties()
    room.tunnels.token_lifetime = 60
    answer = room.call(machine, token=expired["managePortsAccessToken"])
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]
    with pytest.raises(InvalidStatus) as refusal:
        room.open_relay(machine, token=expired["connectAccessToken"])
    assert refusal.value.response.status_code == 401


def test_expired_tokens_as_a_fault(room: MachineRoom, machine: Machine, other: Machine) -> None:
    old = machine.tunnel_properties()["managePortsAccessToken"]
    room.faults.set("token-expired", machine.spec.name)
    assert room.call(machine, token=old).status_code == 401
    new = machine.tunnel_properties()["managePortsAccessToken"]
    assert room.call(machine, token=new).status_code == 401
    assert room.call(other).status_code == 200
    room.faults.clear()
    assert room.call(machine, token=old).status_code == 200
    assert room.call(machine, token=new).status_code == 401


def test_a_fault_that_strikes_once_is_mended_by_new_tokens(room: MachineRoom, machine: Machine) -> None:
    old = machine.tunnel_properties()["managePortsAccessToken"]
    room.faults.set("token-expired", machine.spec.name, count=1)
    assert room.call(machine, token=old).status_code == 401
    assert room.call(machine).status_code == 200


def test_an_unknown_tunnel_is_not_found(room: MachineRoom, tmp_path: Path) -> None:
    stranger = room.machine("stranger", boot=False)
    assert room.call(stranger).status_code == 404


def test_a_plain_request_to_the_relay_is_refused(room: MachineRoom, machine: Machine) -> None:
    address = room.relay_address(machine).replace("ws://", "http://")
    headers = {"Authorization": f"Tunnel {machine.tunnel_properties()['connectAccessToken']}"}
    answer = httpx.get(address, headers=headers, trust_env=False)
    assert answer.status_code in (400, 426)
    assert answer.json()["detail"]
