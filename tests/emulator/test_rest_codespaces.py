from __future__ import annotations

import time

import httpx
import pytest

from codespace_kernels.emulator import Emulator, ThreadedEmulator

from .conftest import client_of

# The members that GitHub's OpenAPI description requires of a codespace.
REQUIRED = {
    "id", "name", "environment_id", "owner", "billable_owner", "repository", "machine", "prebuild", "created_at",
    "updated_at", "last_used_at", "state", "url", "git_status", "location", "idle_timeout_minutes", "web_url",
    "machines_url", "start_url", "stop_url", "pulls_url", "recent_folders",
}  # fmt: skip
TUNNEL_PROPERTIES = {"connectAccessToken", "managePortsAccessToken", "serviceUri", "tunnelId", "clusterId", "domain"}


def repository_id(api: httpx.Client) -> int:
    return api.get("/repos/octocat/hello-codespaces").json()["id"]


def test_an_account_begins_with_one_stopped_codespace(api, name):
    answer = api.get("/user/codespaces").json()
    assert answer["total_count"] == 1
    (codespace,) = answer["codespaces"]
    assert codespace["name"] == name
    assert name.startswith("hello-codespaces-")
    assert codespace["display_name"] == "hello codespaces"
    assert codespace["repository"]["full_name"] == "octocat/hello-codespaces"
    assert codespace["state"] == "Shutdown"
    assert codespace["owner"]["login"] == "octocat"
    assert codespace.keys() >= REQUIRED


def test_only_the_internal_form_of_a_running_codespace_has_a_tunnel(api, name, wait_for):
    assert wait_for("Shutdown")["connection"] is None
    assert api.post(f"/user/codespaces/{name}/start").json()["state"] in {"Queued", "Starting"}
    assert api.get(f"/user/codespaces/{name}", params={"internal": "true"}).json()["connection"] is None
    properties = wait_for("Available")["connection"]["tunnelProperties"]
    assert properties.keys() >= TUNNEL_PROPERTIES
    assert all(properties.values())
    assert "connection" not in api.get(f"/user/codespaces/{name}").json()
    api.post(f"/user/codespaces/{name}/stop")
    assert wait_for("Shutdown")["connection"] is None


def test_a_start_and_a_stop_pass_through_the_states_between(api, name):
    def states_after(verb: str, last: str) -> list[str]:
        seen = [api.post(f"/user/codespaces/{name}/{verb}").json()["state"]]
        deadline = time.monotonic() + 60
        while seen[-1] != last and time.monotonic() < deadline:
            state = api.get(f"/user/codespaces/{name}").json()["state"]
            if state != seen[-1]:
                seen.append(state)
        return seen

    assert states_after("start", "Available") == ["Queued", "Starting", "Available"]
    assert states_after("stop", "Shutdown") == ["ShuttingDown", "Shutdown"]


def test_what_is_running_cannot_be_started_again(api, name, wait_for):
    api.post(f"/user/codespaces/{name}/start")
    assert api.post(f"/user/codespaces/{name}/start").status_code == 409
    wait_for("Available")
    assert api.post(f"/user/codespaces/{name}/start").status_code == 409


def test_a_stop_during_the_start_wins(api, name, wait_for):
    api.post(f"/user/codespaces/{name}/start")
    assert api.post(f"/user/codespaces/{name}/stop").json()["state"] == "ShuttingDown"
    wait_for("Shutdown")
    assert api.post(f"/user/codespaces/{name}/stop").json()["state"] == "Shutdown"
    assert api.post(f"/user/codespaces/{name}/start").status_code == 200
    wait_for("Available")


def test_create_and_delete(api, emulator):
    number = repository_id(api)
    body = {"repository_id": number, "ref": "main", "machine": "standardLinux32gb", "display_name": "My Lab",
            "idle_timeout_minutes": 15, "location": "", "vscs_target": "x"}  # fmt: skip
    answer = api.post("/user/codespaces", json=body)
    assert answer.status_code == 201
    codespace = answer.json()
    assert codespace.keys() >= REQUIRED
    assert codespace["name"].startswith("my-lab-")
    assert codespace["machine"]["cpus"] == 4
    assert codespace["idle_timeout_minutes"] == 15
    assert codespace["state"] == "Queued"
    folder = emulator.account.codespaces[codespace["name"]].folder
    assert api.delete(f"/user/codespaces/{codespace['name']}").status_code == 202
    assert api.get(f"/user/codespaces/{codespace['name']}").status_code == 404
    deadline = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_create_for_a_repository_takes_its_defaults(api):
    codespace = api.post("/repos/octocat/hello-codespaces/codespaces", json={}).json()
    assert codespace["git_status"]["ref"] == "main"
    assert codespace["machine"]["name"] == "basicLinux32gb"
    assert codespace["display_name"]
    assert api.delete(f"/user/codespaces/{codespace['name']}").status_code == 202


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"repository_id": None}, "repository_id", "missing_field"),
        ({"repository_id": "1"}, "repository_id", "invalid"),
        ({"machine": "huge"}, "machine", "invalid"),
        ({"machine": 4}, "machine", "invalid"),
        ({"ref": "no-such-branch"}, "ref", "invalid"),
        ({"devcontainer_path": "elsewhere.json"}, "devcontainer_path", "invalid"),
        ({"location": "Mars"}, "location", "invalid"),
        ({"geo": "Mars"}, "geo", "invalid"),
        ({"idle_timeout_minutes": 4}, "idle_timeout_minutes", "invalid"),
        ({"idle_timeout_minutes": 241}, "idle_timeout_minutes", "invalid"),
        ({"idle_timeout_minutes": True}, "idle_timeout_minutes", "invalid"),
        ({"retention_period_minutes": 43201}, "retention_period_minutes", "invalid"),
        ({"display_name": "x" * 49}, "display_name", "invalid"),
    ],
)
def test_a_wrong_create_is_refused_item_by_item(api, change, field, code):
    answer = api.post("/user/codespaces", json={"repository_id": repository_id(api), **change})
    assert answer.status_code == 422
    assert [(item["field"], item["code"]) for item in answer.json()["errors"]] == [(field, code)]
    assert api.get("/user/codespaces").json()["total_count"] == 1


def test_create_for_what_is_not_there_is_not_found(api):
    assert api.post("/user/codespaces", json={"repository_id": 1}).status_code == 404
    pull = {"pull_request": {"pull_request_number": 1, "repository_id": repository_id(api)}}
    assert api.post("/user/codespaces", json=pull).status_code == 404


def test_a_body_that_is_no_json_object_is_refused(api):
    for body in (b"{", b"[]", b"\xff"):
        assert api.post("/user/codespaces", content=body).status_code == 400


def test_patch_changes_all_or_nothing(api, name):
    change = {"display_name": "renamed", "machine": "premiumLinux", "idle_timeout_minutes": 60}
    codespace = api.patch(f"/user/codespaces/{name}", json=change).json()
    assert (codespace["display_name"], codespace["machine"]["cpus"], codespace["idle_timeout_minutes"]) == (
        "renamed",
        8,
        60,
    )
    refused = api.patch(f"/user/codespaces/{name}", json={"display_name": "again", "machine": "huge"})
    assert refused.status_code == 422
    assert api.get(f"/user/codespaces/{name}").json()["display_name"] == "renamed"


def test_a_codespace_that_nobody_uses_stops_and_says_why():
    minute = 0.5
    timeout = 5 * minute
    with (
        ThreadedEmulator(Emulator(transition_seconds=0.05, minute_seconds=minute)) as emulator,
        client_of(emulator) as api,
    ):
        codespace = next(iter(emulator.account.codespaces.values()))
        url = f"/user/codespaces/{codespace.name}"
        assert api.patch(url, json={"idle_timeout_minutes": 5}).status_code == 200
        api.post(f"{url}/start")
        used_until = time.monotonic() + 1.5 * timeout
        states = set()
        while time.monotonic() < used_until:
            codespace.touch(["keepAlive"])
            states.add(api.get(url).json()["state"])
            time.sleep(0.02)
        assert "ShuttingDown" not in states
        give_up = time.monotonic() + 60
        while (stopped := api.get(url).json())["state"] != "Shutdown":
            assert time.monotonic() < give_up
            time.sleep(0.02)
        assert "idle" in stopped["last_known_stop_notice"]
        assert api.post(f"{url}/start").json()["last_known_stop_notice"] is None


def test_a_session_ends_though_the_codespace_is_in_use():
    with (
        ThreadedEmulator(Emulator(transition_seconds=0.05, minute_seconds=0.25, session_minutes=6)) as emulator,
        client_of(emulator) as api,
    ):
        codespace = next(iter(emulator.account.codespaces.values()))
        url = f"/user/codespaces/{codespace.name}"
        api.post(f"{url}/start")
        give_up = time.monotonic() + 60
        seen = []
        while (now := api.get(url).json())["state"] != "Shutdown":
            assert time.monotonic() < give_up
            codespace.touch(["keepAlive"])
            seen.append(now["state"])
            time.sleep(0.02)
        assert "Available" in seen
        assert "session" in now["last_known_stop_notice"]
