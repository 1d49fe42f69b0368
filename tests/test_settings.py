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


NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of other users")


def test_folder_that_was_open_is_closed(home):
    folder = settings.data_dir()
    (folder / "mine").touch()
    folder.chmod(0o777)
    assert stat.S_IMODE(settings.data_dir().stat().st_mode) == 0o700


@needs_root
@pytest.mark.parametrize("planted", ["id_ed25519", "broker.sock", "link"])
def test_open_folder_with_something_of_another_user_is_refused_until_it_is_gone(home, planted):
    folder = settings.data_dir()
    file = folder / planted
    file.symlink_to("/etc/passwd") if planted == "link" else file.touch()
    os.chown(file, NOBODY, NOBODY, follow_symlinks=False)
    folder.chmod(0o777)
    for _ in range(2):
        with pytest.raises(SettingsError, match=rf"could be written by others, and '{planted}' in it is another"):
            settings.data_dir()
    file.unlink()
    assert stat.S_IMODE(settings.data_dir().stat().st_mode) == 0o700


@needs_root
def test_folder_of_another_user_is_refused(home):
    folder = settings.data_dir()
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(SettingsError, match="is not a folder of this user"):
        settings.data_dir()


@pytest.fixture
def temporary(home, monkeypatch):
    """Another temporary folder, its path short enough for sockets; no other runtime folder comes before it."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="ckt-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.parametrize("whose", ["a link of ours", pytest.param("another user's", marks=needs_root)])
def test_runtime_folder_that_somebody_else_was_quicker_to_make(home, temporary, whose):
    """Below a temporary folder everybody knows the name of ours."""
    temporary.chmod(0o1777)
    ours = settings.runtime_dir()
    assert ours.parent == temporary
    ours.rmdir()
    if whose == "a link of ours":
        ours.symlink_to(home)
    else:
        ours.mkdir()
        os.chown(ours, NOBODY, NOBODY)
    other = settings.runtime_dir()
    assert other.parent == Path("/tmp")
    other.rmdir()


def test_temporary_folder_in_which_others_may_move_ours_is_not_taken(temporary):
    assert settings.runtime_dir().parent == temporary
    temporary.chmod(0o777)
    other = settings.runtime_dir()
    assert other.parent == Path("/tmp")
    other.rmdir()


def test_folders_above_are_nobody_else_s_to_write(home, monkeypatch):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(home / "a" / "b" / "c"))
    before = os.umask(0)
    try:
        settings.state_dir()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((home / path).stat().st_mode) for path in ("a", "a/b", "a/b/c")] == [0o700] * 3


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


def test_pauses_of_the_link(monkeypatch):
    monkeypatch.delenv("CODESPACE_KERNELS_LINK_SECONDS", raising=False)
    assert settings.link_seconds() == {}
    monkeypatch.setenv("CODESPACE_KERNELS_LINK_SECONDS", "5,0.5,2")
    assert settings.link_seconds() == {"ping_interval": 5.0, "busy_ping_interval": 0.5, "silence_limit": 2.0}
    monkeypatch.setenv("CODESPACE_KERNELS_LINK_SECONDS", "5,0.5")
    with pytest.raises(SettingsError, match="three numbers"):
        settings.link_seconds()
