from __future__ import annotations

import logging
import traceback

import httpx
import pytest

from codespace_kernels import errors

from .conftest import CANARY, Script, answer, client_for


async def refusal(response, *, what="start codespace hello", token=CANARY, **client):
    """The error that an answer becomes."""
    async with client_for(Script(response), token, **client) as github:
        with pytest.raises(errors.CodespaceKernelsError) as caught:
            await github.request("PATCH", "/x", what)
    return caught.value


async def test_bad_token_names_its_source():
    error = await refusal(answer(401, {"message": "Bad credentials"}))
    assert type(error) is errors.BadTokenError
    assert "GH_TOKEN" in str(error)
    assert "gh auth login -h github.com" in str(error)


async def test_too_many_failed_logins():
    error = await refusal(answer(403, {"message": "Maximum number of login attempts exceeded."}))
    assert type(error) is errors.BadTokenError


async def test_permissions_carry_the_page():
    url = "https://github.com/codespaces/allow_permissions/1"
    error = await refusal(answer(401, {"message": "x", "allow_permissions_url": url}))
    assert type(error) is errors.PermissionsRequiredError
    assert error.url == url
    assert url in str(error)
    assert errors.error_from_json(error.to_json()).url == url


async def test_payment():
    error = await refusal(answer(402, {"message": "Spending limit reached"}))
    assert type(error) is errors.PaymentRequiredError
    assert "Spending limit reached" in str(error)
    assert "billing" in str(error)


@pytest.mark.parametrize("status", [403, 404])
async def test_missing_scope_names_the_command(status):
    response = answer(status, {"message": "Must have admin rights"}, x_oauth_scopes="repo, read:org, gist",
                      x_accepted_oauth_scopes="codespace")  # fmt: skip
    error = await refusal(response, api_url="https://ghe.example.com/api/v3")
    assert type(error) is errors.MissingScopeError
    assert "`gh auth refresh -h ghe.example.com -s codespace`" in str(error)


async def test_a_scope_that_is_there_is_not_called_missing():
    response = answer(403, {"message": "Policy forbids"}, x_oauth_scopes="codespace, repo",
                      x_accepted_oauth_scopes="codespace")  # fmt: skip
    error = await refusal(response)
    assert type(error) is errors.GitHubError
    assert "Policy forbids" in str(error)
    assert error.status == 403


async def test_a_repository_that_is_not_found_is_not_called_a_missing_scope():
    response = answer(404, {"message": "Not Found"}, x_oauth_scopes="codespace", x_accepted_oauth_scopes="repo")
    assert type(await refusal(response)) is errors.NotFoundError


async def test_single_sign_on_gives_the_last_address():
    headers = [
        ("x-github-sso", "required; url=https://github.com/orgs/a/sso?token=1"),
        ("x-github-sso", "required; url=https://github.com/orgs/b/sso?token=2"),
    ]
    error = await refusal(httpx.Response(403, headers=headers, json={"message": "SAML"}))
    assert type(error) is errors.SsoRequiredError
    assert error.url == "https://github.com/orgs/b/sso?token=2"
    assert error.url in str(error)


async def test_fine_grained_token_without_the_permission():
    response = answer(403, {"message": "Resource not accessible by personal access token"},
                      x_accepted_github_permissions="codespaces=write")  # fmt: skip
    error = await refusal(response)
    assert type(error) is errors.MissingScopeError
    assert "codespaces=write" in str(error)


async def test_not_found_says_what():
    error = await refusal(answer(404, {"message": "Not Found"}), what="find codespace hello")
    assert type(error) is errors.NotFoundError
    assert "find codespace hello" in str(error)
    assert error.status == 404


async def test_conflict_and_retired_version():
    assert (await refusal(answer(409, {"message": "Already running"}))).status == 409
    error = await refusal(answer(410, {"message": "Gone"}))
    assert "upgrade codespace-kernels" in str(error)


async def test_validation_errors_in_words():
    items = [
        {"resource": "Codespace", "field": "machine", "code": "invalid"},
        {"resource": "Codespace", "field": "ref", "code": "missing_field"},
        {"resource": "Codespace", "code": "custom", "message": "Too many codespaces"},
        {"resource": "Codespace", "field": "x", "code": "strange_code"},
        "a plain text",
    ]
    error = await refusal(answer(422, {"message": "Validation Failed", "errors": items}))
    for part in (
        "Validation Failed",
        "Codespace.machine is not valid",
        "Codespace.ref is missing",
        "Too many codespaces",
        "strange_code",
        "a plain text",
    ):
        assert part in str(error)


async def test_pending_operation():
    error = await refusal(answer(422, {"message": "Codespace has a pending operation"}))
    assert type(error) is errors.PendingOperationError


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"\xff\xfe", b"[1]", b'"text"', b"null"])
@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
async def test_bodies_that_are_no_json_object(status, body):
    error = await refusal(httpx.Response(status, content=body))
    assert str(error).endswith((".", "there."))


async def test_a_long_text_is_cut():
    error = await refusal(answer(422, {"message": "x" * 10_000}))
    assert len(str(error)) < 600


@pytest.mark.parametrize("status", [401, 402, 403, 404, 409, 410, 422, 429, 500])
async def test_no_secret_in_texts_and_logs(status, caplog):
    """Even where a server sends the token back in its message."""
    caplog.set_level(logging.DEBUG)
    error = await refusal(answer(status, {"message": f"token {CANARY} is bad"}, retry_after="3600"))
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert CANARY not in text
    assert CANARY not in caplog.text
