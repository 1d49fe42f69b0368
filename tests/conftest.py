"""Every test run has a home of its own, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import psutil
import pytest

# No test asserts a time: this machine may have other things to do.
hypothesis.settings.register_profile("codespace-kernels", deadline=None)
hypothesis.settings.load_profile("codespace-kernels")

_FORGET = ("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN", "GH_HOST", "GITHUB_API_URL",
           "GITHUB_SERVER_URL", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_TOKEN",
           "CODESPACES", "CODESPACE_NAME", "SSH_AUTH_SOCK", "DISPLAY")  # fmt: skip


def _isolate(home: Path) -> None:
    for name in list(os.environ):
        if name in _FORGET or name.startswith("CODESPACE_KERNELS_"):
            del os.environ[name]
    (home / "run").mkdir(mode=0o700)
    os.environ.update(
        {
            "HOME": str(home),
            # Programs of this environment are found, as where it is activated.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "JUPYTER_DATA_DIR": str(home / "data" / "jupyter"),
            "JUPYTER_CONFIG_DIR": str(home / "config" / "jupyter"),
            "IPYTHONDIR": str(home / "ipython"),
            "GH_CONFIG_DIR": str(home / "config" / "gh"),
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_TELEMETRY": "0",
            "GH_PROMPT_DISABLED": "1",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
            "NO_COLOR": "1",
        }
    )


def pytest_configure(config: pytest.Config) -> None:
    """Move this process, and so all its children, into a home of its own before anything is imported."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A run that a script started in the background ignores it, and so would every program under test.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A short path: sockets live below it.
    home = Path(tempfile.mkdtemp(prefix="ckt-"))
    config.stash[_HOME] = home
    _isolate(home)


_HOME = pytest.StashKey[Path]()


def _left_behind(home: Path) -> list[psutil.Process]:
    """Processes, other than test workers, that live in this run's home."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("HOME") == str(home):
                left.append(process)
        except psutil.Error:
            continue
    return left


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a process of it outlives it."""
    home = session.config.stash[_HOME]
    if hasattr(session.config, "workerinput"):
        workers: set[int] = set()
    else:
        workers = {child.pid for child in psutil.Process().children(recursive=True)}
    deadline = time.monotonic() + 30
    while (left := [p for p in _left_behind(home) if p.pid not in workers]) and time.monotonic() < deadline:
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
