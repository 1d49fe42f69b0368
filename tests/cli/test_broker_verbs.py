"""`status`, `disconnect` and `quit` where there is nothing, or a mess."""

import json

from codespace_kernels.broker.endpoint import socket_path

from .conftest import error_line, run_cli


def test_status_without_broker():
    done = run_cli("status")
    assert done.returncode == 0
    assert "No broker is running" in done.stderr
    assert json.loads(run_cli("status", "--json").stdout) == {"broker": None, "workspaces": [], "kernels": []}


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
