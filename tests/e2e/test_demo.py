"""README's first command, as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from .conftest import run, wait_until

pytestmark = pytest.mark.e2e

COMMAND = (sys.executable, "-m", "codespace_kernels.cli", "demo")


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A folder for temporary files and a home that the demo must leave as they were; a mark in its environment."""
    # A short path: sockets live below it.
    folder = Path(tempfile.mkdtemp(prefix="ckx-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    for name in ("GITHUB_API_URL", "GH_ENTERPRISE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CODESPACE_KERNELS_HOME", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    yield folder
    folder.rmdir()


def processes_of(place: Path) -> list[psutil.Process]:
    """Processes whose environment names the place, wherever they were started from."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("TMPDIR") == str(place):
                found.append(process)
        except psutil.Error:
            continue
    return found


def nothing_is_left(place: Path) -> bool:
    return not processes_of(place) and not list(place.iterdir())


def fact(text: str, name: str) -> list[str]:
    """What the notebook's first cell printed under a name: in the codespace, and on this machine."""
    return [found.strip(" │") for found in re.findall(rf"^│ {name} +(.*)$", text, re.MULTILINE)]


def test_proves_where_the_notebook_ran(place):
    done = run(*COMMAND, timeout=170)
    assert done.returncode == 0
    for name in ("Codespace", "Host name", "Home folder", "Working folder", "Python"):
        there, here = fact(done.stdout, name)
        assert there != here
    assert re.match("hello-codespaces-", fact(done.stdout, "Codespace")[0])
    assert re.match("codespaces-", fact(done.stdout, "Host name")[0])
    assert fact(done.stdout, "Home folder")[1] == os.environ["HOME"]
    assert fact(done.stdout, "Python")[1].startswith(sys.executable)
    assert "Sum of squares  332,833,500" in done.stdout
    assert "jupyter nbconvert --to notebook --execute" in done.stdout
    assert nothing_is_left(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["Connecting", "Executing"])
def test_interrupted(place, number, moment):
    process = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with process, process.stderr as shown:
        for line in shown:
            if line.startswith(moment):
                break
        process.send_signal(number)
        rest = shown.read()
    print(rest)
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "Error: Interrupted."
    assert nothing_is_left(place)


def test_kept_until_it_is_ended(place):
    done = run(*COMMAND, "--keep", timeout=170)
    assert done.returncode == 0
    try:
        spec = place / "jupyter_data_dir" / "kernels" / "cs-octocat-hello-codespaces-python3"
        assert spec.exists()
        ends = re.findall(r"^  \S*codespace-kernels (disconnect .*|emulator stop)$", done.stdout, re.MULTILINE)
        for line in ends:
            assert run(*COMMAND[:-1], *line.split()).returncode == 0
        assert not list(spec.parent.iterdir())
    finally:
        run(*COMMAND[:-1], "quit")
    wait_until(lambda: not processes_of(place), "all processes to end")
    assert not list(place.glob("ck[a-z]*-*"))
    run("rm", "-rf", *(str(path) for path in place.iterdir()))
