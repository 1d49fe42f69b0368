"""Every test run has a home of its own, and leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from pathlib import Path

import hypothesis
import psutil
import pytest

from tests.durations import longest_first
from tests.homes import isolate, living_in

# No test asserts a time: this machine may have other things to do.
hypothesis.settings.register_profile("codespace-kernels", deadline=None)
hypothesis.settings.load_profile("codespace-kernels")


def pytest_configure(config: pytest.Config) -> None:
    """Move this process, and so all its children, into a home of its own before anything is imported."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A run that a script started in the background ignores it, and so would every program under test.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A short path: sockets live below it.
    home = Path(tempfile.mkdtemp(prefix="ckt-"))
    config.stash[_HOME] = home
    isolate(home)


_HOME = pytest.StashKey[Path]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Try once more what drives whole front ends; what chaos finds would not be found again, and counts at once."""
    if hasattr(config, "workerinput"):
        items.sort(key=longest_first)
    for item in items:
        if item.get_closest_marker("e2e") is not None and "chaos" not in item.path.parts:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what went wrong in a first try: it may be a defect that is rare."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.line(f"-- {title}\n{text}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a process of it outlives it."""
    home = session.config.stash[_HOME]
    if hasattr(session.config, "workerinput"):
        workers: set[int] = set()
    else:
        workers = {child.pid for child in psutil.Process().children(recursive=True)}
    deadline = time.monotonic() + 30
    while (left := [p for p in living_in(home) if p.pid not in workers]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        try:
            print(f"\nleft behind: {process.pid} {' '.join(process.cmdline())[:300]}")
            process.kill()
        except psutil.Error:
            continue
    shutil.rmtree(home, ignore_errors=True)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def test_home(pytestconfig: pytest.Config) -> Path:
    """The home folder that this run's processes share."""
    return pytestconfig.stash[_HOME]
