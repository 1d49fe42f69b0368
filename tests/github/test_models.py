from __future__ import annotations

import pytest

from codespace_kernels.github import (
    Codespace,
    CodespaceState,
    Devcontainer,
    Machine,
    Phase,
    Repository,
    TunnelProperties,
)

TUNNEL = {
    "connectAccessToken": "connect-CANARY",
    "managePortsAccessToken": "ports-CANARY",
    "serviceUri": "http://127.0.0.1:1/",
    "tunnelId": "t",
    "clusterId": "127",
    "domain": "d",
}


def test_a_codespace_in_full():
    codespace = Codespace.from_json(
        {
            "name": "hello-1",
            "display_name": "hello",
            "state": "Available",
            "repository": {"id": 7, "full_name": "octocat/hello"},
            "git_status": {"ref": "main", "has_uncommitted_changes": True},
            "owner": {"login": "octocat"},
            "billable_owner": {"login": "acme"},
            "machine": {"name": "basicLinux32gb", "display_name": "2 cores, 8 GB RAM, 32 GB storage", "cpus": 2},
            "idle_timeout_minutes": 30,
            "last_used_at": "2026-01-01T00:00:00Z",
            "pending_operation": None,
            "connection": {"tunnelProperties": TUNNEL},
            "something_new": [1],
        }
    )
    assert (codespace.repository, codespace.repository_id, codespace.ref) == ("octocat/hello", 7, "main")
    assert (codespace.owner, codespace.billable_owner) == ("octocat", "acme")
    assert codespace.machine is not None
    assert codespace.machine.cpus == 2
    assert codespace.has_uncommitted_changes
    assert not codespace.pending_operation
    assert codespace.phase is Phase.READY
    assert codespace.tunnel == TunnelProperties(
        "connect-CANARY", "ports-CANARY", "http://127.0.0.1:1/", "t", "127", "d"
    )


def test_tunnel_tokens_are_not_shown():
    codespace = Codespace.from_json({"connection": {"tunnelProperties": TUNNEL}})
    assert "CANARY" not in repr(codespace)


@pytest.mark.parametrize("missing", TUNNEL)
@pytest.mark.parametrize("value", ["", None, 5])
def test_a_tunnel_is_complete_or_none(missing, value):
    codespace = Codespace.from_json({"connection": {"tunnelProperties": {**TUNNEL, missing: value}}})
    assert codespace.tunnel is None
    assert codespace.has_connection


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"state": None, "machine": None, "git_status": None, "connection": None, "repository": "x"},
        {"idle_timeout_minutes": True, "connection": [], "owner": 5, "machine": {}},
    ],
)
def test_missing_and_odd_fields_are_no_error(data):
    codespace = Codespace.from_json(data)
    assert codespace.state is CodespaceState.UNKNOWN
    assert codespace.machine is None
    assert codespace.idle_timeout_minutes is None
    assert not codespace.has_connection


def test_there_are_17_states_and_each_has_a_phase():
    assert len(CodespaceState) == 17
    phases = {state.value: Codespace.from_json({"state": state.value}).phase for state in CodespaceState}
    assert phases["Shutdown"] is Phase.STOPPED
    assert phases["ShuttingDown"] is Phase.DOWN
    assert phases["Rebuilding"] is Phase.BUSY
    assert phases["Starting"] is Phase.UP
    terminal = {name for name, phase in phases.items() if phase is Phase.TERMINAL}
    assert terminal == {"Failed", "Unavailable", "Deleted", "Moved", "Archived", "Unknown"}


def test_a_state_that_came_later_is_waited_for():
    codespace = Codespace.from_json({"state": "Hibernating"})
    assert codespace.state is CodespaceState.UNKNOWN
    assert codespace.state_text == "Hibernating"
    assert codespace.phase is Phase.BUSY


def test_machine_without_display_name():
    machine = Machine.from_json({"name": "m", "cpus": 4, "memory_in_bytes": 17179869184})
    assert machine.title == "4 cores, 16 GB RAM"
    assert Machine.from_json({"name": "m"}).title == "m"


def test_devcontainer_and_repository():
    assert Devcontainer.from_json({"path": ".devcontainer/devcontainer.json"}).is_default
    assert not Devcontainer.from_json({"path": ".devcontainer/gpu/devcontainer.json", "name": "gpu"}).is_default
    repository = Repository.from_json({"id": 1, "full_name": "a/b", "default_branch": "main", "private": True})
    assert repository == Repository(1, "a/b", "main", private=True)
