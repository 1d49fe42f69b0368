"""Where this user's files and sockets are."""

import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from codespace_kernels import platforms, settings
from codespace_kernels.errors import SettingsError


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path / "home"))
    return tmp_path


def test_folders_are_private(home):
    for folder in (settings.data_dir(), settings.state_dir(), settings.runtime_dir()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_homes_have_two_runtime_folders(home, monkeypatch):
    first = settings.runtime_dir()
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home / "other"))
    assert settings.runtime_dir() != first


def test_many_threads_get_the_same_runtime_folder(home):
    expected = settings.runtime_dir()
    given = []

    def ask():
        given.extend(settings.runtime_dir() for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert given == [expected] * 800


@pytest.mark.parametrize("problem", ["missing", "relative", "open to others", "too long"])
def test_runtime_folder_that_cannot_be_used(home, monkeypatch, problem):
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "x" * (90 if problem == "too long" else 1))
    if problem != "missing":
        folder.mkdir(exist_ok=True)
    if problem == "open to others":
        folder.chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run" if problem == "relative" else str(folder))
    chosen = settings.runtime_dir()
    assert not chosen.is_relative_to(folder)
    assert len(bytes(chosen / "broker.sock")) <= settings.MAX_SOCKET_PATH
    chosen.rmdir()


def test_folder_without_room_for_sockets_is_taken_where_none_are_needed(home, monkeypatch):
    usual = settings.runtime_dir()
    monkeypatch.setattr(settings, "MAX_SOCKET_PATH", 10)
    with pytest.raises(SettingsError, match="or CODESPACE_KERNELS_BROKER_ENDPOINT=loopback"):
        settings.runtime_dir()
    monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", "loopback")
    assert settings.runtime_dir() == usual


def test_home_is_taken_where_no_other_folder_can_be_had_and_no_sockets_are_needed(home, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    other = settings.runtime_dir()
    other.rmdir()
    other.touch()
    try:
        with pytest.raises(SettingsError, match="No private folder"):
            settings.runtime_dir()
        monkeypatch.setenv("CODESPACE_KERNELS_BROKER_ENDPOINT", "loopback")
        assert settings.runtime_dir().parent == settings.data_dir()
    finally:
        other.unlink()


def test_folders_on_windows(home, monkeypatch):
    monkeypatch.setattr(platforms, "is_windows", lambda: True)
    monkeypatch.setattr(platforms, "user_id", lambda: 1 / 0)
    assert settings.broker_endpoint() == "loopback"
    assert settings.runtime_dir() == home / "home" / "run"


def test_home_that_is_no_folder(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home / "file"))
    with pytest.raises(SettingsError, match="file cannot be made: File exists"):
        settings.data_dir()
