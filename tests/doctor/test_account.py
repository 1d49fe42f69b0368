"""Checks of the account, each as it should be and each as it should not."""

import json
import stat
import sys
import time

import pytest

from codespace_kernels.doctor.account import codespaces, kind_of
from codespace_kernels.doctor.findings import Verdict
from codespace_kernels.emulator.account import NewCodespace

from .conftest import said

OK, NOTE, FAIL, SKIPPED = Verdict.OK, Verdict.NOTE, Verdict.FAIL, Verdict.SKIPPED
ALL = ("token", "rate-limit", "signed-in", "scopes", "expiry", "connecting", "sso", "codespaces", "gh")


async def test_a_sound_account(look, account):
    found = await look(*ALL)
    assert {name: found[name].verdict for name in ALL} == dict.fromkeys(ALL, OK)
    assert "classic" in said(found["token"])
    assert "octocat" in said(found["signed-in"])
    assert "of 5000" in said(found["rate-limit"])
    assert account.token not in " ".join(map(said, found.values()))


async def test_no_token(examiner, account, monkeypatch):
    from codespace_kernels.emulator import state

    monkeypatch.setattr(state, "emulator_token", lambda _: None)
    found = await examiner(examiner.subject(account.api_url), "codespaces", "connecting", "api")
    assert found["token"].verdict is FAIL
    assert "GH_ENTERPRISE_TOKEN" in said(found["token"])
    # The API can be asked all the same.
    assert found["api"].verdict is OK
    assert found["codespaces"].findings[0].found == 'skipped: because "Token" failed'


async def test_a_token_that_is_not_accepted(look, account):
    account.faults.set("unauthorized", on="user")
    found = await look("codespaces")
    assert found["signed-in"].verdict is FAIL
    assert "gh auth login" in said(found["signed-in"])
    assert found["scopes"].verdict is SKIPPED


async def test_a_missing_scope(examiner, account, monkeypatch):
    token = account.account.add_token(scopes=("repo", "gist"))
    from codespace_kernels.emulator import state

    monkeypatch.setattr(state, "emulator_token", lambda _: token.value)
    found = await examiner(examiner.subject(account.api_url), "codespaces")
    assert found["scopes"].verdict is FAIL
    assert "repo, gist" in said(found["scopes"])
    assert "-s codespace" in said(found["scopes"])
    assert found["codespaces"].verdict is SKIPPED


async def test_a_fine_grained_token(examiner, account, monkeypatch):
    token = account.account.add_token("fine-grained")
    from codespace_kernels.emulator import state

    monkeypatch.setattr(state, "emulator_token", lambda _: token.value)
    found = await examiner(examiner.subject(account.api_url), "codespaces", "connecting", "scopes")
    assert found["connecting"].verdict is FAIL
    assert found["scopes"].verdict is NOTE
    assert found["codespaces"].verdict is OK


@pytest.mark.parametrize(
    ("seconds", "verdict", "words"), [(60 * 86400, OK, "60 days"), (3 * 86400, NOTE, "3 days"), (-60, FAIL, "expired")]
)
async def test_expiry(look, account, seconds, verdict, words):
    account.faults.set("token-expiration", seconds=seconds)
    found = await look("expiry")
    assert found["expiry"].verdict is verdict
    assert words in said(found["expiry"])


@pytest.mark.parametrize("limit", ["primary", "secondary"])
async def test_a_used_up_rate_limit(look, account, limit):
    account.faults.set("rate-limit", limit=limit, on="user")
    began = time.monotonic()
    found = await look("codespaces")
    assert found["rate-limit"].verdict is FAIL
    assert "Try again after" in said(found["rate-limit"])
    assert found["signed-in"].verdict is SKIPPED
    # Everybody else would wait for a minute first.
    assert time.monotonic() - began < 50


class TestFewRequestsLeft:
    @pytest.fixture
    def emulator_options(self):
        return {"rate_limit": 100, "own_environment": False}

    async def test_note(self, examiner, emulator):
        found = await examiner(examiner.subject(emulator.api_url, emulator.environment()), "rate-limit")
        assert found["rate-limit"].verdict is NOTE


async def test_single_sign_on(look, account):
    account.faults.set("sso", on="list")
    found = await look("codespaces")
    assert found["sso"].verdict is FAIL
    assert "/sso?authorization_request" in said(found["sso"])
    assert found["codespaces"].verdict is SKIPPED


async def test_single_sign_on_of_some(look, account):
    account.faults.set("sso-partial", on="list")
    found = await look("codespaces")
    assert found["sso"].verdict is NOTE
    assert "4711" in said(found["sso"])
    assert found["codespaces"].verdict is OK


async def test_a_list_that_fails(look, account):
    account.faults.set("server-error", on="list", status=502)
    found = await look("codespaces")
    assert found["codespaces"].verdict is FAIL
    assert "502" in said(found["codespaces"])


async def test_none_at_all(look, account):
    codespaces = account.account.codespaces
    kept = dict(codespaces)
    codespaces.clear()
    try:
        found = await look("codespaces")
    finally:
        codespaces.update(kept)
    assert found["codespaces"].verdict is NOTE
    assert "create OWNER/REPO" in said(found["codespaces"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ghp_a", "classic"),
        ("gho_a", "OAuth app"),
        ("ghu_a", "for a user"),
        ("ghs_a", "installation"),
        ("github_pat_a", "fine-grained"),
        ("0123456789abcdef" * 2 + "01234567", "until 2021"),
        ("secret", "unknown"),
    ],
)
def test_kinds_of_tokens(value, words):
    assert words in kind_of(value)


async def test_a_token_of_actions_cannot_connect(examiner):
    found = await examiner(examiner.subject(env={"GH_TOKEN": "ghs_a"}), "connecting")
    assert found["connecting"].verdict is FAIL


GH = """#!{python}
import sys
print({answer!r} if "status" in sys.argv else "gh version 9.9.9 (2026-01-01)")
"""


SIGNED_IN = {"state": "success", "active": True, "login": "octocat", "tokenSource": "keyring"}


@pytest.mark.parametrize(
    ("accounts", "verdict", "words"),
    [
        ([{**SIGNED_IN, "scopes": "repo, codespace"}], OK, "codespace"),
        ([{**SIGNED_IN, "scopes": "repo"}], NOTE, "gh auth refresh -h github.com -s codespace"),
        ([{"state": "error", "active": True, "login": "", "tokenSource": "GH_TOKEN"}], NOTE, "does not accept"),
        ([], NOTE, "not signed in"),
    ],
)
async def test_gh_that_is_signed_in(examiner, tmp_path, accounts, verdict, words):
    # What the real one prints was seen with 2.103; to be signed in there takes github.com.
    program = tmp_path / "gh"
    program.write_text(GH.format(python=sys.executable, answer=json.dumps({"hosts": {"github.com": accounts}})))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    found = await examiner(examiner.subject(env={"PATH": str(tmp_path)}), "gh")
    assert found["gh"].verdict is verdict
    assert "9.9.9" in said(found["gh"])
    assert words in said(found["gh"])


async def test_the_real_gh_signed_out(examiner):
    found = await examiner(examiner.subject(), "gh")
    assert found["gh"].verdict is NOTE
    assert "not signed in to github.com" in said(found["gh"])


async def test_no_gh(examiner, tmp_path):
    found = await examiner(examiner.subject(env={"PATH": str(tmp_path)}), "gh")
    assert found["gh"].verdict is NOTE
    assert "not installed" in said(found["gh"])


async def test_pages_are_followed(examiner, account):
    async def add():
        return account.account.add_codespace(NewCodespace(account.account.repository("octocat/hello-codespaces")))

    async def remove(codespace):
        account.account.remove_codespace(codespace)

    subject = examiner.subject(account.api_url, account.environment())
    more = account.call(add())
    try:
        await examiner(subject, "token")
        subject.listed = await subject.api.ask("/user/codespaces", subject.token, {"per_page": "1"})
        finding = await codespaces(subject)
    finally:
        account.call(remove(more))
    assert finding.found.startswith("2 (")
    assert len({item["name"] for item in subject.codespaces}) == 2
