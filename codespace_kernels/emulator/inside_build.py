"""The last steps of an emulated codespace's first build, told as GitHub's agent tells them.

They stand in `/workspaces/.codespaces/shared/postCreateOutput.json`, which `gh codespace create --status` polls, as
`{"steps": [{"name": …, "status": "running" | "succeeded" | "failed"}]}`. GitHub's codespaces are available, and can be
connected to, while they still go on.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from codespace_kernels.emulator.faults import FaultBoard

STEPS = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
"""Commands of a devcontainer, in their order."""

STEP_SECONDS = 0.1


def output_path(workspace: Path) -> Path:
    """Give the file for a machine's working folder."""
    return workspace.parent / ".codespaces" / "shared" / "postCreateOutput.json"


async def build(workspace: Path, faults: FaultBoard, name: str) -> None:
    """Pass through the steps; one that fails is the last.

    Args:
        workspace: The machine's working folder.
        faults: Asked for `build-step`.
        name: The codespace's.
    """
    path = output_path(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    steps: list[dict[str, str]] = []
    for step in STEPS:
        steps.append({"name": step, "status": "running"})
        _write(path, steps)
        status = "running"
        while status == "running":
            await asyncio.sleep(STEP_SECONDS)
            status = _end_of(step, faults, name)
        steps[-1]["status"] = status
        _write(path, steps)
        if status == "failed":
            return


def _end_of(step: str, faults: FaultBoard, name: str) -> str:
    fault = faults.get("build-step", name)
    return str(fault.options["status"]) if fault and fault.options["step"] == step else "succeeded"


def _write(path: Path, steps: list[dict[str, str]]) -> None:
    replace_file(path, json.dumps({"steps": steps}).encode())
