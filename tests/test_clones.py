import shutil
import subprocess

import pytest

from codespace_kernels.clones import ClonePlace, notebook_folder, place_of, repositories_at


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
    repositories = ("github.com/hubot/ml", "github.com/mona/ml", "github.com/octocat/ml")
    assert place == ClonePlace(repositories, "notebooks/ä b")


def test_folder_is_for_clones_of_the_same_repository_only(clone):
    place = place_of(clone / "notebooks")
    assert place.folder_in("github.com/octocat/ML") == "notebooks"
    assert place.folder_in("github.com/octocat/other") == ""
    assert place.folder_in("gitlab.com/octocat/ml") == ""
    assert place.folder_in("octocat/ml") == ""
    assert place.folder_in("") == ""


def test_a_forks_clone_is_known_by_its_upstream_too(clone):
    place = place_of(clone / "notebooks")
    assert place.folder_in("github.com/hubot/ml") == place.folder_in("github.com/mona/ml") == "notebooks"


@pytest.mark.parametrize(
    ("address", "repository"),
    [
        ("https://github.com/octocat/ml", "github.com/octocat/ml"),
        ("https://GitHub.com:443/Octocat/ML.git/", "github.com/octocat/ml"),
        ("https://www.github.com/octocat/ml", "github.com/octocat/ml"),
        ("https://mona:secret@acme.ghe.com/octocat/ml.git", "acme.ghe.com/octocat/ml"),
        ("git://github.com/octocat/ml.git", "github.com/octocat/ml"),
        ("git@github.com:octocat/ml.git", "github.com/octocat/ml"),
        ("github.com:/octocat/m.l", "github.com/octocat/m.l"),
        ("ssh://git@ssh.github.com:443/octocat/ml.git", "github.com/octocat/ml"),
        ("git@gitlab.com:octocat/ml.git", "gitlab.com/octocat/ml"),
    ],
)
def test_address_names_a_repository_and_its_host(address, repository):
    assert list(repositories_at(address)) == [repository]


@pytest.mark.parametrize(
    "address",
    ["/srv/octocat/ml.git", "../octocat/ml", "file:///srv/octocat/ml", "C:/octocat/ml", "c:\\octocat\\ml", "",
     "https://gitlab.com/group/octocat/ml", "https://[/octocat/ml", "git@-oProxyCommand=x;y:octocat/ml"],
)  # fmt: skip
def test_address_of_another_form_names_none(address):
    assert list(repositories_at(address)) == []


def test_host_of_the_users_ssh_configuration_is_looked_up(tmp_path, monkeypatch):
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("There is no ssh on this machine: no SSH configuration is read.")
    config = tmp_path / "config"
    config.write_text("Host github-work\n  HostName ssh.github.com\n  Port 443\n")
    # ssh finds its configuration by the user's entry in the password file, whatever HOME says.
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {ssh} -F {config} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert set(repositories_at("git@github-work:octocat/ml.git")) == {"github.com/octocat/ml", "github-work/octocat/ml"}
    assert list(repositories_at("https://github-work/octocat/ml.git")) == ["github-work/octocat/ml"]


def test_an_abbreviated_host_is_written_out(clone):
    for arguments in (
        ["config", "url.git@github.com:.insteadOf", "gh:"],
        ["remote", "set-url", "origin", "gh:octocat/other"],
    ):
        subprocess.run(["git", *arguments], cwd=clone, check=True)
    assert place_of(clone / "notebooks").folder_in("github.com/octocat/other") == "notebooks"


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


def test_a_hostile_clone_runs_nothing_here(clone, tmp_path_factory):
    """A notebook may come in a folder whose `.git` somebody else has made."""
    owned = tmp_path_factory.mktemp("outside") / "owned"
    run = f"touch {owned}"
    options = ("fsmonitor", "sshCommand", "pager", "editor", "askPass", "gitProxy", "hooksPath", "attributesFile")
    settings = {f"core.{name}": run for name in options}
    settings |= {"alias.rev-parse": f"!{run}", "alias.remote": f"!{run}", "credential.helper": f"!{run}"}
    settings |= {"pager.remote": run, "remote.vcs.vcs": "x", "remote.ext.url": f"ext::sh -c {run}"}
    settings |= {
        "remote.option.url": f"ssh://-oProxyCommand={run}/o/n",
        "remote.shell.url": f"ssh://$({run})/o/n",
        "remote.command.url": f"git@a;{run};b:o/n",
        "url.ssh://x/.insteadOf": "y:",
    }
    for name, value in settings.items():
        subprocess.run(["git", "config", name, value], cwd=clone, check=True)
    assert "github.com/octocat/ml" in place_of(clone / "notebooks").repositories
    assert not owned.exists()
