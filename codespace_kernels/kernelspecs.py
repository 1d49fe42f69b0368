"""Kernelspecs on disk: the product's face in every front end.

One folder for each kernel of a workspace, in the user's own kernels folder, the only one that every front end reads.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_core.paths import jupyter_data_dir

from codespace_kernels import __version__, platforms
from codespace_kernels.errors import SettingsError
from codespace_kernels.offered_specs import LOGOS
from codespace_kernels.settings import make_folders
from codespace_kernels.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from codespace_kernels.providers.base import Workspace
    from codespace_kernels.recipe import Recipe
    from codespace_kernels.remote_kernel import RemoteKernelSpec
    from codespace_kernels.target import Account

PREFIX = "cs-"
ARGV = ["codespace-kernel", "-f", "{connection_file}"]
"""Exactly this: a further argument makes VS Code rewrite the kernel's name and forget which notebook used it."""

_IMPLEMENTATION = re.compile(r"\s*\((ipykernel|xpython|xeus-python)\)$", re.IGNORECASE)


def kernels_dir() -> Path:
    """Give the user's kernels folder."""
    return Path(jupyter_data_dir()) / "kernels"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "kernel"


class InstalledSpec(NamedTuple):
    """A spec that this package wrote.

    Attributes:
        target: What it means.
        repository: That of its workspace, empty where unknown.
        shown: Its display name.
    """

    target: Target
    repository: str
    shown: str = ""


def installed() -> dict[str, InstalledSpec]:
    """Find the specs that this package wrote, by spec name. Others' specs are left alone, unreadable ones too."""
    found = {}
    for file in sorted(kernels_dir().glob(f"{PREFIX}*/kernel.json")):
        try:
            spec = json.loads(file.read_text(encoding="utf-8"))
            repository = str(spec["metadata"]["codespace_kernels"].get("repository", ""))
            found[file.parent.name] = InstalledSpec(Target.from_env(spec["env"]), repository, str(spec["display_name"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SettingsError):
            continue
    return found


def spec_name(target: Target, places: Iterable[str], taken: dict[str, InstalledSpec]) -> str:
    """Give the folder name of a target's spec: `cs-octocat-ml-python3`.

    A spec that is there for this target keeps its name, since notebooks remember it.

    Args:
        target: What the spec means.
        places: What its place may be called, the best first; the last one is numbered where all are taken.
        taken: The specs that are there.
    """
    for name, other in taken.items():
        if other.target == target:
            return name
    places = list(places)
    places += [f"{places[-1]}-{number}" for number in range(2, len(taken) + 3)]
    names = (PREFIX + _slug(f"{place}-{target.kernel}") for place in places)
    return next(name for name in names if name not in taken)


def _places(workspace: Workspace) -> list[str]:
    """Two codespaces of one repository are told apart by the codespace's own name."""
    return [workspace.repository or workspace.name, workspace.name]


def _recipe_places(recipe: Recipe) -> list[str]:
    short = f"{recipe.repository}-recipe"
    named = [part for part in (recipe.branch, recipe.devcontainer_path, recipe.machine) if part]
    return [short, "-".join([short, *named])]


def display_names(remote: RemoteKernelSpec, workspace: Workspace) -> Iterator[str]:
    """Give what pickers may show, the shortest first: "Python 3 · octocat/ml (codespace)".

    The kernel's own name, then the workspace's title and at last its name are added where that is not enough to tell
    specs apart: of two with one display name, VS Code shows one, and either. No name ends like an interpreter's.
    """
    kernel = _IMPLEMENTATION.sub("", remote.display_name)
    kernels = (kernel, f"{kernel} [{remote.name}]")
    place = workspace.repository or workspace.title
    places = [place]
    if workspace.repository:
        places.append(f"{place}: {workspace.title}")
    places.append(f"{place}: {workspace.name}")
    for place, kernel in itertools.product(places, kernels):
        yield f"{kernel} · {place} (codespace)"


def recipe_display_names(remote: RemoteKernelSpec, recipe: Recipe) -> Iterator[str]:
    """As `display_names` for a recipe: "Python 3 · octocat/ml (codespace: dev, largePremiumLinux)"."""
    kernel = _IMPLEMENTATION.sub("", remote.display_name)
    place = f"codespace: {recipe.details}" if recipe.details else "any codespace"
    for shown in (kernel, f"{kernel} [{remote.name}]"):
        yield f"{shown} · {recipe.repository} ({place})"


def display_name(target: Target, remote: RemoteKernelSpec, workspace: Workspace, taken: Iterable[InstalledSpec]) -> str:
    """Give what pickers show: the first of `display_names` that no other spec has.

    Args:
        target: What the spec means.
        remote: The kernelspec in the workspace.
        workspace: Where it is.
        taken: The specs that are there. Where another workspace of the repository has some, the title is shown.
    """
    others = [spec for spec in taken if spec.target != target]
    shown = {spec.shown for spec in others}
    has_sibling = any(
        spec.repository == workspace.repository != "" and spec.target.workspace not in ("", workspace.name)
        for spec in others
    )
    names = list(display_names(remote, workspace))
    free = [name for name in names[2 if has_sibling else 0 :] if name not in shown]
    return free[0] if free else names[-1]


def programs() -> str:
    """Give the folder of the launcher; where it cannot be found, the likeliest, for the error to name."""
    folders = platforms.program_folders()
    file = platforms.program_file(ARGV[0])
    return str(next((folder for folder in folders if (folder / file).exists()), folders[0]))


def spec_content(target: Target, remote: RemoteKernelSpec, shown: str, repository: str = "") -> dict[str, Any]:
    """Give the content of a `kernel.json`. Nothing in it is secret or changes while the kernel runs."""
    metadata = {
        **({"debugger": True} if remote.metadata.get("debugger") is True else {}),
        "kernel_provisioner": {"provisioner_name": "codespace-kernels", "config": {}},
        # The local ports speak CurveZMQ where a front end's `transport_encryption` asks for it.
        "supported_encryption": ["curve"],
        "codespace_kernels": {"version": __version__, "repository": repository},
    }
    return {
        "argv": ARGV,
        "display_name": shown,
        # Only this spelling of it gets VS Code's Python features.
        "language": "python" if remote.language.lower() == "python" else remote.language,
        "interrupt_mode": "message",
        # The launcher is found by PATH: an absolute path into an environment makes VS Code take it for a Python.
        "env": {**target.to_env(), "PATH": f"{programs()}{os.pathsep}${{PATH}}"},
        "metadata": metadata,
    }


def write(workspace: Workspace, targets: dict[Target, RemoteKernelSpec]) -> dict[str, Path]:
    """Write a spec for each target of one workspace.

    Returns:
        Folder of each spec, by spec name.

    Raises:
        SettingsError: The kernels folder cannot be written.
    """
    taken = installed()
    written = {}
    for target, remote in targets.items():
        name = spec_name(target, _places(workspace), taken)
        shown = display_name(target, remote, workspace, taken.values())
        content = spec_content(target, remote, shown, workspace.repository)
        written[name] = _write_folder(name, content, remote.resources)
        taken[name] = InstalledSpec(target, workspace.repository, shown)
    return written


def write_recipe(targets: dict[Target, RemoteKernelSpec]) -> dict[str, Path]:
    """Write a spec for each target of one recipe; see `write`."""
    taken = installed()
    written = {}
    for target, remote in targets.items():
        assert target.recipe is not None
        name = spec_name(target, _recipe_places(target.recipe), taken)
        others = {spec.shown for spec in taken.values() if spec.target != target}
        names = list(recipe_display_names(remote, target.recipe))
        shown = next((shown for shown in names if shown not in others), names[-1])
        content = spec_content(target, remote, shown, target.recipe.repository)
        written[name] = _write_folder(name, content, remote.resources)
        taken[name] = InstalledSpec(target, target.recipe.repository, shown)
    return written


def _write_folder(name: str, content: dict[str, Any], resources: dict[str, bytes]) -> Path:
    """Write a spec's folder beside its place and move it there, so that no front end reads half of it."""
    folder = kernels_dir() / name
    try:
        make_folders(folder.parent, 0o755)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            # Others may read them; whoever could write them would have this user run something.
            for file, data in {**_logos(resources), "kernel.json": text.encode()}.items():
                (fresh / file).write_bytes(data)
                (fresh / file).chmod(0o644)
            fresh.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            fresh.rename(folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    except OSError as error:
        raise SettingsError(f"Cannot write the kernelspec {folder}: {error.strerror}.") from None
    return folder


def _logos(resources: dict[str, bytes]) -> dict[str, bytes]:
    return {file: data for file, data in resources.items() if file in LOGOS}


def remove(workspace: str, account: Account) -> list[str]:
    """Remove the specs of a workspace; give their names."""
    removed = []
    for name, spec in installed().items():
        if spec.target.recipe is None and spec.target.workspace == workspace and spec.target.account == account:
            shutil.rmtree(kernels_dir() / name, ignore_errors=True)
            removed.append(name)
    return removed
