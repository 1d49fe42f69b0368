from __future__ import annotations

from email.utils import parsedate_to_datetime

import httpx
import pytest

from codespace_kernels.emulator import FaultBoard
from codespace_kernels.emulator.faults import KINDS
from codespace_kernels.errors import EmulatorError

HELLO = "/repos/octocat/hello-codespaces"
STATES = [
    *("Created", "Queued", "Provisioning", "Awaiting", "Starting", "Available", "ShuttingDown", "Shutdown"),
    *("Rebuilding", "Updating", "Exporting"),
    *("Failed", "Unavailable", "Deleted", "Moved", "Archived", "Unknown"),
]


def test_a_fault_of_one_codespace_wins_over_one_of_all():
    board = FaultBoard()
    board.set("state", state="Failed")
    board.set("state", "mine", state="Archived")
    assert board.get("state", "mine").options["state"] == "Archived"
    assert board.get("state", "other").options["state"] == "Failed"
    board.clear("state", "mine")
    assert board.get("state", "mine").options["state"] == "Failed"
    board.clear()
    assert board.get("state", "mine") is None
    assert list(board) == []


def test_a_fault_with_a_count_strikes_that_often():
    board = FaultBoard()
    board.set("server-error", on="start,get", count=2, status=502)
    assert board.take("server-error", "x", "list") is None
    assert [bool(board.take("server-error", "x", "get")) for _ in range(3)] == [True, True, False]
    board.set("server-error")
    assert all(board.take("server-error", "x", "get") for _ in range(5))


def test_listeners_hear_of_what_is_set_and_what_is_gone():
    board, heard = FaultBoard(), []
    unsubscribe = board.subscribe(lambda fault, active: heard.append((fault.kind, fault.codespace, active)))
    board.set("relay-drop", "mine", count=1)
    board.take("relay-drop", "mine")
    board.set("no-sshd")
    board.clear("no-sshd")
    unsubscribe()
    board.set("no-jupyter")
    assert heard == [
        ("relay-drop", "mine", True), ("relay-drop", "mine", False), ("no-sshd", None, True), ("no-sshd", None, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("rain", {}, ["rain", *KINDS]),
        ("state", {"stat": "Failed"}, ["stat", "state", "count"]),
        ("state", {"state": "Broken"}, ["Broken", *STATES]),
        ("rate-limit", {"status": "many"}, ["status", "number", "many"]),
        ("rate-limit", {"limit": "tertiary"}, ["tertiary", "primary", "secondary"]),
        ("server-error", {"on": "start,dance"}, ["dance", "start", "create"]),
    ],
)
def test_what_no_fault_can_be_is_refused(kind, options, words):
    board = FaultBoard()
    with pytest.raises(EmulatorError) as caught:
        board.set(kind, **options)
    assert all(word in str(caught.value) for word in words)
    assert list(board) == []


def test_values_from_a_command_line_are_converted():
    board = FaultBoard()
    board.set("slow-start", seconds="2.5", count="1")
    fault = board.get("slow-start", "x")
    assert (fault.options["seconds"], fault.remaining) == (2.5, 1)


@pytest.mark.parametrize("state", STATES)
def test_a_codespace_can_be_in_every_state(emulator, api, name, state):
    emulator.faults.set("state", name, state=state)
    codespace = api.get(f"/user/codespaces/{name}?internal=true").json()
    assert codespace["state"] == state
    assert codespace["connection"] is None


def test_slow_start(emulator, api, name, wait_for):
    emulator.faults.set("slow-start", name, seconds=1000)
    api.post(f"/user/codespaces/{name}/start")
    wait_for("Queued")
    api.post(f"/user/codespaces/{name}/stop")
    wait_for("Shutdown")
    emulator.faults.set("slow-start", name, seconds=0.1)
    api.post(f"/user/codespaces/{name}/start")
    wait_for("Available")


def create(api: httpx.Client, **body: object) -> httpx.Response:
    return api.post(f"{HELLO}/codespaces", json=body)


def test_permissions_must_be_granted_on_a_page(emulator, api):
    emulator.faults.set("permissions")
    refused = create(api)
    assert refused.status_code == 401
    page = refused.json()["allow_permissions_url"]
    assert api.get(f"{HELLO}/codespaces/permissions_check").json() == {"accepted": False}
    assert "Authorize" in httpx.get(page, trust_env=False).text
    assert create(api).status_code == 401
    assert create(api, multi_repo_permissions_opt_out=True).status_code == 201
    httpx.post(page, trust_env=False)
    assert api.get(f"{HELLO}/codespaces/permissions_check").json() == {"accepted": True}
    assert create(api).status_code == 201


def test_create_can_be_accepted_only(emulator, api):
    emulator.faults.set("create-accepted")
    answer = create(api)
    assert answer.status_code == 202
    assert answer.json()["name"]


@pytest.mark.parametrize(
    ("kind", "options", "status", "headers"),
    [
        ("payment", {}, 402, {}),
        ("conflict", {}, 409, {}),
        ("sso", {}, 403, {"X-GitHub-SSO": "required; url=http"}),
        ("unauthorized", {}, 401, {}),
        ("server-error", {"status": 503}, 503, {}),
        ("unprocessable", {"on": "start"}, 422, {}),
        ("rate-limit", {}, 403, {"X-RateLimit-Remaining": "0"}),
        ("rate-limit", {"status": 429, "retry_after": 7}, 429, {"Retry-After": "7", "X-RateLimit-Remaining": "0"}),
        ("rate-limit", {"limit": "secondary", "retry_after": 3}, 403, {"Retry-After": "3"}),
    ],
)
def test_a_start_is_refused(emulator, api, name, kind, options, status, headers):
    emulator.faults.set(kind, name, **options)
    answer = api.post(f"/user/codespaces/{name}/start")
    assert answer.status_code == status
    assert answer.json()["message"]
    assert answer.json()["documentation_url"].startswith("https://docs.github.com/rest")
    for header, value in headers.items():
        assert answer.headers[header].startswith(value)
    assert api.get(f"/user/codespaces/{name}").status_code in {200, answer.status_code}
    emulator.faults.clear(kind)
    assert api.get(f"/user/codespaces/{name}").json()["state"] == "Shutdown"
    assert api.post(f"/user/codespaces/{name}/start").status_code == 200


def test_a_secondary_limit_leaves_the_quota_alone(emulator, api):
    emulator.faults.set("rate-limit", limit="secondary", status=429)
    answer = api.get("/user")
    assert "Retry-After" not in answer.headers
    assert int(answer.headers["X-RateLimit-Remaining"]) > 0
    assert "secondary rate limit" in answer.json()["message"]


def test_a_fault_elsewhere_does_no_harm(emulator, api, name):
    emulator.faults.set("server-error", "another-codespace")
    assert api.get(f"/user/codespaces/{name}").status_code == 200
    assert api.get("/user/codespaces").status_code == 200


def test_unprocessable_names_the_field(emulator, api, name):
    emulator.faults.set("unprocessable", field="machine", code="custom", message="Not this one.")
    answer = api.patch(f"/user/codespaces/{name}", json={})
    assert answer.json()["errors"] == [
        {"resource": "Codespace", "field": "machine", "code": "custom", "message": "Not this one."}
    ]


def test_a_pending_operation_leaves_only_deletion(emulator, api, name):
    emulator.faults.set("pending-operation", name, reason="It is being moved.")
    codespace = api.get(f"/user/codespaces/{name}").json()
    assert codespace["pending_operation"] is True
    assert codespace["pending_operation_disabled_reason"] == "It is being moved."
    for refused in (api.post(f"/user/codespaces/{name}/start"), api.patch(f"/user/codespaces/{name}", json={})):
        assert (refused.status_code, refused.json()["message"]) == (422, "It is being moved.")
    assert api.delete(f"/user/codespaces/{name}").status_code == 202


def test_no_tunnel(emulator, api, name, wait_for):
    api.post(f"/user/codespaces/{name}/start")
    wait_for("Available")
    url = f"/user/codespaces/{name}?internal=true"
    emulator.faults.set("no-tunnel", name)
    assert "connection" not in api.get(url).json()
    emulator.faults.set("no-tunnel", name, status=500)
    assert api.get(url).status_code == 500
    assert api.get(f"/user/codespaces/{name}").status_code == 200
    emulator.faults.clear("no-tunnel")
    assert api.get(url).json()["connection"]


def test_what_answers_say_beside_themselves(emulator, api):
    plain = api.get("/user/codespaces").headers
    emulator.faults.set("sso-partial", on="list")
    emulator.faults.set("token-expiration", seconds=60)
    emulator.faults.set("clock", seconds=7200)
    emulator.faults.set("api-version", how="deprecated")
    headers = api.get("/user/codespaces").headers
    assert headers["X-GitHub-SSO"].startswith("partial-results; organizations=")
    assert headers["GitHub-Authentication-Token-Expiration"].endswith(" UTC")
    ahead = parsedate_to_datetime(headers["Date"]) - parsedate_to_datetime(plain["Date"])
    assert ahead.total_seconds() >= 7200
    assert parsedate_to_datetime(headers["Sunset"]) > parsedate_to_datetime(headers["Deprecation"])
    assert "X-GitHub-SSO" not in api.get("/user").headers


def test_a_retired_version(emulator, api):
    emulator.faults.set("api-version")
    assert api.get("/user").status_code == 410
    assert api.get("/user", headers={"X-GitHub-Api-Version": "2026-03-10"}).status_code == 410


def test_network_names(emulator, api):
    assert api.get("/meta").json()["domains"]["codespaces"] == ["127.0.0.1"]
    emulator.faults.set("network-names", names="one.invalid,two.invalid")
    assert api.get("/meta").json()["domains"]["codespaces"] == ["one.invalid", "two.invalid"]


def test_the_api_is_down(emulator, api, name):
    emulator.faults.set("api-down")
    answer = api.get(f"/user/codespaces/{name}")
    assert (answer.status_code, answer.json()["message"]) == (503, "Service Unavailable")
    emulator.faults.set("api-down", how="close")
    with pytest.raises(httpx.RemoteProtocolError):
        api.get("/user")
    emulator.faults.set("api-down", how="hang")
    with pytest.raises(httpx.ReadTimeout):
        api.get("/user", timeout=0.3)
    emulator.faults.clear("api-down")
    assert api.get("/user").status_code == 200


def test_the_tunnel_service_goes_down_with_the_api_only_where_asked(emulator, api, name, wait_for):
    api.post(f"/user/codespaces/{name}/start")
    tunnel = wait_for("Available")["connection"]["tunnelProperties"]

    def ask() -> int:
        return api.get(
            f"{tunnel['serviceUri']}tunnels/{tunnel['tunnelId']}?api-version=2023-09-27-preview",
            headers={"Authorization": f"Tunnel {tunnel['managePortsAccessToken']}"},
        ).status_code

    emulator.faults.set("api-down")
    assert ask() == 200
    emulator.faults.set("api-down", tunnels=1)
    assert ask() == 503
    emulator.faults.set("token-expired", count=1)
    emulator.faults.clear("api-down")
    assert [ask(), ask()] == [401, 200]
