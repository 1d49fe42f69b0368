from __future__ import annotations

import base64
import re
from pathlib import Path

import httpx
import pytest

from codespace_kernels.emulator import Emulator, ThreadedEmulator, emulator_token
from codespace_kernels.emulator.account import NewCodespace

from .conftest import client_of

HELLO = "/repos/octocat/hello-codespaces"


def test_answers_carry_githubs_headers(api):
    headers = api.get("/user/codespaces").headers
    assert headers["X-OAuth-Scopes"] == "codespace"
    assert headers["X-Accepted-OAuth-Scopes"] == "codespace"
    assert headers["X-GitHub-Api-Version-Selected"] == "2022-11-28"
    assert headers["X-GitHub-Request-Id"]
    assert headers["X-RateLimit-Limit"] == "5000"
    assert headers["X-RateLimit-Resource"] == "core"


def test_requests_count_against_the_quota(api):
    first, second = (int(api.get("/user/codespaces").headers["X-RateLimit-Used"]) for _ in range(2))
    assert second == first + 1
    rate = api.get("/rate_limit").json()["rate"]
    assert (rate["used"], rate["remaining"]) == (second, 5000 - second)
    assert api.get("/rate_limit").json()["rate"]["used"] == second


def test_what_did_not_change_is_not_sent_again_and_is_free(api):
    first = api.get("/user/codespaces")
    again = api.get("/user/codespaces", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["X-RateLimit-Used"] == first.headers["X-RateLimit-Used"]
    name = first.json()["codespaces"][0]["name"]
    api.patch(f"/user/codespaces/{name}", json={"display_name": "changed"})
    assert api.get("/user/codespaces", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_a_used_up_quota_refuses():
    with ThreadedEmulator(Emulator(rate_limit=2)) as emulator, client_of(emulator) as api:
        statuses = [api.get("/user").status_code for _ in range(3)]
        assert statuses == [200, 200, 403]
        refused = api.get("/user")
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert "rate limit" in refused.json()["message"].lower()
        assert api.get("/rate_limit").status_code == 200


@pytest.mark.parametrize(
    ("version", "status"),
    [("2022-11-28", 200), ("2026-03-10", 200), ("2021-01-01", 410), ("2999-01-01", 400), ("v3", 400)],
)
def test_api_versions(api, version, status):
    answer = api.get("/user", headers={"X-GitHub-Api-Version": version})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("authorization", "message"),
    [(None, "Requires authentication"), ("token ghp_wrong", "Bad credentials"), ("Basic abc", "Bad credentials"),
     ("token", "Requires authentication")],
)  # fmt: skip
def test_a_wrong_token_is_refused_in_githubs_shape(emulator, authorization, message):
    headers = {"Authorization": authorization} if authorization else {}
    answer = httpx.get(f"{emulator.api_url}/user/codespaces", headers=headers, trust_env=False)
    assert answer.status_code == 401
    body = answer.json()
    assert body["message"] == message
    assert body["status"] == "401"
    assert body["documentation_url"].startswith("https://docs.github.com/rest")


def test_both_scheme_words_are_good(emulator):
    for scheme in ("token", "Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {emulator.token}"}
        assert httpx.get(f"{emulator.api_url}/user", headers=headers, trust_env=False).json()["login"] == "octocat"


def test_a_token_without_the_scope_cannot_see_codespaces(emulator):
    token = emulator.account.add_token(scopes=("repo", "gist"))
    with client_of(emulator, token.value) as api:
        answer = api.get("/user/codespaces")
        assert answer.status_code == 403
        assert answer.headers["X-OAuth-Scopes"] == "repo, gist"
        assert answer.headers["X-Accepted-OAuth-Scopes"] == "codespace"
        assert api.get(HELLO).status_code == 200


def test_a_fine_grained_token_lists_but_gets_no_tunnel(emulator, api, name, wait_for):
    token = emulator.account.add_token("fine-grained")
    api.post(f"/user/codespaces/{name}/start")
    wait_for("Available")
    with client_of(emulator, token.value) as other:
        answer = other.get("/user/codespaces")
        assert answer.json()["total_count"] == 1
        assert "X-OAuth-Scopes" not in answer.headers
        assert "connection" not in other.get(f"/user/codespaces/{name}?internal=true").json()


def test_pages(emulator, api):
    repository = emulator.account.repository("octocat/hello-codespaces")
    for number in range(1, 7):
        emulator.account.add_codespace(NewCodespace(repository, display_name=f"number {number}"))
    url, seen, relations = "/user/codespaces?per_page=3", [], []
    while url:
        answer = api.get(url)
        assert answer.json()["total_count"] == 7
        seen += [codespace["display_name"] for codespace in answer.json()["codespaces"]]
        relations.append(sorted(answer.links))
        url = answer.links.get("next", {}).get("url")
    assert seen == [*(f"number {number}" for number in range(6, 0, -1)), "hello codespaces"]
    assert relations == [["last", "next"], ["first", "last", "next", "prev"], ["first", "prev"]]
    assert "Link" not in api.get("/user/codespaces").headers
    assert api.get("/user/codespaces?page=9").json()["codespaces"] == []
    assert len(api.get("/user/codespaces?per_page=x&page=0").json()["codespaces"]) == 7


def test_lists_of_one_repository():
    options = Emulator(repositories=("octocat/hello-codespaces", "octo-org/lab"), codespaces=4)
    with ThreadedEmulator(options) as emulator, client_of(emulator) as api:
        number = api.get("/repos/octo-org/lab").json()["id"]
        for path in ("/repos/octo-org/lab/codespaces", f"/repositories/{number}/codespaces",
                     f"/user/codespaces?repository_id={number}"):  # fmt: skip
            answer = api.get(path).json()
            assert answer["total_count"] == 2
            assert {codespace["repository"]["id"] for codespace in answer["codespaces"]} == {number}


def test_repositories_are_found_by_name_and_id_whatever_the_case(api):
    repository = api.get("/repos/OctoCat/Hello-Codespaces").json()
    assert repository["full_name"] == "octocat/hello-codespaces"
    assert repository["default_branch"] == "main"
    assert api.get(f"/repositories/{repository['id']}").json() == repository
    for path in ("/repos/octocat/other", "/repositories/1", "/user/codespaces/none", "/nothing/here"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")
    assert api.put(HELLO).status_code == 404


def test_who_pays(emulator, api):
    payer = api.get(f"{HELLO}/codespaces/new").json()["billable_owner"]
    assert (payer["login"], payer["type"]) == ("octocat", "User")
    emulator.account.add_repository("octo-org/paid", paid_by="octo-org")
    payer = api.get("/repos/octo-org/paid/codespaces/new").json()["billable_owner"]
    assert (payer["login"], payer["type"]) == ("octo-org", "Organization")
    created = api.post("/repos/octo-org/paid/codespaces", json={}).json()
    assert created["billable_owner"]["login"] == "octo-org"


def test_what_a_repository_offers(api, name):
    number = api.get(HELLO).json()["id"]
    for root in (HELLO, f"/repositories/{number}"):
        assert api.get(f"{root}/codespaces/devcontainers?ref=main").json() == {
            "total_count": 1,
            "devcontainers": [{"path": ".devcontainer/devcontainer.json", "display_name": "hello-codespaces"}],
        }
        machines = api.get(f"{root}/codespaces/machines?location=&ref=main&devcontainer_path=").json()
        assert [machine["cpus"] for machine in machines["machines"]] == [2, 4, 8, 16]
        assert api.get(f"{root}/codespaces/permissions_check").json() == {"accepted": True}
    assert api.get(f"/user/codespaces/{name}/machines").json() == machines


def test_lists_of_repositories_and_branches(emulator, api):
    emulator.account.add_repository("octo-org/paid").branches.extend(["b", "a"])
    own = api.get("/user/repos", params={"sort": "pushed"}).json()
    assert [one["full_name"] for one in own] == ["octocat/hello-codespaces", "octo-org/paid"]
    assert {"id", "default_branch", "pushed_at", "permissions"} <= own[0].keys()
    branches = api.get("/repos/octo-org/paid/branches", params={"per_page": 2})
    assert [branch["name"] for branch in branches.json()] == ["a", "b"]
    assert branches.json()[0].keys() == {"name", "commit", "protected"}
    rest = httpx.get(branches.links["next"]["url"], headers=api.headers, trust_env=False).json()
    assert [branch["name"] for branch in rest] == ["main"]
    found = api.get("/search/repositories", params={"q": "PAID user:octo-org in:name"}).json()
    assert (found["total_count"], found["incomplete_results"]) == (1, False)
    assert found["items"][0]["full_name"] == "octo-org/paid"
    assert api.get("/search/repositories").status_code == 422


def test_a_file_is_found_when_its_slash_is_encoded(api):
    for path in (".devcontainer/devcontainer.json", ".devcontainer%2Fdevcontainer.json"):
        file = api.get(f"{HELLO}/contents/{path}?ref=main").json()
        assert '"8888"' in base64.b64decode(file["content"]).decode()
    assert api.get(f"{HELLO}/contents/other.json").status_code == 404
    assert api.get(f"{HELLO}/contents/.devcontainer/devcontainer.json?ref=none").status_code == 404


def test_web_address_of_a_codespace_is_a_page(api, name):
    page = httpx.get(api.get(f"/user/codespaces/{name}").json()["web_url"], trust_env=False)
    assert "hello codespaces" in page.text
    assert "Shutdown" in page.text


def test_two_emulators_do_not_meet(emulator, api, name):
    with ThreadedEmulator() as other, client_of(other) as stranger:
        assert other.api_url != emulator.api_url
        assert stranger.get(f"/user/codespaces/{name}").status_code == 404
        assert httpx.get(f"{emulator.api_url}/user", headers=stranger.headers, trust_env=False).status_code == 401
        assert emulator_token(other.api_url) == other.token
        assert emulator_token(emulator.api_url + "/") == emulator.token
    assert emulator_token(other.api_url) is None
    assert api.get(f"/user/codespaces/{name}").status_code == 200


def test_the_environment_is_what_gh_reads(emulator):
    assert emulator.environment() == {"GITHUB_API_URL": emulator.api_url, "GH_ENTERPRISE_TOKEN": emulator.token}
    assert re.fullmatch(r"ghp_[A-Za-z0-9]{36}", emulator.token)
    assert emulator.token not in repr(emulator.emulator) + repr(emulator.emulator.record)


async def test_an_emulator_on_the_loop_of_the_test():
    async with Emulator(codespaces=0) as emulator, httpx.AsyncClient(trust_env=False) as client:
        headers = {"Authorization": f"token {emulator.token}"}
        answer = await client.get(f"{emulator.api_url}/user/codespaces", headers=headers)
        assert answer.json() == {"total_count": 0, "codespaces": []}
        folder = Path(emulator.record.folder)
        assert folder.is_dir()
    await emulator.close()
    assert not folder.exists()
