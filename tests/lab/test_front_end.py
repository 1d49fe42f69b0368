"""Whether the panel is installed is known, and so is how it is had."""

from __future__ import annotations

import pytest

from codespace_kernels.cli import main
from codespace_kernels.lab import front_end


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder in which front ends look for extensions."""
    monkeypatch.setattr(front_end, "jupyter_path", lambda *_: [str(tmp_path)])
    return tmp_path


def test_where_it_is_missing_the_way_to_it_is_told(folder, capsys):
    assert front_end.installed() is None
    with pytest.raises(SystemExit):
        main(["--version"])
    told = capsys.readouterr()
    assert told.out.startswith("codespace-kernels ")
    assert "npm --prefix" in told.err
    assert "jupyter labextension develop" in told.err


def test_outside_a_clone_it_is_installed_anew(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(front_end, "CLONE", tmp_path)
    assert "pip install" in front_end.advice()


def test_where_it_is_there_nothing_is_said(folder, capsys):
    (folder / front_end.NAME).mkdir()
    (folder / front_end.NAME / "package.json").write_text("{}")
    assert front_end.installed() == folder / front_end.NAME
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().err == ""
