"""`ssh` and `logs`: a real SSH server in the emulated codespace."""

import json
import os
import signal
import subprocess
import termios

import pytest

from tests.terminals import Terminal

from .conftest import COMMAND, TIMEOUT, error_line, run_cli


@pytest.fixture
def name(own_account):
    """An account of the test's own, and its codespace."""
    (codespace,) = own_account.account.codespaces
    return codespace


def test_commands(name):
    done = run_cli("ssh", name, "--", "echo $CODESPACE_NAME; echo wrong >&2; exit 7")
    # The code is the command's, which `gh` does not pass on.
    assert (done.returncode, done.stdout) == (7, f"{name}\n")
    assert "wrong\n" in done.stderr
    told = run_cli("ssh", "--json", name, "--", "echo out; cat; echo err >&2; exit 7", stdin=None, input="in\n")
    assert told.returncode == 7
    assert json.loads(told.stdout) == {"codespace": name, "exit_code": 7, "stdout": "out\nin\n", "stderr": "err\n"}
    assert "Give one" in error_line(run_cli("ssh", "--json", name))
    several = run_cli("ssh", name, "--", "printf", "%s|", "a b", "$HOME")
    assert several.stdout == "a b|$HOME|"
    data = os.urandom(300_000).hex()
    assert run_cli("ssh", name, "--", "cat", stdin=None, input=data).stdout == data
    killed = run_cli("ssh", name, "--", "kill -9 $$")
    assert killed.returncode == 1
    assert "without an exit code" in error_line(killed)


def test_shell(name):
    with Terminal([*COMMAND, "ssh", name]) as terminal:
        terminal.type("PS1='rea''dy>'; echo size $(stty size) $TERM\n")
        terminal.wait_for("size 33 99 xterm-256color")
        termios.tcsetwinsize(terminal.leader, (20, 70))
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.type("while test \"$(stty size)\" != '20 70'; do sleep 0.02; done; echo resized\n")
        terminal.wait_for("resized")
        # A Ctrl-C is the remote command's. Python, since a shell may be anywhere between two commands when it comes.
        terminal.type("python3 -c \"import time; print('go' + 'ne', flush=True); time.sleep(1000)\"\n")
        terminal.wait_for("gone")
        terminal.type("\x03")
        terminal.wait_for("KeyboardInterrupt")
        terminal.wait_for("ready>")
        terminal.type("exit 3\n")
        assert terminal.wait() == 3
        assert termios.tcgetattr(terminal.follower) == terminal.settings


def test_logs(name):
    stopped = run_cli("logs", name)
    assert stopped.returncode == 1
    assert "stopped" in error_line(stopped).lower()
    assert run_cli("start", name).returncode == 0
    done = run_cli("logs", name)
    assert done.returncode == 0
    assert "Repository: octocat/hello-codespaces" in done.stdout
    assert "Container: ready" in json.loads(run_cli("logs", name, "--json").stdout)["log"]
    remove = 'rm "$(dirname "$CODESPACE_VSCODE_FOLDER")/.codespaces/.persistedshare/creation.log"'
    assert run_cli("ssh", name, "--", remove).returncode == 0
    gone = run_cli("logs", name)
    assert "no creation log" in error_line(gone)


def test_logs_follow(own_account, name):
    assert run_cli("start", name).returncode == 0
    folder = own_account.account.codespaces[name].folder
    log = folder / "workspaces" / ".codespaces" / ".persistedshare" / "creation.log"
    follow = subprocess.Popen([*COMMAND, "logs", name, "--follow"], stdout=subprocess.PIPE, text=True)
    try:
        assert "Repository" in follow.stdout.readline()
        with log.open("a") as file:
            file.write("one more line\n")
        while "one more line" not in (line := follow.stdout.readline()):
            assert line
    finally:
        follow.send_signal(2)
        assert follow.wait(TIMEOUT) == 130
        follow.stdout.close()
