"""`list`, `create` and `stop` against an emulated account."""

import json

import pytest

from codespace_kernels.providers.base import Workspace
from tests.terminals import Terminal

from .conftest import COMMAND, TIMEOUT, error_line, run_cli

REPOSITORY = "octocat/hello-codespaces"


def in_terminal(*arguments: str, answer: str = "") -> tuple[int, str]:
    """Run the command line in a terminal of its own; give its exit code and what stood there."""
    with Terminal([*COMMAND, *arguments], columns=160, TERM="xterm", COLUMNS="160") as terminal:
        terminal.type(answer)
        shown = terminal.read_to_end()
        code = terminal.process.wait(TIMEOUT)
    print(shown)
    return code, shown


def test_list_json_shape(codespace):
    done = run_cli("list", "--json")
    (entry,) = json.loads(done.stdout)["codespaces"]
    assert set(entry) == {
        "name", "title", "state", "provider_state", "repository", "ref", "machine", "idle_timeout_minutes",
        "last_used_at", "web_url", "billable_owner", "machine_name", "devcontainer_path", "location", "created_at",
        "retention_period_minutes", "stop_notice", "idle_timeout_notice",
        "has_uncommitted_changes", "has_unpushed_changes", "cores", "dollars_per_hour",
    }  # fmt: skip
    assert (entry["name"], entry["repository"], entry["ref"]) == (codespace, REPOSITORY, "main")
    assert Workspace.from_json(entry).billable_owner == "octocat"


def test_list_for_programs(codespace):
    (line,) = run_cli("list").stdout.splitlines()
    assert line.split("\t")[:3] == [codespace, REPOSITORY, "main"]


def test_list_for_people(codespace):
    code, shown = in_terminal("list")
    assert code == 0
    assert "REPOSITORY" in shown
    assert codespace in shown


class TestWithoutCodespaces:
    @pytest.fixture(scope="class")
    @classmethod
    def emulator_options(cls):
        return {"codespaces": 0, "transition_seconds": 0.1}

    def test_list(self, own_account):
        done = run_cli("list")
        assert (done.returncode, done.stdout) == (0, "")
        assert "codespace-kernels create" in done.stderr
        assert json.loads(run_cli("list", "--json").stdout) == {"codespaces": []}


def test_stop_unknown(codespace):
    done = run_cli("stop", "nowhere")
    assert done.returncode == 3
    assert codespace in error_line(done)


def test_stop_a_stopped_one(own_account):
    (name,) = own_account.account.codespaces
    done = run_cli("stop", name)
    assert done.returncode == 0
    assert "stopped already" in done.stderr


def test_stop_a_running_one(own_account):
    name = run_cli("create", REPOSITORY, "--yes", "--machine", "basicLinux32gb", "--no-wait").stdout.strip()
    made = own_account.account.codespaces[name]
    own_account.call(made.settled())
    assert made.state.value == "Available"
    done = run_cli("stop", name, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["codespace"]["name"] == name
    own_account.call(made.settled())
    assert made.state.value == "Shutdown"
