"""An emulated account that is examined, in folders of each test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from codespace_kernels import settings
from codespace_kernels.broker.protocol import Access
from codespace_kernels.doctor.checks import all_checks
from codespace_kernels.doctor.examination import examine
from codespace_kernels.doctor.findings import Check, Result
from codespace_kernels.doctor.subject import Subject
from codespace_kernels.target import Account


@pytest.fixture(scope="session")
def emulator_options():
    return {"transition_seconds": 0.02, "own_environment": False}


@pytest.fixture(autouse=True)
def home(monkeypatch):
    # A short path: sockets live below it.
    folder = Path(tempfile.mkdtemp(prefix="ckd-"))
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(folder / "home"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "jupyter"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    yield folder
    runtime = settings.runtime_dir()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def account(shared_emulator):
    """The account that all tests here share, well again at the end."""
    yield shared_emulator
    shared_emulator.faults.clear()


@pytest.fixture
def codespace(account) -> str:
    (name,) = account.account.codespaces
    return name


class Examiner:
    """Makes some of the checks, with those that they need."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []

    def subject(self, api_url: str = "https://api.github.com", env=None, **kwargs) -> Subject:
        account = Account(api_url=api_url)
        environment = {**os.environ, **(env or {})}
        self.subjects.append(Subject(Access.of(account, environment), environment, **kwargs))
        return self.subjects[-1]

    async def __call__(self, subject: Subject, *names: str) -> dict[str, Result]:
        checks = _with_needs(all_checks(named=bool(subject.name)), set(names))
        return {result.check.name: result async for result in examine(checks, subject)}


def _with_needs(checks: list[Check], names: set[str]) -> list[Check]:
    known = {check.name: check for check in checks}
    wanted: set[str] = set()
    while names:
        wanted |= names
        names = {need for name in names for need in (*known[name].needs, *known[name].after) if need in known} - wanted
    return [check for check in checks if check.name in wanted]


@pytest.fixture
async def examiner():
    made = Examiner()
    yield made
    for subject in made.subjects:
        await subject.close()


@pytest.fixture
def look(examiner, account):
    """Make checks of the emulated account."""

    async def look_at(*names: str, env=None, **kwargs) -> dict[str, Result]:
        environment = {**account.environment(), **(env or {})}
        return await examiner(examiner.subject(account.api_url, environment, **kwargs), *names)

    return look_at


def said(result: Result) -> str:
    """All that a result tells, in one text."""
    return " | ".join(f"{finding.subject} {finding.found} {finding.fix}" for finding in result.findings)
