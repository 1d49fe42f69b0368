from __future__ import annotations

import json

import pytest

from codespace_kernels.errors import GitHubError, NotFoundError, PendingOperationError, SettingsError
from codespace_kernels.github import CodespacesApi, CreationTerms, Repository

from .conftest import Script, answer, client_for

REPOSITORY = Repository(7, "octocat/hello", "main")


def api_for(*answers):
    script = Script(*answers)
    return CodespacesApi(client_for(script)), script


def asked(script):
    return [f"{request.method} {request.url.raw_path.decode()}" for request in script.requests]


async def test_paths():
    api, script = api_for(answer(200, {"codespaces": [], "devcontainers": [], "machines": []}))
    await api.list_codespaces()
    await api.list_codespaces("octocat/hello")
    await api.get("hello")
    await api.get_internal("hello")
    await api.start("hello")
    await api.stop("hello")
    await api.delete("a/../b")
    await api.repository("octocat/hello")
    await api.terms("octocat/hello")
    await api.devcontainers(REPOSITORY)
    await api.machines(REPOSITORY, devcontainer_path=".devcontainer.json")
    await api.permissions_accepted(REPOSITORY, "", "")
    await api.whoami()
    assert asked(script) == [
        "GET /user/codespaces?per_page=100",
        "GET /repos/octocat/hello/codespaces?per_page=100",
        "GET /user/codespaces/hello",
        "GET /user/codespaces/hello?internal=true&refresh=true",
        "POST /user/codespaces/hello/start",
        "POST /user/codespaces/hello/stop",
        "DELETE /user/codespaces/a%2F..%2Fb",
        "GET /repos/octocat/hello",
        "GET /repos/octocat/hello/codespaces/new",
        "GET /repositories/7/codespaces/devcontainers?per_page=100&ref=main",
        "GET /repositories/7/codespaces/machines?devcontainer_path=.devcontainer.json&location=&ref=main",
        "GET /repositories/7/codespaces/permissions_check?ref=main&devcontainer_path=",
        "GET /user",
    ]


@pytest.mark.parametrize("name", ["", "hello", "a/b/c", "a/..", "a/.", "../b", "a/b?x", "a b/c"])
async def test_a_repository_has_two_parts(name):
    api, script = api_for(answer(200))
    with pytest.raises(SettingsError, match="OWNER/NAME"):
        await api.repository(name)
    assert not script.requests


async def test_create_tells_whether_github_is_still_at_it():
    for status, accepted in ((201, False), (202, True)):
        api, script = api_for(answer(status, {"name": "new", "state": "Queued"}))
        codespace, pending = await api.create({"repository_id": 7})
        assert (codespace.name, pending) == ("new", accepted)
        assert json.loads(script.requests[0].content) == {"repository_id": 7}


async def test_create_is_not_repeated():
    api, script = api_for(answer(503))
    with pytest.raises(GitHubError):
        await api.create({"repository_id": 7})
    assert len(script.requests) == 1


async def test_starting_tells_whether_it_was_taken():
    api, _ = api_for(answer(200))
    assert await api.start("hello")


@pytest.mark.parametrize("status", [304, 409])
async def test_starting_what_runs_is_no_error(status):
    api, _ = api_for(answer(status))
    assert not await api.start("hello")


@pytest.mark.parametrize("call", ["start", "stop", "update"])
async def test_a_pending_operation_is_found_after_a_422(call):
    pending = answer(
        200, {"name": "hello", "pending_operation": True, "pending_operation_disabled_reason": "Exporting."}
    )
    api, _ = api_for(answer(422, {"message": "Exporting."}), pending)
    arguments = ({"machine": "x"},) if call == "update" else ()
    with pytest.raises(PendingOperationError, match=r"hello is taken .*\(Exporting\)"):
        await getattr(api, call)("hello", *arguments)


async def test_another_422_stays_what_it_is():
    invalid = {"message": "Validation Failed", "errors": [{"field": "machine", "code": "invalid"}]}
    api, _ = api_for(answer(422, invalid), answer(200, {"name": "hello"}))
    with pytest.raises(GitHubError, match="machine is not valid") as caught:
        await api.update("hello", {"machine": "x"})
    assert not isinstance(caught.value, PendingOperationError)


async def test_who_pays():
    terms = {
        "billable_owner": {"login": "acme", "type": "Organization"},
        "defaults": {"location": "WestUs2", "devcontainer_path": None},
    }
    api, _ = api_for(answer(200, terms))
    assert await api.terms("octocat/hello") == CreationTerms("acme", "Organization", "WestUs2")
    api, _ = api_for(answer(404))
    assert await api.terms("octocat/hello") == CreationTerms()
    api, _ = api_for(answer(403, {"message": "Codespaces are disabled"}))
    with pytest.raises(GitHubError, match=r"with octocat/hello by this account.*Codespaces are disabled"):
        await api.terms("octocat/hello")


async def test_lists_of_bare_arrays_are_read_to_the_number_that_is_wanted():
    pages = [[{"name": f"b{number}"} for number in range(at, at + 100)] for at in (0, 100)]
    link = {"link": '<https://api.github.com/next>; rel="next"'}
    api, script = api_for(answer(200, pages[0], **link), answer(200, pages[1], **link))
    assert len(await api.branches("octocat/hello", 150)) == 150
    assert asked(script) == ["GET /repos/octocat/hello/branches?per_page=100", "GET /next"]
    api, script = api_for(answer(200, [{"full_name": "octocat/hello"}]))
    assert await api.own_repositories(5) == ["octocat/hello"]
    assert asked(script) == ["GET /user/repos?per_page=100&sort=pushed"]
    api, _ = api_for(answer(200, {"message": "a proxy's page"}))
    with pytest.raises(GitHubError, match="not GitHub's JSON"):
        await api.branches("octocat/hello", 5)


async def test_search():
    api, script = api_for(answer(200, {"items": [{"full_name": "octocat/hello"}]}))
    assert await api.search_repositories("hello user:octocat in:name", 7) == ["octocat/hello"]
    assert asked(script) == ["GET /search/repositories?q=hello+user%3Aoctocat+in%3Aname&per_page=7"]


async def test_an_unknown_codespace():
    api, _ = api_for(answer(404, {"message": "Not Found"}))
    with pytest.raises(NotFoundError, match="find codespace hello"):
        await api.get("hello")
