from __future__ import annotations

import stat
import sys
import threading

import keyring
import keyring.backend
import pytest

from codespace_kernels.errors import BadTokenError, NoTokenError
from codespace_kernels.github import Token, token_sources
from codespace_kernels.github.keyrings import KeyringSource
from codespace_kernels.target import Account

GITHUB = Account()
SERVER = Account(api_url="https://ghe.example.com/api/v3")


class DictKeyring(keyring.backend.KeyringBackend):
    """A keyring of this test: the library's own way to bring a backend."""

    priority = 1

    def __init__(self, passwords):
        super().__init__()
        self.passwords = passwords

    def get_password(self, service, username):
        value = self.passwords.get((service, username))
        if callable(value):
            return value()
        return value

    def set_password(self, service, username, password):
        raise NotImplementedError


@pytest.fixture
def keyring_with():
    before = keyring.get_keyring()
    yield lambda passwords: keyring.set_keyring(DictKeyring(passwords))
    keyring.set_keyring(before)


@pytest.fixture
def gh_that(tmp_path):
    """A `gh` in a PATH of its own that runs the given shell line."""

    def make(line):
        script = tmp_path / "gh"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return make


NO_GH = {"PATH": "/nonexistent"}


async def found(account, env, token=None):
    return await token_sources(account, {**NO_GH, **env}, token).find()


async def test_order_explicit_then_environment_then_keyring(keyring_with):
    keyring_with({("codespace-kernels:github.com", ""): "own"})
    env = {"GH_TOKEN": "first", "GITHUB_TOKEN": "second"}
    assert (await found(GITHUB, env, "by-hand")).value == "by-hand"
    assert await found(GITHUB, env) == Token("first", "GH_TOKEN")
    assert (await found(GITHUB, {"GH_TOKEN": " ", "GITHUB_TOKEN": "second\n"})).value == "second"
    assert (await found(GITHUB, {})).value == "own"


async def test_tokens_of_one_kind_of_host_are_not_shown_to_the_other():
    env = {"GH_TOKEN": "hosted", "GH_ENTERPRISE_TOKEN": "server"}
    assert (await found(GITHUB, env)).value == "hosted"
    assert (await found(Account(api_url="https://api.acme.ghe.com"), env)).value == "hosted"
    assert (await found(SERVER, env)).value == "server"
    with pytest.raises(NoTokenError):
        await found(SERVER, {"GH_TOKEN": "hosted", "GITHUB_TOKEN": "hosted"})


async def test_the_process_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("GH_TOKEN", "of-the-broker")
    with pytest.raises(NoTokenError):
        await found(GITHUB, {})


async def test_gh_s_keyring_entry_after_our_own(keyring_with):
    keyring_with({("gh:github.com", ""): "active", ("gh:github.com", "hubot"): "go-keyring-base64:Z2hvX2h1Ym90"})
    assert (await found(GITHUB, {})).value == "active"
    assert (await found(Account(login="hubot"), {})).value == "gho_hubot"


@pytest.mark.parametrize("value", ['{"access_token": "x"}', "go-keyring-base64:%%%", ""])
async def test_a_keyring_entry_that_is_no_token_is_passed_over(keyring_with, value):
    keyring_with({("gh:github.com", ""): value})
    with pytest.raises(NoTokenError):
        await found(GITHUB, {})


async def test_a_broken_keyring_is_no_error(keyring_with):
    def broken():
        raise RuntimeError("locked")

    keyring_with({("codespace-kernels:github.com", ""): broken})
    assert await KeyringSource("github.com").find() is None


async def test_a_keyring_that_hangs_is_left_behind(keyring_with):
    unlocked = threading.Event()

    def hang():
        unlocked.wait(30)
        return "who waited is given this"

    keyring_with({("codespace-kernels:github.com", ""): hang})
    try:
        assert await KeyringSource("github.com", timeout=0.05).find() is None
    finally:
        unlocked.set()


async def test_gh_auth_token_is_asked_for_the_host_and_login(gh_that):
    env = gh_that('[ "$*" = "auth token -h ghe.example.com -u hubot" ] && echo from-gh')
    assert await found(Account(api_url=SERVER.api_url, login="hubot"), env) == Token("from-gh", "`gh auth token`")
    with pytest.raises(NoTokenError):
        await found(GITHUB, env)


async def test_gh_runs_in_the_asker_s_environment(gh_that, monkeypatch):
    monkeypatch.setenv("GH_CONFIG_DIR", "of-the-broker")
    env = gh_that('echo "token-${GH_CONFIG_DIR:-none}"')
    assert (await found(GITHUB, env)).value == "token-none"
    assert (await found(GITHUB, {**env, "GH_CONFIG_DIR": "asker"})).value == "token-asker"


@pytest.mark.parametrize("line", ["exit 1", "echo secret; exit 1", "echo 'two words'", "kill -9 $$"])
async def test_gh_without_a_token(gh_that, line):
    with pytest.raises(NoTokenError):
        await found(GITHUB, gh_that(line))


async def test_gh_that_hangs_is_ended(gh_that):
    from codespace_kernels.github.auth import GhSource

    assert await GhSource("github.com", gh_that("exec sleep 60"), timeout=0.2).find() is None


@pytest.mark.skipif(sys.platform == "win32", reason="PATH of a POSIX system")
async def test_the_real_gh(test_home, tmp_path):
    """The real program reads its own hosts file."""
    import os
    import shutil
    from pathlib import Path

    gh = shutil.which("gh") or shutil.which("gh", path=str(Path(sys.executable).parent))
    if gh is None:
        pytest.skip("gh is not installed")
    (tmp_path / "hosts.yml").write_text("ghe.example.com:\n  user: me\n  oauth_token: gho_stored\n")
    env = {**os.environ, "PATH": str(Path(gh).parent), "GH_CONFIG_DIR": str(tmp_path)}
    assert (await found(SERVER, env)).value == "gho_stored"
    with pytest.raises(NoTokenError):
        await found(GITHUB, env)


async def test_no_token_tells_what_was_tried_and_the_way_out():
    with pytest.raises(
        NoTokenError, match=r"GH_TOKEN, GITHUB_TOKEN, `codespace-kernels login`, the system keyring, `gh auth token`"
    ) as caught:
        await found(GITHUB, {})
    assert "gh auth login -h github.com -s codespace" in str(caught.value)
    with pytest.raises(NoTokenError, match="or set GH_ENTERPRISE_TOKEN"):
        await found(SERVER, {})


async def test_an_unusable_token_is_refused_without_being_shown():
    with pytest.raises(BadTokenError, match="GH_TOKEN") as caught:
        await found(GITHUB, {"GH_TOKEN": "gho_half\r\nX-Evil: 1"})
    assert "gho_half" not in str(caught.value)


def test_repr_hides_the_value(canary):
    token = Token(canary, "GH_TOKEN")
    assert canary not in repr(token)
    assert canary not in f"{token}"
    assert Token("github_pat_1", "x").fine_grained
    assert not token.fine_grained


async def test_no_emulator_at_the_address():
    with pytest.raises(NoTokenError, match="codespace-kernels emulator start"):
        await found(Account(api_url="http://127.0.0.1:9"), {"GH_TOKEN": "of-github"})


async def test_the_emulator_s_token_comes_before_a_server_s(emulator):
    account = Account(api_url=emulator.api_url)
    token = await found(account, {"GH_ENTERPRISE_TOKEN": "of-a-real-server"})
    assert token == Token(emulator.token, "the emulator's state")


async def test_an_emulator_s_state_that_cannot_be_read(emulator, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", "/dev/null/nowhere")
    token = await found(Account(api_url=emulator.api_url), {"GH_ENTERPRISE_TOKEN": "other"})
    assert token.value == "other"
