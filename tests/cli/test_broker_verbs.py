"""`status`, `disconnect` and `quit` where there is nothing, or a mess."""

import json
import signal
import subprocess

from codespace_kernels.broker.endpoint import socket_path
from tests.terminals import Terminal

from .conftest import COMMAND, TIMEOUT, error_line, run_cli


def test_status_without_broker():
    done = run_cli("status")
    assert done.returncode == 0
    assert "No broker is running" in done.stderr
    assert json.loads(run_cli("status", "--json").stdout) == {"broker": None, "workspaces": [], "kernels": []}


class TestWatch:
    def test_lines_for_programs(self):
        command = [*COMMAND, "status", "--watch", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert json.loads(process.stdout.readline()) == {"broker": None, "workspaces": [], "kernels": []}
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, errors) == (0, b"")

    def test_drawn_in_a_terminal(self, codespace):
        with Terminal([*COMMAND, "status", "--watch"]) as shown:
            shown.wait_for("No broker is running")
            assert run_cli("connect", "nowhere").returncode == 3
            shown.wait_for("Nothing is connected")
            shown.process.send_signal(signal.SIGINT)
            assert shown.wait() == 0

    def test_needs_a_terminal(self):
        done = run_cli("status", "--watch")
        assert done.returncode == 2
        assert "--json" in error_line(done)


def test_socket_file_of_a_killed_broker():
    socket_path().touch()
    assert "No broker is running" in run_cli("status").stderr


def test_quit_without_broker():
    done = run_cli("quit")
    assert done.returncode == 0
    assert "No broker" in done.stderr


def test_disconnect_from_what_is_not_connected(codespace):
    done = run_cli("disconnect", codespace)
    assert done.returncode == 3
    assert codespace in error_line(done)


def test_broker_that_a_verb_started_is_ended_by_quit(codespace):
    assert run_cli("connect", "nowhere").returncode == 3
    status = json.loads(run_cli("status", "--json").stdout)
    assert status["broker"]["pid"]
    assert status["kernels"] == []
    assert "Nothing is connected" in run_cli("status").stderr
    assert "ended" in run_cli("quit").stderr
    assert json.loads(run_cli("status", "--json").stdout)["broker"] is None
