"""`view`, `start`, `edit`, `rebuild`, `delete` and `open` against an emulated account."""

import json
import os
import stat
from pathlib import Path

import pytest

from codespace_kernels.cli.view import facts
from codespace_kernels.providers.base import Workspace, WorkspaceState

from .conftest import error_line, run_cli
from .test_codespaces import REPOSITORY, in_terminal


@pytest.fixture
def made(own_account):
    """The codespace of an account of the test's own, stopped."""
    (codespace,) = own_account.account.codespaces.values()
    return codespace


def running(own_account, made):
    assert run_cli("start", made.name).returncode == 0
    assert made.state.value == "Available"


def spec_folder(home: Path, name: str) -> Path:
    """Write a kernelspec of a codespace, as `connect` does; give its folder."""
    env = {"CODESPACE_KERNELS_API_URL": os.environ["GITHUB_API_URL"], "CODESPACE_KERNELS_WORKSPACE": name,
           "CODESPACE_KERNELS_KERNEL": "python3"}  # fmt: skip
    folder = home / "jupyter" / "kernels" / "cs-hello-python3"
    folder.mkdir(parents=True)
    content = {"argv": ["codespace-kernel", "-f", "{connection_file}"], "display_name": "x", "language": "python",
               "env": env, "metadata": {"codespace_kernels": {}}}  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


class TestView:
    def test_for_programs(self, made):
        shown = json.loads(run_cli("view", REPOSITORY, "--json").stdout)
        assert shown["codespace"]["name"] == made.name
        assert shown["codespace"]["machine_name"] == "basicLinux32gb"
        assert (shown["kernels"], shown["kernelspecs"]) == ([], [])
        assert (shown["usage"]["dollars_per_hour"], shown["usage"]["session_dollars"]) == (0.18, None)

    def test_for_people(self, made):
        code, shown = in_terminal("view", made.name)
        assert code == 0
        lines = {line.split("  ")[0]: line.partition("  ")[2].strip() for line in shown.splitlines()}
        assert lines["Repository"] == REPOSITORY
        assert lines["Idle timeout"] == "30 minutes"
        assert lines["Deleted after"] == "30 days"
        assert lines["Paid by"] == "octocat"
        assert lines["Price"] == "$0.18 an hour"
        assert "This month" not in lines
        assert "Changes" not in lines

    def test_unsaved_changes(self, own_account, made):
        own_account.faults.set("unsaved-changes", made.name)
        assert "Changes\tuncommitted changes and unpushed commits\n" in run_cli("view", made.name).stdout

    def test_a_workspace_of_which_little_is_known(self):
        known = [fact for fact in facts(Workspace("w", "w", WorkspaceState.RUNNING, "up")) if fact[1]]
        assert known == [("Name", "w"), ("State", "up")]

    def test_unknown(self, made):
        done = run_cli("view", "nowhere")
        assert done.returncode == 3
        assert made.name in error_line(done)


class TestStart:
    def test_twice(self, made):
        shown = json.loads(run_cli("start", made.name, "--json").stdout)
        assert shown["codespace"]["state"] == "running"
        assert made.state.value == "Available"
        assert "runs already" in run_cli("start", made.name).stderr

    def test_nobody_pays(self, own_account, made):
        own_account.faults.set("payment", made.name)
        done = run_cli("start", made.name)
        assert done.returncode == 1
        assert made.name in error_line(done)

    def test_too_slow(self, own_account, made):
        own_account.faults.set("slow-start", made.name, seconds=60.0)
        done = run_cli("start", made.name, "--timeout", "1")
        assert done.returncode == 1
        assert "1 s" in error_line(done)


class TestEdit:
    def test_everything(self, made):
        done = run_cli("edit", made.name, "--machine", "standardLinux32gb", "--idle-timeout", "90", "--display-name",
                       "Tea pot", "--json")  # fmt: skip
        assert done.returncode == 0
        entry = json.loads(done.stdout)["codespace"]
        assert (entry["machine_name"], entry["idle_timeout_minutes"]) == ("standardLinux32gb", 90)
        assert (made.display_name, made.machine_type.name) == ("Tea pot", "standardLinux32gb")
        assert "stop and a start" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "Nothing is to be changed"),
            (("--idle-timeout", "4"), "5 to 240"),
            (("--display-name", "x" * 49), "48"),
            (("--machine", "cray"), "basicLinux32gb"),
        ],
    )
    def test_what_cannot_be(self, made, arguments, said):
        done = run_cli("edit", made.name, *arguments)
        assert done.returncode == 2
        assert said in error_line(done)

    def test_pending_operation(self, own_account, made):
        own_account.faults.set("pending-operation", made.name)
        done = run_cli("edit", made.name, "--idle-timeout", "60")
        assert done.returncode == 1
        assert "being updated" in error_line(done)

    def test_machine_of_a_running_one(self, own_account, made):
        running(own_account, made)
        assert "stop and a start" in run_cli("edit", made.name, "--machine", "standardLinux32gb").stderr


def test_rebuild(own_account, made):
    running(own_account, made)
    left = made.folder / "home" / "left"
    left.write_text("lost by a rebuild")
    done = run_cli("rebuild", made.name, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["codespace"]["state"] == "running"
    assert made.state.value == "Available"
    assert not left.exists()


class TestDelete:
    def test_needs_consent(self, own_account, made):
        done = run_cli("delete", made.name)
        assert done.returncode == 2
        assert "--yes" in error_line(done)
        assert own_account.account.codespaces

    def test_takes_the_kernelspecs_along(self, own_account, made, home):
        folder = spec_folder(home, made.name)
        done = run_cli("delete", made.name, "--yes", "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"deleted": made.name, "kernelspecs": [folder.name]}
        assert not own_account.account.codespaces
        assert not folder.exists()

    @pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("\n", 1, 1)])
    def test_asks_and_says_what_is_lost(self, own_account, made, answer, code, left):
        own_account.faults.set("unsaved-changes", made.name)
        ended, shown = in_terminal("delete", made.name, answer=answer)
        assert ended == code
        assert "uncommitted changes and unpushed commits" in shown
        assert len(own_account.account.codespaces) == left

    def test_unsaved_changes_need_more_than_yes(self, own_account, made):
        own_account.faults.set("unsaved-changes", made.name)
        done = run_cli("delete", made.name, "--yes")
        assert done.returncode == 2
        assert "--discard-changes" in error_line(done)
        assert own_account.account.codespaces
        assert run_cli("delete", made.name, "--yes", "--discard-changes").returncode == 0
        assert not own_account.account.codespaces


class TestOpen:
    def test_address(self, codespace):
        url = run_cli("open", codespace, "--print").stdout.strip()
        assert url.startswith("http")
        assert codespace in url
        assert json.loads(run_cli("open", codespace, "--json").stdout) == {"url": url}

    def test_browser(self, codespace, tmp_path):
        browser = tmp_path / "browser"
        browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/seen\n')
        browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
        done = run_cli("open", codespace, env={"BROWSER": str(browser)})
        assert (done.returncode, done.stdout) == (0, "")
        assert codespace in (tmp_path / "seen").read_text()
