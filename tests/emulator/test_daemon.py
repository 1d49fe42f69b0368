from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import httpx
import psutil
import pytest

from codespace_kernels.emulator import emulator_token
from codespace_kernels.emulator.__main__ import main
from codespace_kernels.processes import wait_for_end
from tests.processes import name_of


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of this test's own, so that it meets no emulator of another test."""
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path))
    return tmp_path


def run_process(*verb: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "codespace_kernels.emulator", *verb],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run(*verb: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line in this process, which is faster."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(verb)
    return subprocess.CompletedProcess(verb, status, out.getvalue(), err.getvalue())


class Started:
    """An emulator that was started by the command line."""

    def __init__(self, *options: str) -> None:
        done = run("start", "--json", "--transition-seconds", "0.05", *options)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        self.environment = answer["environment"]
        self.api_url = answer["api_url"]
        self.process = psutil.Process(answer["pid"])

    def run(self, *verb: str) -> subprocess.CompletedProcess[str]:
        return run(*verb, environment=self.environment)

    def status(self) -> dict:
        return json.loads(self.run("status", "--json").stdout)

    def request(self, method: str, path: str) -> httpx.Response:
        headers = {"Authorization": f"token {self.environment['GH_ENTERPRISE_TOKEN']}"}
        return httpx.request(method, self.api_url + path, headers=headers, trust_env=False)


@contextlib.contextmanager
def started(*options: str) -> Iterator[Started]:
    emulator = Started(*options)
    try:
        yield emulator
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            emulator.process.kill()
            wait_for_end([emulator.process], 60)
        run("stop")


def with_running_codespace(emulator: Started) -> list[psutil.Process]:
    """Start the codespace and something in it by the real `gh`; gives the processes inside."""
    name = emulator.status()["codespaces"][0]["name"]
    subprocess.run(
        [
            Path(sys.executable).with_name("gh"),
            "codespace",
            "ssh",
            "-c",
            name,
            "--",
            "nohup sleep 1000 >/dev/null 2>&1 &",
        ],
        env={**os.environ, **emulator.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=True,
    )
    folder = emulator.status()["folder"]
    inside = [process for process in psutil.process_iter() if belongs(process, folder)]
    assert any("sleep" in name_of(process) for process in inside)
    return inside


def belongs(process: psutil.Process, folder: str) -> bool:
    try:
        return process.environ().get("HOME", "").startswith(folder)
    except psutil.Error:
        return False


def gone(processes: list[psutil.Process]) -> bool:
    return not wait_for_end(processes, 60)


def test_start_prints_what_a_shell_can_eval(home):
    done = run_process("start")
    try:
        script = f"{done.stdout}\necho $GITHUB_API_URL $GH_ENTERPRISE_TOKEN"
        url, token = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=60).stdout.split()
        assert httpx.get(f"{url}/user", headers={"Authorization": f"token {token}"}, trust_env=False).status_code == 200
        assert emulator_token(url) == token
        assert done.stderr == ""
    finally:
        assert run("stop").returncode == 0


def test_the_life_of_an_emulator_in_the_background(home):
    with started("--codespaces", "3", "--repository", "octocat/one", "--repository", "octo-org/two") as emulator:
        assert os.getpgid(emulator.process.pid) != os.getpgrp()
        status = emulator.status()
        assert status["repositories"] == ["octocat/one", "octo-org/two"]
        assert [codespace["repository"] for codespace in status["codespaces"]] == [
            "octocat/one",
            "octo-org/two",
            "octocat/one",
        ]
        assert status["codespaces"][0]["name"] in emulator.run("status").stdout
        folder = Path(status["folder"])
        assert folder.is_dir()
        stopped = run("stop")
        assert stopped.returncode == 0
        assert emulator.api_url in stopped.stdout
        assert gone([emulator.process])
        assert not folder.exists()
        assert list((home / "emulators").iterdir()) == []
        again = run("stop")
        assert again.returncode == 1
        assert again.stderr.count("\n") == 1
        assert "No emulator is running" in again.stderr


def test_secrets_stand_in_no_argv_and_in_a_private_file(home):
    with started() as emulator:
        (state,) = (home / "emulators").iterdir()
        data = json.loads(state.read_text())
        secrets = {data["token"], data["secret"], emulator.environment["GH_ENTERPRISE_TOKEN"]}
        assert stat.S_IMODE(state.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
        emulator.request("GET", "/user")
        seen = [" ".join(emulator.process.cmdline()), emulator.run("status", "--json").stdout]
        seen += [log.read_text() for log in (home / "state" / "emulators").iterdir()]
        assert any("GET /user" in text for text in seen)
        assert not [secret for secret in secrets if any(secret in text for text in seen)]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"token {data['token']}"}):
            for method, path in (("GET", "status"), ("POST", "stop"), ("POST", "faults"), ("DELETE", "faults")):
                answer = httpx.request(method, f"{emulator.api_url}/_emulator/{path}", headers=headers, trust_env=False)
                assert answer.status_code == 403


def test_faults_by_command_line(home):
    with started() as emulator:
        name = emulator.status()["codespaces"][0]["name"]
        url = f"/user/codespaces/{name}"
        assert emulator.run("fault", "state", "--codespace", name, "--option", "state=Failed").returncode == 0
        assert emulator.run("fault", "server-error", "--option", "status=502", "--option", "count=1").returncode == 0
        assert [fault["kind"] for fault in emulator.status()["faults"]] == ["state", "server-error"]
        assert emulator.request("GET", url).status_code == 502
        assert emulator.request("GET", url).json()["state"] == "Failed"
        assert emulator.run("fault", "--clear").returncode == 0
        assert emulator.request("GET", url).json()["state"] == "Shutdown"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["rain"], 1, "rain"),
        (["state", "--option", "colour=red"], 1, "colour"),
        (["state", "--option", "state"], 2, "NAME=VALUE"),
        (["state", "--codespace", "nobody"], 1, "nobody"),
        ([], 2, "--clear"),
    ],
)
def test_a_fault_that_cannot_be_is_one_clear_sentence(emulator, arguments, status, words):
    done = run("fault", *arguments, environment=emulator.environment())
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_stop_ends_every_process_in_every_codespace(home):
    with started() as emulator:
        inside = with_running_codespace(emulator)
        assert run("stop").returncode == 0
        assert gone([*inside, emulator.process])


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_what_a_killed_emulator_left_is_cleaned_up(home, verb):
    with started() as emulator:
        inside = with_running_codespace(emulator)
        folder = Path(emulator.status()["folder"])
        emulator.process.kill()
        assert gone([emulator.process])
        assert any(process.is_running() for process in inside)
        assert emulator_token(emulator.api_url) is None
        done = run(verb)
        assert done.returncode == 0, done.stderr
        assert gone(inside)
        assert not folder.exists()


def test_a_hanging_emulator_is_ended(home, monkeypatch):
    from codespace_kernels.emulator import control, daemon
    from codespace_kernels.emulator.state import find_record

    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(daemon, "STOP_SECONDS", 0.2)
    with started() as emulator:
        emulator.process.send_signal(signal.SIGSTOP)
        daemon.stop(find_record())
        assert gone([emulator.process])
        assert list((home / "emulators").iterdir()) == []


def test_a_taken_port_is_one_clear_sentence(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for verb in ("start", "run"):
            done = run_process(verb, "--port", port)
            assert done.returncode == 1
            assert done.stdout == ""
            assert done.stderr.startswith(f"Error: Port {port} of 127.0.0.1 is taken.")
            assert done.stderr.count("\n") == 1
    assert list((home / "emulators").iterdir()) == []


@pytest.mark.parametrize("torn", ['{"api_url": "http://127.0.0.1:1", "tok', "[]", "{}", '{"api_url": 5}'])
def test_a_torn_state_file_is_set_aside(home, torn):
    folder = home / "emulators"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(torn)
    done = run_process("status")
    assert done.returncode == 1
    assert "set aside" in done.stderr
    assert "No emulator is running" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "1.broken").read_text() == torn
    with started() as emulator:
        assert emulator.status()["api_url"] == emulator.api_url


def test_which_emulator_is_meant(home):
    with started() as one, started() as two:
        assert one.status()["api_url"] == one.api_url
        assert two.status()["api_url"] == two.api_url
        undecided = run("status")
        assert undecided.returncode == 1
        assert one.api_url in undecided.stderr
        assert two.api_url in undecided.stderr
        nowhere = run("status", environment={"GITHUB_API_URL": "http://127.0.0.1:1"})
        assert nowhere.returncode == 1
        assert "http://127.0.0.1:1" in nowhere.stderr
        assert one.run("stop").returncode == 0
        assert run("status", environment={"GITHUB_API_URL": "https://api.github.com"}).returncode == 0
        assert two.run("stop").returncode == 0


def test_run_stays_in_the_foreground_until_it_is_interrupted(home):
    process = subprocess.Popen(
        [sys.executable, "-m", "codespace_kernels.emulator", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = process.stdout.readline()
        assert first.startswith("export GITHUB_API_URL=")
        url = first.split("=")[1].rstrip(";\n")
        assert httpx.get(f"{url}/user", trust_env=False).status_code == 401
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "GET /user 401" in log
    assert "Traceback" not in log
    assert list((home / "emulators").iterdir()) == []


def test_an_emulator_inside_another_program_can_be_told_to_end(home, emulator):
    deadline = time.monotonic() + 60
    done = run("stop", environment=emulator.environment())
    assert done.returncode == 0, done.stderr
    while emulator.emulator.record.path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.api_url, trust_env=False)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--port", "70000"], 2, "65535"),
        (["--codespaces", "-1"], 2, "negative"),
        (["--repository", "nonsense"], 1, "OWNER/NAME"),
        (["--repository", "a/b", "--repository", "A/B"], 1, "already"),
        (["--folder", "/dev/null/folder"], 1, "/dev/null/folder"),
    ],
)
def test_options_that_cannot_be_leave_nothing_behind(home, monkeypatch, tmp_path_factory, options, status, words):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    done = run("start", *options)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(temporary.iterdir()) == []
    assert list((home / "emulators").glob("*")) == []


def test_a_folder_of_the_users_own_stays_and_belongs_to_one_emulator(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    with started("--folder", str(folder)) as emulator:
        assert emulator.status()["folder"] == str(folder)
        second = run("start", "--folder", str(folder))
        assert second.returncode == 1
        assert emulator.api_url in second.stderr
        assert emulator.run("stop").returncode == 0
    assert folder.is_dir()


def test_a_signal_ends_it_in_good_order(home):
    with started() as emulator:
        folder = Path(emulator.status()["folder"])
        emulator.process.terminate()
        assert gone([emulator.process])
        assert not folder.exists()
        assert list((home / "emulators").iterdir()) == []
