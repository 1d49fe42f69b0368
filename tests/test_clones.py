import subprocess

import pytest

from codespace_kernels.clones import ClonePlace, notebook_folder, place_of


@pytest.fixture
def clone(tmp_path):
    """A clone of a repository with a folder in it; its remotes have a password and a port."""
    for arguments in (
        ["init", "-q", "."],
        ["remote", "add", "origin", "https://mona:secret@github.com/Octocat/ML.git"],
        ["remote", "add", "upstream", "ssh://git@ssh.github.com:443/hubot/ml"],
        ["remote", "add", "short", "git@github.com:mona/ml.git"],
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    (tmp_path / "notebooks" / "ä b").mkdir(parents=True)
    return tmp_path


def test_place_names_every_remotes_repository_and_no_password(clone):
    place = place_of(clone / "notebooks" / "ä b")
    assert place == ClonePlace(("hubot/ml", "mona/ml", "octocat/ml"), "notebooks/ä b")


def test_folder_is_for_clones_of_the_same_repository_only(clone):
    place = place_of(clone / "notebooks")
    assert place.folder_in("octocat/ML") == "notebooks"
    assert place.folder_in("octocat/other") == ""
    assert place.folder_in("") == ""


def test_no_clone_has_no_place(tmp_path):
    assert place_of(tmp_path) == ClonePlace()
    assert place_of(tmp_path / "missing") == ClonePlace()


def test_without_git_there_is_no_place(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert place_of(clone / "notebooks") == ClonePlace()


def test_surrounding_git_command_names_no_other_clone(clone, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("other")))
    assert place_of(clone / "notebooks").folder == "notebooks"


def test_notebooks_own_folder_goes_before_the_front_ends(tmp_path):
    name = str(tmp_path / "n.ipynb")
    assert notebook_folder({"JPY_SESSION_NAME": name}, "/") == tmp_path
    assert str(notebook_folder({"JPY_SESSION_NAME": "n.ipynb"}, "/usr")) == "/usr"
    assert str(notebook_folder({"JPY_SESSION_NAME": "/no/such/n.ipynb"}, "/usr")) == "/usr"
