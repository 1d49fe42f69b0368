"""What a killed front end leaves is removed, and nothing else."""

from __future__ import annotations

import json

import pytest

from codespace_kernels.broker.connection_files import remove_left_over


@pytest.mark.parametrize(
    ("text", "stays"),
    [(json.dumps({"key": "ours"}), False), (json.dumps({"key": "theirs"}), True), ("[]", True), ("{", True)],
)
def test_only_the_kernels_own_file_is_removed(tmp_path, text, stays):
    path = tmp_path / "kernel-1.json"
    path.write_text(text)
    remove_left_over(str(path), "ours")
    assert path.exists() is stays


@pytest.mark.parametrize("name", ["", "missing.json", "."])
def test_no_file_is_no_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    remove_left_over(name, "ours")
