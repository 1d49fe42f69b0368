"""Which files of tests take long: with `-n` they begin first, so that no processor is idle while the last one ends.

By itself, pytest runs the fast ones first.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SECONDS = {
    "e2e/browser/test_codespaces.py": 160,
    "e2e/test_asleep.py": 140,
    "e2e/test_idle.py": 140,
    "e2e/browser/test_abilities.py": 120,
    "e2e/test_kept.py": 110,
    "e2e/test_broker_dies.py": 80,
    "e2e/test_vscode.py": 65,
    "e2e/test_recipes.py": 60,
    "e2e/test_life_and_death.py": 55,
    "e2e/test_killed_in_output.py": 55,
    "e2e/test_weaker_ways.py": 50,
    "e2e/test_front_ends.py": 50,
    "e2e/test_run.py": 50,
    "e2e/test_demo.py": 50,
    "e2e/test_kernel.py": 45,
    "e2e/test_abilities.py": 45,
    "e2e/browser/test_waiting.py": 45,
    "e2e/browser/test_notebook.py": 40,
    "e2e/test_cli.py": 40,
    "e2e/test_lost_connections.py": 35,
    "e2e/test_secrets.py": 35,
    "e2e/test_broker_shared.py": 35,
    "e2e/test_usage.py": 30,
    "e2e/test_working_folder.py": 20,
    "e2e/browser/test_kept.py": 20,
    "e2e/browser/test_jupyterlab.py": 20,
    "e2e/test_loopback_broker.py": 20,
    "e2e/test_languages.py": 17,
    "e2e/test_vscode_abilities.py": 17,
    "remote/test_versions.py": 75,
    "remote/test_kernels.py": 60,
    "chaos/test_chaos.py": 55,
    "jupyter/test_websocket.py": 55,
    "cli/test_create.py": 50,
    "cli/test_doctor.py": 50,
    "cli/test_shell.py": 50,
    "emulator/test_daemon.py": 50,
    "remote/test_server.py": 40,
    "jupyter/test_through_bridge.py": 40,
    "cli/test_run.py": 40,
    "broker/test_process.py": 30,
    "broker/test_loopback.py": 30,
    "cli/test_account.py": 30,
    "remote/test_reconnect.py": 30,
    "cli/test_care.py": 25,
    "cli/test_login.py": 25,
    "doctor/test_codespace.py": 25,
    "jupyter/test_rest.py": 25,
    "providers/test_connecting.py": 25,
    "benchmarks/test_run.py": 20,
    "lab/test_requests.py": 20,
    "emulator/test_tunnel_host.py": 20,
    "ssh/test_connection.py": 20,
    "emulator/test_gh_inside.py": 17,
    "remote/test_last_words.py": 17,
    "emulator/test_rest_codespaces.py": 16,
    "emulator/test_sshd.py": 16,
    "bridge/test_request_log.py": 15,
    "emulator/test_services.py": 15,
    "emulator/test_machine.py": 14,
    "bridge/test_real_kernel.py": 14,
    "broker/test_pretended_windows.py": 13,
    "broker/test_watching.py": 12,
    "bridge/test_bridge.py": 12,
    "link/test_signs_of_life.py": 11,
    "remote/test_over_ssh.py": 11,
    "cli/test_broker_verbs.py": 10,
}
"""Of the longest files, on two cores, roughly: only their order counts. `--durations=0` tells them anew."""


def longest_first(item: pytest.Item) -> tuple[bool, int]:
    """Give what to sort by: what shares the end-to-end tests' account stays together, then the longest file first."""
    path = item.path.relative_to(TESTS)
    return "e2e" not in path.parts, -SECONDS.get(path.as_posix(), 0)
