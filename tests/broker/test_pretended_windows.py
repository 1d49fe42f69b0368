"""The broker where there is neither fork nor Unix socket nor a loop with readers and signal handlers."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from codespace_kernels import platforms
from tests.broker.test_process import ended, wait_until
from tests.pretended_windows import pretended_windows

APART = platforms.DETACHED_PROCESS | platforms.CREATE_NEW_PROCESS_GROUP


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home))
    return home


def python(code, env):
    source = f"from codespace_kernels.broker.client import BrokerClient; client = BrokerClient(); {code}"
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    print(done.stderr)
    return done


@pytest.fixture
def broker(home, tmp_path, request):
    """A broker's process, and the environment of its clients."""
    env = pretended_windows(tmp_path, job_holds_on=getattr(request, "param", False))
    done = python("client.ensure(); print(client.call('GET', '')['pid'])", env)
    assert done.returncode == 0
    process = psutil.Process(int(done.stdout))
    yield process, env
    if not ended(process.pid):
        assert python("client.call('POST', 'quit', {})", env).returncode == 0
    wait_until(lambda: ended(process.pid), "the broker to end")
    assert not (home / "run" / "broker.json").exists()


def test_is_found_and_is_nobodys_child(broker, home):
    process, env = broker
    assert json.loads((home / "run" / "broker.json").read_text())["pid"] == process.pid
    assert not (home / "run" / "broker.sock").exists()
    assert process.ppid() != os.getpid()
    assert process.cwd() == str(home / "state")
    assert "--detached" in process.cmdline()
    assert python("client.ensure(); print(client.call('GET', '')['pid'])", env).stdout.strip() == str(process.pid)


@pytest.mark.parametrize(
    ("broker", "tries"),
    [
        (False, [APART | platforms.CREATE_BREAKAWAY_FROM_JOB]),
        (True, [APART | platforms.CREATE_BREAKAWAY_FROM_JOB, APART]),
    ],
    indirect=["broker"],
)
def test_leaves_console_group_and_job(broker, tmp_path, tries):
    starter, *tried = [int(line, 16) for line in (tmp_path / "flags").read_text().split()]
    assert starter == platforms.CREATE_NO_WINDOW | platforms.CREATE_NEW_PROCESS_GROUP
    assert tried == tries


def test_ends_when_it_is_told_to(broker):
    process, _ = broker
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ended(process.pid), "the broker to end")


def test_second_one_refuses(broker):
    _, env = broker
    for how in ("--daemon", "--detached"):
        command = [sys.executable, "-m", "codespace_kernels.broker", how]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3
        assert "Another broker of this user is alive" in done.stdout + done.stderr


def test_one_that_cannot_start_says_why(home, tmp_path):
    env = pretended_windows(tmp_path)
    (home / "state").mkdir()
    (tmp_path / "tornado.py").write_text("raise RuntimeError('no tornado today')")
    assert "no tornado today" in python("client.ensure()", env).stderr.splitlines()[-1]


@pytest.mark.parametrize("verb", ["demo", "emulator"])
def test_emulator_says_that_it_cannot_run(tmp_path, verb):
    command = [sys.executable, "-m", "codespace_kernels.cli", verb, "--keep"]
    done = subprocess.run(
        command, env=pretended_windows(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "runs on Linux and macOS only" in done.stderr


def test_windowless_interpreter_is_used_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(platforms, "is_windows", lambda: True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python.exe"))
    assert platforms.background_python() == sys.executable
    (tmp_path / "pythonw.exe").touch()
    assert platforms.background_python() == str(tmp_path / "pythonw.exe")
