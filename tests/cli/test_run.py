"""`run` before anything is made: what is checked, and what is asked."""

from __future__ import annotations

import nbformat
import pytest

from codespace_kernels.cli.run_notebook import NotebookFile
from codespace_kernels.errors import SettingsError
from codespace_kernels.remote_kernel import RemoteKernelSpec
from tests.terminals import Terminal

from .conftest import COMMAND, error_line, run_cli

REPOSITORY = "octocat/hello-codespaces"
KERNELS = {
    name: RemoteKernelSpec(name, name, language)
    for name, language in {"python3": "python", "python312": "python", "ir": "R"}.items()
}


def notebook(tmp_path, **metadata):
    path = tmp_path / "in.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")], metadata=metadata), path)
    return path


@pytest.fixture
def nothing_made(own_account):
    """The account of this test's own has what it had, and no broker was needed to find that out."""
    before = {name: one.state.value for name, one in own_account.account.codespaces.items()}
    yield
    assert {name: one.state.value for name, one in own_account.account.codespaces.items()} == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file"),
        ("", "is no notebook"),
        ("{", "is no notebook"),
        ("[]", "is no notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "what"}]}', "is no notebook"),
        (b"\xff\xfe", "is no notebook"),
    ],
)
def test_what_is_no_notebook(tmp_path, content, text):
    path = tmp_path / "in.ipynb"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=text) as caught:
        NotebookFile(path, tmp_path / "out.ipynb")
    assert str(path) in str(caught.value)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_made(nothing_made, tmp_path):
    path = notebook(tmp_path)
    done = run_cli("run", str(path), "--repo", REPOSITORY, "--yes", "--output", str(tmp_path / "no" / "out.ipynb"))
    assert done.returncode == 2
    assert "No such file" in error_line(done)
    done = run_cli("run", str(path), "--repo", REPOSITORY, "--yes", "--output", str(tmp_path))
    assert "is a folder" in error_line(done)


NOT_TO_BE_HAD = [
    (["--repo", "octocat/nowhere"], 1, "octocat/nowhere"),
    (["--repo", "nowhere"], 2, "OWNER/REPO"),
    (["--repo", REPOSITORY, "--machine", "cray"], 2, "premiumLinux (8 cores"),
    (["--repo", REPOSITORY, "--branch", "nowhere"], 2, "no branch 'nowhere'"),
    (["--repo", REPOSITORY, "--machine", "premiumLinux", "--idle-timeout", "1"], 2, "5 to 240"),
    (["--codespace", "nowhere"], 3, "nowhere"),
    (["--codespace", "hello", "--machine", "premiumLinux"], 2, "--machine is for --repo"),
]


def test_what_is_not_to_be_had(nothing_made, tmp_path):
    # In one test: they share a broker, whose end takes longer than any of them.
    path = str(notebook(tmp_path))
    for options, code, text in NOT_TO_BE_HAD:
        done = run_cli("run", path, *options, "--yes", "--then", "delete")
        assert (options, done.returncode, done.stdout) == (options, code, "")
        assert text in error_line(done)
    done = run_cli("run", path, "--repo", REPOSITORY, "--machine", "premiumLinux")
    assert done.returncode == 2
    assert "8 cores; octocat pays, $0.72/h" in done.stderr
    assert "--yes" in error_line(done)
    command = [*COMMAND, "run", path, "--repo", REPOSITORY, "--machine", "premiumLinux"]
    with Terminal(command, columns=160, TERM="xterm", COLUMNS="160") as terminal:
        terminal.wait_for("octocat pays, $0.72/h")
        terminal.wait_for("Create one? [y/N]")
        terminal.type("n\n")
        terminal.wait_for("Nothing was created, and nothing was run.")
        assert terminal.wait() == 1


@pytest.mark.parametrize(
    ("metadata", "wanted", "chosen"),
    [
        ({}, "", "python3"),
        ({}, "ir", "ir"),
        ({"kernelspec": {"name": "python312", "display_name": "x"}}, "", "python312"),
        ({"kernelspec": {"name": "gone", "display_name": "x", "language": "R"}}, "", "ir"),
        ({"kernelspec": {"name": "gone", "display_name": "x"}, "language_info": {"name": "r"}}, "", "ir"),
    ],
)
def test_which_kernel_runs_it(tmp_path, metadata, wanted, chosen):
    assert NotebookFile(notebook(tmp_path, **metadata), tmp_path / "out").kernel(wanted, KERNELS) == chosen


@pytest.mark.parametrize(("metadata", "wanted"), [({}, "gone"), ({"language_info": {"name": "julia"}}, "")])
def test_no_kernel_that_could_run_it(tmp_path, metadata, wanted):
    with pytest.raises(SettingsError, match="ir, python3, python312"):
        NotebookFile(notebook(tmp_path, **metadata), tmp_path / "out").kernel(wanted, KERNELS)


def test_writing_keeps_the_mode_of_a_file_and_leaves_nothing_beside_it(tmp_path):
    path = notebook(tmp_path)
    path.chmod(0o640)
    file = NotebookFile(path, path)
    file.notebook.cells[0].source = "2"
    file.write()
    assert nbformat.read(path, 4).cells[0].source == "2"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.ipynb"]
