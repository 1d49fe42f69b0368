"""`login` and `logout` against an emulated account."""

import json
import os
import re
import subprocess

import httpx
import pytest

from .conftest import COMMAND, TIMEOUT, error_line, run_cli


@pytest.fixture
def no_keyring(monkeypatch):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.delenv("CODESPACE_KERNELS_CLIENT_ID", raising=False)


def status(**env: str) -> dict:
    return json.loads(run_cli("login", "--status", "--json", env=env).stdout)


def test_a_token_that_is_there_will_do(own_account, no_keyring):
    done = run_cli("login")
    assert done.returncode == 0
    assert "Signed in to 127.0.0.1 as octocat, by the emulator's state." in done.stderr
    assert status()["scopes"] == ["codespace"]


def test_without_a_client_id(own_account, no_keyring):
    done = run_cli("login", "--force")
    assert done.returncode == 2
    assert "--client-id" in error_line(done)


def test_signing_in_and_out(own_account, no_keyring, home):
    env = {**os.environ, "CODESPACE_KERNELS_CLIENT_ID": "Iv1.client"}
    process = subprocess.Popen(
        [*COMMAND, "login", "--force", "--insecure-storage"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    line = process.stderr.readline()
    while "enter the code" not in line:
        line = process.stderr.readline()
    page, code = re.search(r"Open (\S+) and enter the code (\S+)", line).groups()
    assert httpx.post(page, data={"user_code": code}, trust_env=False).status_code == 200
    _, rest = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, rest
    assert "as octocat, by `codespace-kernels login`" in rest
    (file,) = (home / "home" / "tokens").glob("*.json")
    secret = json.loads(file.read_text())["access_token"]
    assert secret not in rest + line
    assert status()["source"] == "`codespace-kernels login`"
    assert run_cli("list").returncode == 0

    done = run_cli("logout")
    assert done.returncode == 0
    assert not file.exists()
    assert status()["source"] == "the emulator's state"
    assert "nobody" in run_cli("logout").stderr


def test_turned_down(own_account, no_keyring):
    own_account.faults.set("login-error", None, error="incorrect_client_credentials", count=1)
    done = run_cli("login", "--force", "--client-id", "x", "--insecure-storage")
    assert done.returncode == 4
    assert "client id" in error_line(done)


@pytest.mark.parametrize(
    ("kind", "scopes", "said"),
    [("fine-grained", (), "fine-grained"), ("classic", ("repo",), "gh auth refresh")],
)
def test_a_token_that_will_not_do(own_account, no_keyring, home, kind, scopes, said):
    token = own_account.account.add_token(kind, scopes)
    file = home / "home" / "tokens" / f"{own_account.api_url.removeprefix('http://').replace(':', '_')}.json"
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_text(json.dumps({"access_token": token.value}))
    done = run_cli("login", "--status", "--json")
    assert done.returncode == 4
    standing = json.loads(done.stdout)
    assert said in standing["problem"]
    assert standing["login"] == "octocat"
    assert token.value not in done.stdout + done.stderr


def test_a_token_that_github_refuses(own_account, no_keyring):
    own_account.faults.set("unauthorized", None)
    done = run_cli("login", "--status")
    assert done.returncode == 4
    assert "does not accept the token" in done.stderr
