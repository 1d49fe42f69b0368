"""`run`: a notebook, a codespace that is found or made for it, and what becomes of that, however the run ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from codespace_kernels import kernelspecs

from .clients import execute, running_kernel
from .conftest import cli, wait_until
from .empty_account import REPOSITORY, empty_account

pytestmark = pytest.mark.e2e

MACHINE = "standardLinux32gb"
EXAMPLE = Path(__file__).parents[2] / "examples" / "hello-codespace.ipynb"
WHERE = "import os; print(os.environ['CODESPACE_NAME'])"


@pytest.fixture(scope="module")
def account():
    with empty_account() as account:
        yield account


@pytest.fixture
def emptied(account):
    yield account
    account.empty()


class Notebook:
    """A notebook in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "in.ipynb"
        self.output = folder / "in.executed.ipynb"

    def write(self, *cells: str) -> None:
        """Give it these cells."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        nbformat.write(book, self.path)

    def command(self, *options: str) -> list[str]:
        """The command that runs it where there is a machine of `MACHINE`."""
        wanted = ["--repo", REPOSITORY, "--machine", MACHINE, "--yes", "--json"]
        return ["run", str(self.path), *wanted, *options]

    def run(self, *options: str, code: int = 0) -> dict:
        """Run it; give what `--json` says."""
        done = cli(*self.command(*options))
        assert done.returncode == code
        self.stderr = done.stderr
        return json.loads(done.stdout)

    @property
    def texts(self) -> list[str]:
        """What each cell printed."""
        cells = nbformat.read(self.output, 4).cells
        return ["".join(output.get("text", "") for output in cell.get("outputs", [])) for cell in cells]


@pytest.fixture
def notebook(tmp_path) -> Notebook:
    return Notebook(tmp_path)


def test_it_creates_one_and_stops_it_and_the_next_run_takes_it_again(emptied, notebook):
    notebook.write("print('first')", WHERE)
    result = notebook.run("--then", "stop")
    (made,) = emptied.states
    assert notebook.texts == ["first\n", f"{made}\n"]
    assert (result["codespace"], result["created"]) == (made, True)
    assert (result["cells"], result["executed"], result["failed_cell"]) == (2, 2, None)
    assert result["then"] == {"asked": "stop", "done": "stopped", "why": ""}
    assert result["cost"]["dollars_per_hour"] == 0.36
    lines = notebook.stderr.splitlines()
    assert f"A codespace of {REPOSITORY} ({MACHINE}): 4 cores; octocat pays, $0.36/h." in lines
    assert "Cell 1 of 2: print('first') …" in lines
    # The answer is that GitHub has taken the request.
    wait_until(lambda: emptied.states == {made: "Shutdown"}, "the codespace to stop")
    assert not kernelspecs.kernels_dir().exists()

    # A cell that fails ends the run; what was there before is not deleted, but stopped.
    notebook.write("print('before')", "1 / 0", "print('after')")
    result = notebook.run("--then", "delete", code=1)
    assert (result["codespace"], result["created"]) == (made, False)
    assert notebook.texts == ["before\n", "", ""]
    failed = result["failed_cell"]
    assert (failed["number"], failed["index"], failed["ename"]) == (2, 1, "ZeroDivisionError")
    assert (result["cells"], result["executed"]) == (3, 2)
    assert notebook.stderr.splitlines()[-1] == "Error: Cell 2 failed: ZeroDivisionError: division by zero"
    assert "1 / 0" in notebook.stderr
    assert result["then"] == {"asked": "delete", "done": "stopped", "why": "it was there before this run"}
    wait_until(lambda: emptied.states == {made: "Shutdown"}, "the codespace to stop")


def test_a_codespace_that_others_use_goes_on(emptied, notebook):
    name = emptied.create(MACHINE)
    done = cli("connect", name, "--kernel", "python3", "--json")
    spec = json.loads(done.stdout)["kernelspecs"][0]["name"]
    notebook.write("1 / 0", "print('after')", "import time; time.sleep(60)")

    async def while_another_kernel_runs() -> None:
        async with running_kernel(spec) as (_, client):
            await execute(client, "1")
            result = notebook.run("--then", "stop", "--allow-errors", "--timeout", "2", code=1)
            assert result["then"]["done"] == "kept"
            assert "others use it: python3, idle" in result["then"]["why"]
            assert (result["executed"], result["failed_cell"]["ename"]) == (2, "CellTimeoutError")

    asyncio.run(while_another_kernel_runs())
    assert notebook.texts == ["", "after\n", ""]
    assert emptied.states == {name: "Available"}
    assert cli("disconnect", name, "--yes").returncode == 0


def test_two_at_once_make_one(emptied, notebook, tmp_path):
    (tmp_path / "two").mkdir()
    notebooks = [notebook, Notebook(tmp_path / "two")]
    for one in notebooks:
        shutil.copy(EXAMPLE, one.path)
    command = [sys.executable, "-m", "codespace_kernels.cli"]
    runs = [subprocess.Popen([*command, *one.command()], stdout=subprocess.PIPE, text=True) for one in notebooks]
    results = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    (made,) = emptied.states
    for one in notebooks:
        assert f"Codespace       {made}\n" in "".join(one.texts)
    assert sorted(result["created"] for result in results) == [False, True]
    assert {result["then"]["done"] for result in results} == {"kept"}


class Running:
    """A run that is going on."""

    def __init__(self, *arguments: str) -> None:
        # As from a shell: a script that pytest was started from in the background may have them ignore Ctrl-C.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "codespace_kernels.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, text: str) -> None:
        """Wait until it says this."""
        for line in self.process.stderr:
            print(line, end="")
            if text in line:
                return
        raise AssertionError(f"It ended without a word of {text!r}")

    def end(self, number: int) -> dict:
        """Send a signal; give what `--json` says of it."""
        os.kill(self.process.pid, number)
        stdout, stderr = self.process.communicate(timeout=60)
        print(stderr)
        assert self.process.returncode == 130
        assert stderr.splitlines()[-1] == "Error: Interrupted."
        return json.loads(stdout)


def test_an_interrupted_run_keeps_what_was_printed_and_stops_the_codespace(emptied, notebook):
    notebook.write("print('before')", "print('begun', flush=True); import time; open('begun', 'w'); time.sleep(60)")
    running = Running(*notebook.command("--then", "stop", "--inplace"))
    running.wait_for("Cell 2 of 2")
    (made,) = emptied.states
    wait_until(lambda: list(Path(emptied.folder(made)).rglob("begun")), "the cell to begin")
    result = running.end(signal.SIGTERM)
    notebook.output = notebook.path
    assert notebook.texts == ["before\n", "begun\n"]
    assert (result["executed"], result["failed_cell"]) == (1, None)
    assert result["then"]["done"] == "stopped"
    wait_until(lambda: emptied.states == {made: "Shutdown"}, "the codespace to stop")


@pytest.fixture
def interrupted(emptied, notebook):
    """Interrupt a run by Ctrl-C while its codespace is being created."""

    def interrupt() -> dict:
        emptied.set("create-accepted")
        emptied.set("slow-start", seconds=6)
        notebook.write("1")
        running = Running(*notebook.command("--then", "delete"))
        running.wait_for("Creating codespace")
        (made,) = emptied.states
        result = running.end(signal.SIGINT)
        assert (result["codespace"], result["created"], result["output"]) == (made, True, None)
        assert not notebook.output.exists()
        return result

    return interrupt


def test_what_is_made_while_it_is_interrupted_is_deleted(emptied, interrupted):
    assert interrupted()["then"]["done"] == "deleted"
    assert emptied.states == {}


def test_unsaved_changes_are_kept_and_a_codespace_that_cannot_be_stopped_is_named(emptied, interrupted):
    emptied.set("unsaved-changes")
    emptied.set("server-error", on="stop", status=503)
    then = interrupted()["then"]
    assert then["done"] == ""
    (made,) = emptied.states
    assert f"codespace-kernels stop {made}" in then["why"]
