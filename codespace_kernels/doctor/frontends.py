"""Checks of the front ends on this computer: where they look for kernelspecs, and what they see there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels import kernelspecs, lab, platforms, saved_notebooks
from codespace_kernels.doctor.findings import Check, Finding, Group, fail, note, ok
from codespace_kernels.doctor.programs import run_program
from codespace_kernels.lab import front_end
from codespace_kernels.ssh.threads import run_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from codespace_kernels.doctor.subject import Subject

PROVISIONER = "codespace-kernels"
JUPYTERS = ("jupyter-lab", "jupyter-notebook", "jupyter-server", "jupyter")
EDITORS = ("code", "code-insiders", "codium", "cursor")
EDITOR_FOLDERS = (".vscode", ".vscode-insiders", ".vscode-oss", ".cursor", ".vscode-server")

_PROBE_SECONDS = 20.0
_PROBE = """
import json
from importlib import metadata
found = {"versions": {}, "provisioner": False, "kernels": []}
for name in ("jupyterlab", "notebook", "jupyter_server", "jupyter_client"):
    try:
        found["versions"][name] = metadata.version(name)
    except Exception:
        pass
try:
    points = metadata.entry_points()
    group = "jupyter_client.kernel_provisioners"
    points = points.select(group=group) if hasattr(points, "select") else points.get(group, [])
    found["provisioner"] = any(point.name == "codespace-kernels" for point in points)
    from jupyter_core.paths import jupyter_path
    found["kernels"] = jupyter_path("kernels")
except Exception:
    pass
print(json.dumps(found))
"""
_EXTENSION = re.compile(r"ms-toolsai\.jupyter-(\d+\.\d+\.\d+)")


async def this_jupyter(subject: Subject) -> Sequence[Finding]:
    """Ask the Python that runs this what its Jupyter sees; front ends start in the same way, as processes of it."""
    seen = await _probe(sys.executable, subject.env)
    if seen is None:
        return [fail(f"{sys.executable} cannot be started", "Make the environment anew.")]
    return [judged(seen, sys.executable, is_first=True)]


async def other_jupyters(subject: Subject) -> Sequence[Finding]:
    """Ask every other Jupyter that is found in PATH."""
    pythons = list(_pythons(subject.env.get("PATH", "")))
    first = next(iter(pythons), "")
    others = [python for python in pythons if not _is_own(python)]
    seen = await asyncio.gather(*(_probe(python, subject.env) for python in others))
    findings = [
        judged(answer, python, is_first=python == first)
        for python, answer in zip(others, seen, strict=True)
        if answer is not None and answer["versions"].get("jupyter_client")
    ]
    return findings or [ok("there are none in PATH")]


def judged(seen: Mapping[str, Any], python: str, *, is_first: bool) -> Finding:
    """Judge what a Jupyter sees.

    Args:
        seen: The answer of `_PROBE`.
        python: Who gave it.
        is_first: Whether `jupyter` means this one: a problem there is one, elsewhere it is worth a note.
    """
    names = {"jupyterlab": "JupyterLab", "notebook": "Notebook", "jupyter_client": "jupyter_client"}
    versions = [f"{name} {seen['versions'][key]}" for key, name in names.items() if key in seen["versions"]]
    shown, folder = f"{python}: {', '.join(versions) or 'no Jupyter'}", str(kernelspecs.kernels_dir())
    bad = fail if is_first else note
    if "jupyter_client" not in seen["versions"]:
        return bad(shown, "Install codespace-kernels where your front end runs.")
    if not seen["provisioner"]:
        fix = f"To have them there: `{python} -m pip install codespace-kernels`."
        return bad(f"{shown}; it hides kernels of codespaces, as this package is not installed there", fix)
    if folder not in seen["kernels"]:
        fix = "Start both with the same JUPYTER_DATA_DIR, or add the folder above `kernels` to JUPYTER_PATH."
        return bad(f"{shown}; it does not look into {folder}", fix)
    return ok(shown)


async def _probe(python: str, env: Mapping[str, str]) -> dict[str, Any] | None:
    ran = await run_program([python, "-c", _PROBE], env, _PROBE_SECONDS)
    try:
        seen = json.loads(ran.output)
    except ValueError:
        return None
    return seen if isinstance(seen, dict) else None


def _pythons(path: str) -> Iterator[str]:
    """Give the interpreters of the Jupyter programs in PATH, each once, the first found first."""
    known = set()
    for folder in path.split(os.pathsep):
        for name in JUPYTERS:
            script = shutil.which(name, path=folder) if folder else None
            python = interpreter_of(Path(script)) if script else None
            if python and python not in known:
                known.add(python)
                yield python


def interpreter_of(script: Path) -> str | None:
    """Find the Python of a console script: in its first lines, else beside it."""
    try:
        with script.open("rb") as file:
            head = file.read(600).decode(errors="replace")
    except OSError:
        return None
    # A path that is too long for `#!` stands in a line for the shell.
    if found := re.match(r"#!\s*(\S*python\S*)|#!/bin/sh\s+'''exec' \"?([^\"\n]*python[^\" ]*)", head):
        return found[1] or found[2]
    names = ("python.exe",) if platforms.is_windows() else ("python3", "python")
    beside = (folder / name for folder in (script.parent, script.parent.parent) for name in names)
    return next((str(python) for python in beside if python.exists()), None)


def _is_own(python: str) -> bool:
    return os.path.realpath(Path(python).parent) == os.path.realpath(Path(sys.executable).parent)


async def specs_are_seen(subject: Subject) -> Finding:
    """Tell whether jupyter_client gives our specs to those that ask for them."""

    def hidden() -> list[str]:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

        manager, lost = KernelSpecManager(), []
        for name in kernelspecs.installed():
            try:
                manager.get_kernel_spec(name)
            except NoSuchKernel:
                lost.append(name)
        return lost

    lost = await run_blocking("jupyter_client", 15.0, hidden)
    if lost:
        fix = "Look at `jupyter --paths`, and at allowed_kernelspecs in Jupyter's configuration."
        return fail(f"jupyter_client does not give {', '.join(lost)}", fix)
    count = len(kernelspecs.installed())
    return ok(f"jupyter_client gives all of them ({count})" if count else "there are none to be seen")


async def vs_code(subject: Subject) -> Finding:
    """Look for VS Code and its relatives, and for the Jupyter extension in them."""
    path, home = subject.env.get("PATH", ""), Path(subject.env.get("HOME") or Path.home())
    programs = [name for name in EDITORS if shutil.which(name, path=path)]
    extensions = {folder: version for folder in EDITOR_FOLDERS if (version := _extension(home / folder))}
    if not programs and not extensions:
        return note("not found on this computer")
    shown = f"{', '.join(programs) or 'not in PATH'}; extension Jupyter " + (
        ", ".join(f"{version} in ~/{folder}" for folder, version in extensions.items()) or "not found"
    )
    if not extensions:
        return note(shown, "Install the extension Jupyter (ms-toolsai.jupyter) in it.")
    usual = home / {"darwin": "Library/Jupyter"}.get(sys.platform, ".local/share/jupyter")
    if not platforms.is_windows() and kernelspecs.kernels_dir().parent != usual:
        fix = f"Update the extension, or link {usual} there."
        return note(f"{shown}; those before 2025 do not look into {kernelspecs.kernels_dir()}", fix)
    return ok(shown)


def _extension(folder: Path) -> str:
    found = [
        match[1] for path in folder.glob("extensions/ms-toolsai.jupyter-*") if (match := _EXTENSION.match(path.name))
    ]
    return max(found, key=lambda version: [int(part) for part in version.split(".")], default="")


SERVER_EXTENSIONS = {
    saved_notebooks.__name__: "notebooks are saved with the line of a waiting cell",
    lab.__name__: "the panel and its dialog have nothing to talk to",
}
"""Those that installing this package enables, and what is missing without them."""


async def server_extensions(subject: Subject) -> Sequence[Finding]:
    """Tell whether the Jupyter server of this environment loads our extensions."""

    def enabled() -> dict[str, Any]:
        from jupyter_core.paths import jupyter_config_path
        from jupyter_server.extension.config import ExtensionConfigManager

        return ExtensionConfigManager(read_config_path=jupyter_config_path()).get_jpserver_extensions()  # type: ignore[no-untyped-call,no-any-return]

    found = await run_blocking("Jupyter's configuration", 15.0, enabled)
    return [_judged_extension(name, found.get(name), loss) for name, loss in SERVER_EXTENSIONS.items()]


def _judged_extension(name: str, enabled: object, loss: str) -> Finding:
    if enabled:
        return ok(f"{name} is enabled")
    said = "is switched off" if enabled is False else "is not enabled"
    return fail(f"{name} {said}", f"Run `jupyter server extension enable {name}`, or {loss}.")


async def panel(subject: Subject) -> Finding:
    """Tell whether JupyterLab and Notebook of this environment have the panel."""
    folder = await run_blocking("Jupyter's folders", 15.0, front_end.installed)
    # Everything else works without it: a wheel that was built without Node.js has none.
    return ok(str(folder)) if folder is not None else note("not installed", front_end.advice())


SPECS_CHECK = Check("kernelspecs-seen", "Kernelspecs seen", Group.COMPUTER, specs_are_seen, seconds=20.0)
CHECKS = (
    Check("jupyter-here", "Jupyter here", Group.COMPUTER, this_jupyter, seconds=30.0),
    Check("jupyter-elsewhere", "Other Jupyters", Group.COMPUTER, other_jupyters, seconds=90.0),
    Check("vscode", "VS Code", Group.COMPUTER, vs_code),
    Check("server-extensions", "Server extensions", Group.COMPUTER, server_extensions, seconds=20.0),
    Check("panel", "Panel", Group.COMPUTER, panel, seconds=20.0),
)
