"""`codespace-kernel` before it asks the broker for anything, and what it says when that fails."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
import time

import pytest

from codespace_kernels import launcher, platforms
from codespace_kernels.errors import KernelStartError, SettingsError
from codespace_kernels.target import Account, Target

from .e2e.vscode import REWRITTEN

VSCODE_NAME = f"kernel-v3{'0123456789' * 4}.json"


@pytest.mark.parametrize(
    "text",
    [
        "The kernel ended: ModuleNotFoundError: No module named 'ipykernel'",
        "ImportError: DLL load failed while importing win32api: The specified module could not be found.",
        "ImportError: cannot import name 'constants' from partially initialized module 'zmq.backend.cython'",
        "it said ModuleNotFoundError",
    ],
)
def test_no_word_makes_vscode_give_advice_about_this_machine(text, capsys, monkeypatch):
    def fail(path):
        raise KernelStartError(text)

    monkeypatch.setattr(launcher, "run", fail)
    assert REWRITTEN.search(text)
    assert launcher.main(["-f", "x.json"]) == 1
    said = capsys.readouterr().err
    assert not REWRITTEN.search(said)
    assert said.startswith("KernelStartError: ")


def test_a_failure_is_one_line(capsys, monkeypatch):
    def fail(path):
        raise SettingsError("Two\nlines,\n\n  and more.")

    monkeypatch.setattr(launcher, "run", fail)
    assert launcher.main(["-f", "x.json"]) == 2
    assert capsys.readouterr().err == "SettingsError: Two lines, and more.\n"


def test_a_probe_for_an_interpreter_is_answered_with_silence(capsys):
    assert launcher.main(["-c", "print(1)"]) == 2
    assert capsys.readouterr() == ("", "")


def test_pip_makes_an_exe_of_it():
    """It does so of console scripts, and Node starts no other kind of program without a shell."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="codespace-kernel")
    assert script.load() is launcher.main


def test_a_person_who_gives_no_argument_is_told(capsys):
    with pytest.raises(SystemExit):
        launcher.main([])
    assert "CONNECTION_FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "goes"), [(VSCODE_NAME, True), ("kernel-1234.json", False), ("kernel-v3.json", False)]
)
def test_only_a_file_of_one_start_is_removed(tmp_path, name, goes):
    path = tmp_path / name
    path.touch()
    launcher.remove_connection_file(path)
    launcher.remove_connection_file(path)
    assert path.exists() != goes


@pytest.mark.parametrize("there", [["SIGTERM", "SIGHUP"], ["SIGTERM", "SIGBREAK"], ["SIGTERM"]])
def test_signals_that_a_platform_lacks_are_not_asked_for(monkeypatch, there):
    for name in ("SIGHUP", "SIGBREAK"):
        monkeypatch.delattr(signal, name, raising=False)
    for number, name in enumerate(there[1:], 60):
        monkeypatch.setattr(signal, name, number, raising=False)
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    told = []
    platforms.on_end_signals(lambda: told.append(1))
    assert list(handlers) == [getattr(signal, name) for name in there]
    for handler in handlers.values():
        handler(0, None)
    assert len(told) == len(there)


WATCH = """
import os, queue, sys
from codespace_kernels import parent, platforms
windows = "windows" in sys.argv
platforms.is_windows = lambda: windows
parent.INTERVAL = 0.05
ends = queue.SimpleQueue()
env = {"JPY_PARENT_PID": str(os.getppid())} if "jupyter" in sys.argv else {}
if "inherited" in sys.argv:
    env = {"JPY_PARENT_PID": "1"}
parent.call_at_end_of_parent(lambda: ends.put(None), env)
print("watching", flush=True)
try:
    ends.get(timeout=float(sys.argv[1]))
except queue.Empty:
    print("lives", flush=True)
else:
    print("told", flush=True)
"""


def watcher(seconds: float, *options: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WATCH, str(seconds), *options]
    process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "watching\n"
    return process


@pytest.mark.parametrize("options", [(), ("windows",), ("inherited",)])
def test_the_end_of_stdin_is_told(options):
    process = watcher(60, *options)
    assert process.communicate("what is written does not matter", timeout=60)[0] == "told\n"


@pytest.mark.parametrize(
    ("options", "stdin"),
    [(("jupyter",), subprocess.PIPE), (("jupyter", "windows"), subprocess.PIPE), ((), subprocess.DEVNULL)],
)
def test_where_stdin_says_nothing_its_end_is_none(options, stdin):
    """jupyter_client closes it at once; others give `/dev/null`."""
    process = watcher(0.5, *options, stdin=stdin)
    assert process.communicate(timeout=60)[0] == "lives\n"


BETWEEN = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
child.stdin.close()
sys.stdin.read()
"""


def test_under_jupyter_client_the_parent_is_looked_at():
    argv = [sys.executable, "-c", BETWEEN, sys.executable, "-c", WATCH, "60", "jupyter"]
    between = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert between.stdout.readline() == "watching\n"
    assert between.communicate(timeout=60)[0] == "told\n"


def test_keys_of_an_encrypted_connection_are_passed_on_and_not_shown():
    info = {
        **dict.fromkeys(launcher.PORT_NAMES, 9000),
        "key": "k",
        "curve_publickey": "public",
        "curve_secretkey": "canary",
    }
    target = Target(Account("github", "https://api.github.com", "octocat"), "hello-abc", "python3")
    request = launcher.kernel_request(info, target.to_env())
    assert (request.curve_publickey, request.curve_secretkey) == ("public", "canary")
    assert "canary" not in repr(request)


def test_a_process_knows_when_it_was_started_and_not_when_it_asked():
    code = "import time; time.sleep(0.3); from codespace_kernels.platforms import own_start; print(own_start())"
    before = time.time()
    started = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    after = time.time()
    # The system counts in ticks of a hundredth of a second; psutil, elsewhere than on Linux, from a whole second on.
    tolerance = 0.05 if sys.platform == "linux" else 1.0
    assert before - tolerance <= started <= after - 0.3 + tolerance
