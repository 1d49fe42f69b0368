"""A workspace puts nothing on this machine's disk that a front end would run, or that acts on a terminal."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from codespace_kernels import kernelspecs, offered_specs
from codespace_kernels.offered_specs import accepted
from codespace_kernels.plain_text import harmless, one_line
from codespace_kernels.providers.base import Workspace, WorkspaceState
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.target import Account, Target

WORKSPACE = Workspace("hello-abc", "hello", WorkspaceState.RUNNING, "Available", repository="octocat/ml")
EVIL = json.dumps({"argv": ["touch", "/tmp/owned"], "display_name": "evil", "env": {"X": "${HOME}"}}).encode()


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def write(spec: RemoteKernelSpec) -> Path:
    (folder,) = kernelspecs.write(WORKSPACE, {Target(Account(), WORKSPACE.name, spec.name): spec}).values()
    return folder


@pytest.mark.parametrize(
    "name", ["${GH_TOKEN}", "$HOME", "../../x", "a/b", "a\\b", "..", "", "a b", "a\n", "ü", "x" * 101]
)
def test_names_that_are_more_than_names(name):
    assert accepted([RemoteKernelSpec(name, "P", "python")]) == {}


def test_variables_of_this_machine_get_into_nothing(monkeypatch):
    monkeypatch.setenv("GH_TOKEN", "c4nary")
    (spec,) = accepted([RemoteKernelSpec("k", "${GH_TOKEN}", "${GH_TOKEN}")]).values()
    assert spec.language == ""
    assert "${GH_TOKEN}" not in str(kernelspecs.spec_content(Target(Account(), "w", spec.name), spec, "shown")["env"])


@pytest.mark.parametrize("wash", [True, False])
@pytest.mark.parametrize(
    "file", ["kernel.json", "x/kernel.json", "../../kernel.json", "kernel.js", "kernel.css", "..", ""]
)
def test_files_that_front_ends_run(file, wash, data_dir):
    """Both who takes an offer and who writes it leave them out: the second may be told by another process."""
    spec = RemoteKernelSpec("k", "K", "python", resources={file: EVIL, "logo-64x64.png": b"\x89PNG"})
    folder = write(accepted([spec])["k"] if wash else spec)
    assert sorted(path.name for path in data_dir.rglob("*") if path.is_file()) == ["kernel.json", "logo-64x64.png"]
    assert KernelSpecManager().get_kernel_spec(folder.name).argv == kernelspecs.ARGV


def test_metadata_that_chooses_what_runs():
    evil = {"kernel_provisioner": {"provisioner_name": "local-provisioner"}, "debugger": {"a": 1}, "x": "y"}
    metadata = json.loads(
        (write(accepted([RemoteKernelSpec("k", "K", "r", metadata=evil)])["k"]) / "kernel.json").read_text()
    )["metadata"]
    assert metadata["kernel_provisioner"]["provisioner_name"] == "codespace-kernels"
    assert set(metadata) == {"kernel_provisioner", "codespace_kernels", "supported_encryption"}


def test_what_is_too_much_is_left_out(caplog):
    huge = RemoteKernelSpec(
        "huge", "x" * 1_000_000, "python", resources={"logo-64x64.png": bytes(offered_specs.MAX_LOGO + 1)}
    )
    (spec,) = accepted([huge]).values()
    assert (len(spec.display_name), spec.resources) == (100, {})
    many = [RemoteKernelSpec(f"k{number}", "K", "python") for number in range(1000)]
    assert len(accepted(many)) == offered_specs.MOST
    assert "offers 1000 kernelspecs" in caplog.text


def test_what_acts_on_a_terminal_is_not_shown():
    evil = "Py\x1b]0;owned\x07thon\x9b2J\r\n\u202e3"
    (spec,) = accepted([RemoteKernelSpec("k", evil, "python")]).values()
    assert spec.display_name == "Py?]0;owned?thon?2J ?3"
    assert harmless("a\tb\nc é 日本 · ✓") == "a\tb\nc é 日本 · ✓"
    assert one_line("a\n b " * 1000, 5) == "a b …"


def test_nobody_else_may_write_what_is_run_here(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "new" / "data"))
    before = os.umask(0)
    try:
        folder = write(RemoteKernelSpec("k", "K", "python", resources={"logo-64x64.png": b"\x89PNG"}))
    finally:
        os.umask(before)
    for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
