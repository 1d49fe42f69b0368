"""Who we are to GitHub: no token, a wrong one, no GitHub at all."""

import json

import pytest

from .conftest import error_line, run_cli


def test_no_token_for_github():
    done = run_cli("list")
    assert done.returncode == 4
    line = error_line(done)
    assert "No GitHub token for github.com" in line
    assert "gh auth login" in line


@pytest.mark.parametrize("verb", ["list", "connect", "stop", "create"])
def test_no_token_whatever_the_verb(verb, codespace):
    arguments = {"list": (), "create": ("octocat/hello-codespaces", "--yes")}.get(verb, (codespace,))
    done = run_cli(verb, *arguments, env={"GH_ENTERPRISE_TOKEN": ""})
    assert done.returncode == 4
    assert "No GitHub token for 127.0.0.1" in error_line(done)
    assert done.stdout == ""


@pytest.mark.parametrize("verb", ["list", "connect"])
def test_wrong_token(verb, codespace):
    token = "ghp_thisTokenIsWrong0123456789abcdefghij"
    done = run_cli(verb, *([] if verb == "list" else [codespace]), "--debug", env={"GH_ENTERPRISE_TOKEN": token})
    assert done.returncode == 4
    assert "GH_ENTERPRISE_TOKEN" in done.stderr.splitlines()[-1]
    assert token not in done.stdout + done.stderr


def test_token_that_is_none():
    done = run_cli("list", env={"GH_TOKEN": "two\nlines"})
    assert done.returncode == 4
    assert "GH_TOKEN" in error_line(done)


@pytest.mark.parametrize("verb", ["list", "connect"])
def test_emulator_that_has_ended(verb, own_account):
    (name,) = own_account.account.codespaces
    own_account.close()
    done = run_cli(verb, *([] if verb == "list" else [name]))
    assert done.returncode == 1
    assert own_account.api_url.removeprefix("http://") in error_line(done)


def test_token_of_the_emulator_is_found_without_a_variable(own_account, monkeypatch):
    monkeypatch.delenv("GH_ENTERPRISE_TOKEN")
    monkeypatch.delenv("GITHUB_API_URL")
    done = run_cli("list", "--json", "--api-url", own_account.api_url)
    assert done.returncode == 0
    assert {entry["name"] for entry in json.loads(done.stdout)["codespaces"]} == set(own_account.account.codespaces)


def test_half_written_state_file_is_no_obstacle(own_account, home):
    (home / "home" / "emulators" / "1.json").write_text('{"api_url": "http://127')
    done = run_cli("list")
    assert done.returncode == 0
    assert done.stdout


def test_taken_port(own_account):
    port = own_account.api_url.rpartition(":")[2]
    done = run_cli("emulator", "start", "--port", port)
    assert done.returncode == 1
    assert port in error_line(done)


def test_no_emulator_to_stop():
    done = run_cli("emulator", "stop")
    assert done.returncode == 1
    assert "No emulator is running" in error_line(done)
