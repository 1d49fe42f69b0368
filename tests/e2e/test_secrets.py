"""Everything that handles secrets is run once, under umask 0, with a broker that logs all it can: who sees what."""

from __future__ import annotations

import fnmatch
import re
import tempfile
from pathlib import Path

import pytest

from codespace_kernels.broker.loopback import Guard
from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.target import Account, Target

from .observed_run import INHERITED, ObservedRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.eyJ")
"""Tunnel tokens are such; each connection has others."""

MAY_HOLD = {
    "account's token": {"ck/data/emulators/*.json"},
    "login's access_token": {"ck/data/tokens/*.json"},
    "kernel's key": {"tmp/*.json", "ck/data/state/broker-state.json"},
}
"""Files that are there to hold a secret, all of mode 0600."""


@pytest.fixture(scope="module")
def run():
    with tempfile.TemporaryDirectory(prefix="ckt-") as home:
        run = ObservedRun(Path(home))
        run.go()
        yield run


def secrets_in(run: ObservedRun, text: str) -> list[str]:
    found = [name for name, value in run.secrets.items() if value in text]
    return found + (["a tunnel's token"] if JWT.search(text) else [])


def test_there_was_something_to_be_seen(run):
    """What follows cannot pass because nothing happened."""
    assert set(run.files_with) >= set(MAY_HOLD)
    assert {"Jupyter server's token", *MAY_HOLD, *INHERITED} - {"HTTPS_PROXY"} <= set(run.secrets)
    assert len(run.processes) >= 6
    assert len(run.inside) >= 3
    broker = run.outputs["broker"]
    # Every layer said what it does, libraries too.
    for logger in ("httpx", "httpcore", "codespace_kernels.ssh", "codespace_kernels.github", "asyncio"):
        assert f":{logger}" in broker, logger
    assert "Traceback" in broker
    assert 'RuntimeError("a defect")' in broker or "RuntimeError: a defect" in broker


def test_no_output_and_no_log_tells_a_secret(run):
    leaks = {what: found for what, text in run.outputs.items() if (found := secrets_in(run, text))}
    assert leaks == {}


def test_no_file_holds_a_secret_but_those_that_are_for_it(run):
    for secret, files in run.files_with.items():
        for file in files:
            assert any(fnmatch.fnmatch(file, allowed) for allowed in MAY_HOLD.get(secret, ())), (secret, file)
            assert run.modes[file] == 0o600, file


def test_no_argument_is_a_secret(run):
    assert not [process.arguments for process in (*run.processes, *run.inside) if secrets_in(run, process.arguments)]


def test_no_environment_holds_a_secret_but_that_of_whoever_was_given_it(run):
    strangers = [process for process in run.processes if not process.is_ours]
    found = {name for process in strangers for name in secrets_in(run, str(process.environment))}
    # A broker without it could not reach GitHub; its environment can be read by its user only.
    assert found <= {"proxy password"}


def test_the_codespace_is_told_nothing(run):
    for process in run.inside:
        assert not secrets_in(run, str(process.environment)), process.arguments
        assert "GH_ENTERPRISE_TOKEN" not in process.environment


def test_under_a_loose_umask_nobody_else_can_read_or_write(run):
    ours = {name: mode for name, mode in run.modes.items() if name.startswith(("ck", "run"))}
    assert len(ours) > 10
    assert {name: oct(mode) for name, mode in ours.items() if mode & 0o077} == {}
    kernels = {name: mode for name, mode in run.modes.items() if "/kernels" in name}
    assert any(name.endswith("kernel.json") for name in kernels)
    # They are no secret, but are run.
    assert {name: oct(mode) for name, mode in kernels.items() if mode & 0o022} == {}
    assert {name: oct(mode) for name, mode in run.codespace_modes.items() if mode & 0o077} == {}
    assert any(name.endswith(".sock") for name in run.codespace_modes)


def test_everything_listens_on_this_machine_only(run):
    listening = {address for process in run.processes for address in process.listens_on}
    assert listening == {"127.0.0.1"}
    # The broker's five sockets for the kernel are among them.
    assert any(len(process.listens_on) == 5 for process in run.processes if "broker" in process.arguments)


def test_what_is_printed_of_objects_that_hold_secrets():
    access = Access(Account(), {"GH_TOKEN": "c4nary"})
    request = KernelRequest(Target(Account(), "w", "k"), access, key="c4nary")
    assert "c4nary" not in repr([access, request, Guard(1, "c4nary")])
