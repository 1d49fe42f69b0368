import os
import stat

import pytest

from codespace_kernels import settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_private(home):
    for folder in (settings.data_dir(), settings.state_dir(), settings.runtime_dir()):
        assert mode(folder) == 0o700


def test_folder_that_others_can_read_is_closed_to_them(home):
    settings.data_dir().chmod(0o755)
    assert mode(settings.data_dir()) == 0o700


def test_runtime_folder_of_the_system_is_used(home, monkeypatch):
    (home / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    assert settings.runtime_dir().is_relative_to(home / "run") or len(str(home)) > settings.MAX_SOCKET_PATH - 70


@pytest.mark.parametrize("bad", ["missing", "", "relative", "open"])
def test_runtime_folder_that_cannot_be_used_has_a_fall_back(home, monkeypatch, bad):
    (home / "open").mkdir(mode=0o777)
    (home / "open").chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", bad if bad in {"", "relative"} else str(home / bad))
    folder = settings.runtime_dir()
    assert mode(folder) == 0o700
    assert not folder.is_relative_to(home / "open")
    assert folder == settings.runtime_dir()
    folder.rmdir()


def test_runtime_folder_with_a_long_path_has_a_fall_back(home, monkeypatch):
    long = home / ("x" * 100)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    folder = settings.runtime_dir()
    assert len(os.fsencode(folder)) + 40 <= settings.MAX_SOCKET_PATH
    folder.rmdir()


def test_two_homes_do_not_meet(home, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    first = settings.runtime_dir()
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home / "other"))
    second = settings.runtime_dir()
    assert first != second
    first.rmdir()
    second.rmdir()


def test_somebody_elses_folder_is_refused(home, monkeypatch):
    target = home / "target"
    target.mkdir()
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home / "link"))
    (home / "link").symlink_to(target)
    with pytest.raises(settings.SettingsError, match="not a folder of this user"):
        settings.data_dir()
