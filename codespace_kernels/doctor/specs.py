"""Checks of the kernelspecs that this package wrote, and of the program that they start."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels import __version__, kernelspecs
from codespace_kernels.doctor.findings import Check, Finding, Group, fail, note, ok
from codespace_kernels.doctor.programs import run_program
from codespace_kernels.errors import SettingsError
from codespace_kernels.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from codespace_kernels.doctor.subject import Subject

_RUN_SECONDS = 20.0


class SpecFile(NamedTuple):
    """A spec on disk that this package may have written.

    Attributes:
        name: Of its folder.
        content: Its JSON object; None where it cannot be read.
        why: Why not.
    """

    name: str
    content: dict[str, Any] | None
    why: str = ""


def spec_files() -> list[SpecFile]:
    """Read the specs whose names are of our form; readable ones that others wrote are left out."""
    files = (_read(path) for path in sorted(kernelspecs.kernels_dir().glob(f"{kernelspecs.PREFIX}*")) if path.is_dir())
    return [file for file in files if file.content is None or _is_ours(file.content)]


def _read(folder: Path) -> SpecFile:
    try:
        content = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return SpecFile(folder.name, None, "there is no kernel.json")
    except OSError as error:
        return SpecFile(folder.name, None, error.strerror or "unreadable")
    except ValueError:
        return SpecFile(folder.name, None, "kernel.json is no JSON")
    return (
        SpecFile(folder.name, content) if isinstance(content, dict) else SpecFile(folder.name, None, "no JSON object")
    )


def _is_ours(content: dict[str, Any]) -> bool:
    metadata = content.get("metadata")
    return isinstance(metadata, dict) and "codespace_kernels" in metadata


async def files(subject: Subject) -> Sequence[Finding]:
    """Read each spec and compare it with what there is."""
    specs = spec_files()
    findings = [finding for spec in specs if (finding := judged(spec, subject))]
    good = len(specs) - len({finding.subject for finding in findings})
    folder = kernelspecs.kernels_dir()
    if not specs:
        return [note(f"none yet in {folder}", "Write some with `codespace-kernels connect NAME`.")]
    return [*([ok(f"{good} in order, in {folder}")] if good else []), *findings]


def judged(spec: SpecFile, subject: Subject) -> Finding | None:
    """Judge a spec; None where it is in order."""
    folder = kernelspecs.kernels_dir() / spec.name
    again = "Write it anew with `codespace-kernels connect NAME`"
    if spec.content is None:
        return fail(f"cannot be read: {spec.why}", f"{again}, or remove the folder {folder}.", spec.name)
    try:
        target = Target.from_env(spec.content["env"])
        written_by = str(spec.content["metadata"]["codespace_kernels"]["version"])
    except (KeyError, TypeError, AttributeError):
        return fail("lacks what it must have", f"{again}, or remove the folder {folder}.", spec.name)
    except SettingsError as error:
        return fail(str(error).rstrip("."), f"{again}.", spec.name)
    if is_left_over(target, subject):
        fix = f"Remove it with `codespace-kernels disconnect {target.workspace}`."
        return fail(f"its codespace {target.workspace} does not exist any more", fix, spec.name)
    if spec.content.get("argv") != kernelspecs.ARGV or not written_by:
        return note("has a form of an earlier version", f"{again}.", spec.name)
    if written_by != __version__:
        return note(f"was written by version {written_by}", f"It may lack what came later. {again}.", spec.name)
    return None


def is_left_over(target: Target, subject: Subject) -> bool:
    """Tell whether the account is known not to have a spec's codespace."""
    if subject.codespaces is None or target.account != subject.access.account or not target.workspace:
        return False
    return target.workspace not in {item.get("name") for item in subject.codespaces}


async def launcher(subject: Subject) -> Sequence[Finding]:
    """Find the program of each spec as a front end does, by the spec's own PATH, and start it."""
    found: dict[str, str] = {}
    for spec in spec_files():
        if spec.content is not None:
            argv, path = spec.content.get("argv"), _path_of(spec.content, subject.env)
            program = str(argv[0]) if isinstance(argv, list) and argv else ""
            found.setdefault(shutil.which(program, path=path) or "", spec.name)
    if not found:
        found = {shutil.which(kernelspecs.ARGV[0], path=kernelspecs.programs()) or "": ""}
    return [await _started(program, spec, subject.env) for program, spec in found.items()]


def _path_of(content: Mapping[str, Any], env: Mapping[str, str]) -> str:
    own = content.get("env")
    text = str(own.get("PATH", "")) if isinstance(own, dict) else ""
    return re.sub(r"\$\{PATH\}", lambda _: env.get("PATH", ""), text) or env.get("PATH", os.defpath)


async def _started(program: str, spec: str, env: Mapping[str, str]) -> Finding:
    again = "Install codespace-kernels again, then write the specs anew with `codespace-kernels connect NAME`."
    if not program:
        return fail(f"{kernelspecs.ARGV[0]} is not found", again, spec)
    ran = await run_program([program, "--help"], env, _RUN_SECONDS)
    if ran.code != 0:
        said = ran.errors.strip().splitlines()
        return fail(f"{program} does not run ({said[-1] if said else f'exit code {ran.code}'})", again, spec)
    return ok(f"{program} runs")


CHECKS = (
    Check("kernelspecs", "Kernelspecs", Group.COMPUTER, files, after=("codespaces",)),
    Check("launcher", "codespace-kernel", Group.COMPUTER, launcher, seconds=60.0),
)
