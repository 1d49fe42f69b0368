import dataclasses
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from codespace_kernels import kernelspecs, platforms
from codespace_kernels.errors import SettingsError
from codespace_kernels.providers.base import Workspace, WorkspaceState
from codespace_kernels.recipe import Recipe
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.target import Account, Target

ACCOUNT = Account(api_url="http://127.0.0.1:8000")
PYTHON = RemoteKernelSpec("python3", "Python 3 (ipykernel)", "python", metadata={"debugger": True, "other": 1},
                          resources={"logo-64x64.png": b"\x89PNG"})  # fmt: skip


def workspace(name="hello-abc", title="hello", repository="octocat/ml"):
    return Workspace(name, title, WorkspaceState.RUNNING, "Available", repository=repository)


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", ".local/share/jupyter/kernels"),
        ("darwin", "Library/Jupyter/kernels"),
        ("win32", "AppData/Roaming/jupyter/kernels"),
    ],
)
def test_specs_stand_where_every_version_of_vscode_looks(tmp_path, monkeypatch, platform, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData" / "Roaming"))
    for name in ("JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert kernelspecs.kernels_dir() == tmp_path / folder


def write(place, kernel="python3", remote=PYTHON):
    return kernelspecs.write(place, {Target(ACCOUNT, place.name, kernel): remote})


def test_front_ends_read_it():
    (name,) = write(workspace())
    spec = KernelSpecManager().get_kernel_spec(name)
    assert name == "cs-octocat-ml-python3"
    assert spec.display_name == "Python 3 · octocat/ml (codespace)"
    assert spec.argv == ["codespace-kernel", "-f", "{connection_file}"]
    assert (spec.language, spec.interrupt_mode) == ("python", "message")
    assert spec.metadata["kernel_provisioner"]["provisioner_name"] == "codespace-kernels"
    assert spec.metadata["debugger"] is True
    assert Target.from_env(spec.env) == Target(ACCOUNT, "hello-abc", "python3")
    assert (Path(spec.resource_dir) / "logo-64x64.png").read_bytes() == b"\x89PNG"


def test_writing_again_keeps_the_name():
    assert write(workspace()) == write(workspace())
    assert len(kernelspecs.installed()) == 1


def test_two_codespaces_of_one_repository_are_told_apart():
    (first,) = write(workspace())
    (second,) = write(workspace("hello-xyz", "bookish waffle"))
    names = {KernelSpecManager().get_kernel_spec(name).display_name for name in (first, second)}
    assert names == {"Python 3 · octocat/ml (codespace)", "Python 3 · octocat/ml: bookish waffle (codespace)"}


def test_remove_takes_only_what_is_meant():
    write(workspace())
    (kept,) = write(workspace("other-1", "other", "octocat/other"))
    foreign = kernelspecs.kernels_dir() / "cs-mine"
    foreign.mkdir()
    (foreign / "kernel.json").write_text(json.dumps({"argv": ["x"], "display_name": "x", "env": {}}))
    assert kernelspecs.remove("hello-abc", ACCOUNT) == ["cs-octocat-ml-python3"]
    assert set(kernelspecs.installed()) == {kept}
    assert foreign.exists()


def test_torn_spec_is_no_obstacle():
    (name,) = write(workspace())
    (kernelspecs.kernels_dir() / name / "kernel.json").write_text('{"argv": ')
    assert write(workspace()).keys() == {name}
    assert kernelspecs.installed()[name].repository == "octocat/ml"


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match="kernelspec"):
        write(workspace())


def test_target_is_missing_from_env():
    with pytest.raises(SettingsError, match="CODESPACE_KERNELS_WORKSPACE"):
        Target.from_env({})


def test_the_transport_stands_in_the_spec_only_where_it_was_chosen():
    place = workspace()
    target = Target(ACCOUNT, place.name, "python3", transport="gh")
    (name,) = kernelspecs.write(place, {target: PYTHON})
    assert kernelspecs.installed()[name].target.transport == "gh"
    assert write(place).keys() == {name}
    assert kernelspecs.installed()[name].target.transport == "auto"
    assert "TRANSPORT" not in str(KernelSpecManager().get_kernel_spec(name).env)


def shown(names):
    return [KernelSpecManager().get_kernel_spec(name).display_name for name in names]


def test_no_two_specs_have_one_display_name():
    """VS Code shows one of two specs with equal `display_name` and `argv[0]`, and either."""
    place = workspace()
    kernels = [
        RemoteKernelSpec(name, f"Python 3{end}", "python") for name, end in (("python3", " (ipykernel)"), ("ml", ""))
    ]
    names = list(kernelspecs.write(place, {Target(ACCOUNT, place.name, kernel.name): kernel for kernel in kernels}))
    # Titles may be equal too; so may the same repository's be in another account.
    for number in range(3):
        names += write(workspace(f"hello-{number}", "hello"))
        names += write(workspace(f"hello-{number}", "hello"), "ml", kernels[1])
    assert shown(names[:2]) == ["Python 3 · octocat/ml (codespace)", "Python 3 [ml] · octocat/ml (codespace)"]
    assert len(set(shown(names))) == len(set(names)) == 8


def test_writing_again_keeps_the_display_name():
    first = [*write(workspace()), *write(workspace(), "ml", RemoteKernelSpec("ml", "Python 3", "python"))]
    before = shown(first)
    assert [*write(workspace(), "ml", RemoteKernelSpec("ml", "Python 3", "python")), *write(workspace())] == first[::-1]
    assert shown(first) == before


def test_kernels_whose_names_differ_in_signs_only_keep_their_folders():
    names = [name for kernel in ("my_env", "my-env", "my env") for name in write(workspace(repository=""), kernel)]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("there", "here"), [("Python", "python"), ("python", "python"), ("R", "R"), ("julia", "julia")]
)
def test_python_is_spelled_as_vscode_wants_it(there, here):
    (name,) = write(workspace(), remote=RemoteKernelSpec("k", "K", there))
    assert KernelSpecManager().get_kernel_spec(name).language == here


@pytest.mark.parametrize("place", ["beside", "scripts", "user"])
@pytest.mark.parametrize(("windows", "file"), [(False, "codespace-kernel"), (True, "codespace-kernel.exe")])
def test_the_launchers_folder_is_the_first_of_path(tmp_path, monkeypatch, place, windows, file):
    """Beside the interpreter in an environment; elsewhere in a bare or conda Python on Windows, or after `--user`."""
    folders = {name: tmp_path / name for name in ("beside", "scripts", "user")}
    for folder in folders.values():
        folder.mkdir()
    # What Windows could run without a shell is an .exe; a script of the same name is not what is looked for.
    (folders["beside"] / "codespace-kernel.cmd").touch()
    (folders[place] / file).touch()
    monkeypatch.setattr(platforms, "is_windows", lambda: windows)
    monkeypatch.setattr(platforms, "program_folders", lambda: list(folders.values()))
    (name,) = write(workspace())
    assert KernelSpecManager().get_kernel_spec(name).env["PATH"].split(os.pathsep) == [str(folders[place]), "${PATH}"]


def test_program_folders_are_those_of_pip(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python.exe"))
    folders = platforms.program_folders()
    assert folders[0] == tmp_path
    assert folders[1:] == [
        Path(sysconfig.get_path("scripts")),
        Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))),
    ]


def test_the_launcher_is_where_the_spec_says():
    (name,) = write(workspace())
    path = KernelSpecManager().get_kernel_spec(name).env["PATH"].split(os.pathsep)
    assert shutil.which("codespace-kernel", path=path[0])


def test_what_wakes_the_workspace_stands_in_the_spec_only_where_it_was_chosen():
    place = workspace()
    target = Target(ACCOUNT, place.name, "python3", wake="never", language="python")
    (name,) = kernelspecs.write(place, {target: PYTHON})
    found = kernelspecs.installed()[name].target
    assert (found.wake, found.language) == ("never", "python")
    assert write(place).keys() == {name}
    assert kernelspecs.installed()[name].target.wake == "on-run"
    assert "WAKE" not in str(KernelSpecManager().get_kernel_spec(name).env)


def test_what_closing_does_stands_in_the_spec_only_where_it_was_chosen():
    kept = Target(ACCOUNT, "hello", "python3", on_close="keep", keep_hours=1.5)
    assert {
        "CODESPACE_KERNELS_ON_CLOSE": "keep",
        "CODESPACE_KERNELS_KEEP_HOURS": "1.5",
    }.items() <= kept.to_env().items()
    found = Target.from_env(kept.to_env())
    assert (found.on_close, found.keep_hours) == ("keep", 1.5)
    assert not [name for name in Target(ACCOUNT, "hello", "python3").to_env() if "CLOSE" in name or "KEEP" in name]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ON_CLOSE", "stay", "shutdown, keep"),
        ("KEEP_HOURS", "0", "above 0"),
        ("KEEP_HOURS", "long", "number of hours"),
        ("KEEP_AWAKE", "sometimes", "busy, always, never"),
        ("KEEP_AWAKE_HOURS", "0", "above 0"),
        ("KEEP_AWAKE_HOURS", "inf", "a year at most"),
        ("KEEP_AWAKE_HOURS", "long", "number of hours"),
        ("STOP_WHEN_IDLE", "-1", "minutes"),
        ("STOP_WHEN_IDLE", "nan", "minutes"),
        ("STOP_WHEN_IDLE", "soon", "number of minutes"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named(name, value, said):
    env = {**Target(ACCOUNT, "hello", "python3").to_env(), f"CODESPACE_KERNELS_{name}": value}
    with pytest.raises(SettingsError, match=f"CODESPACE_KERNELS_{name}.*{said}"):
        Target.from_env(env)


def test_what_it_may_cost_stands_in_the_spec_only_where_it_was_chosen():
    chosen = Target(ACCOUNT, "hello", "python3", keep_awake="never", keep_awake_hours=0.5, stop_when_idle=20)
    assert {
        "CODESPACE_KERNELS_KEEP_AWAKE": "never",
        "CODESPACE_KERNELS_KEEP_AWAKE_HOURS": "0.5",
        "CODESPACE_KERNELS_STOP_WHEN_IDLE": "20",
    }.items() <= chosen.to_env().items()
    found = Target.from_env(chosen.to_env())
    assert (found.keep_awake, found.keep_awake_hours, found.stop_when_idle) == ("never", 0.5, 20)
    assert not [name for name in Target(ACCOUNT, "hello", "python3").to_env() if "AWAKE" in name or "IDLE" in name]


def test_to_keep_an_idle_codespace_awake_and_to_stop_it_is_refused():
    with pytest.raises(SettingsError, match="Give one of them"):
        Target(ACCOUNT, "hello", "python3", keep_awake="always", stop_when_idle=20)


def test_an_unknown_way_to_wake_names_the_known_ones():
    env = {"CODESPACE_KERNELS_WORKSPACE": "w", "CODESPACE_KERNELS_KERNEL": "k", "CODESPACE_KERNELS_WAKE": "always"}
    with pytest.raises(SettingsError, match=r"CODESPACE_KERNELS_WAKE.*'always'.*on-open, on-run, never"):
        Target.from_env(env)


def write_recipe(recipe, *kernels):
    return list(kernelspecs.write_recipe({Target(ACCOUNT, "", k.name, recipe=recipe): k for k in kernels or [PYTHON]}))


def test_recipes_have_names_of_their_own():
    (named,) = write(workspace())
    (first,) = write_recipe(Recipe("octocat/ml"))
    (second,) = write_recipe(Recipe("octocat/ml", "dev", machine="largePremiumLinux"))
    (third,) = write_recipe(Recipe("octocat/ml", "dev/", machine="largePremiumLinux"))
    assert [first, second, third] == [
        "cs-octocat-ml-recipe-python3",
        "cs-octocat-ml-recipe-dev-largepremiumlinux-python3",
        "cs-octocat-ml-recipe-dev-largepremiumlinux-2-python3",
    ]
    assert shown([named, first, second]) == [
        "Python 3 · octocat/ml (codespace)",
        "Python 3 · octocat/ml (any codespace)",
        "Python 3 · octocat/ml (codespace: dev, largePremiumLinux)",
    ]
    # A recipe is no codespace that others of the repository would have to be told apart from.
    (named,) = write(workspace())
    assert shown([named]) == ["Python 3 · octocat/ml (codespace)"]


def test_a_recipe_that_is_allowed_to_create_keeps_its_name():
    (name,) = write_recipe(Recipe("octocat/ml"))
    assert write_recipe(Recipe("octocat/ml", location="WestEurope", may_create=True, payer="octocat")) == [name]
    recipe = kernelspecs.installed()[name].target.recipe
    assert (recipe.may_create, recipe.payer, recipe.location) == (True, "octocat", "WestEurope")


def test_two_kernels_of_a_recipe_that_call_themselves_the_same():
    other = dataclasses.replace(PYTHON, name="python312")
    names = write_recipe(Recipe("octocat/ml"), PYTHON, other)
    assert len(set(shown(names))) == 2


def test_what_goes_with_a_codespace_leaves_recipes_alone():
    (name,) = write_recipe(Recipe("octocat/ml"))
    assert kernelspecs.remove("hello-abc", ACCOUNT) == []
    assert kernelspecs.remove("", ACCOUNT) == []
    assert set(kernelspecs.installed()) == {name}
