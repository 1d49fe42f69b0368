"""Builds the panel of JupyterLab and Notebook 7 into the wheel where Node.js is there; without it the rest installs.

`CODESPACE_KERNELS_PANEL=skip` leaves it out, `CODESPACE_KERNELS_PANEL=require` fails where it cannot be built. An
editable installation builds nothing: CONTRIBUTING.md says how the panel is had there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SETTING = "CODESPACE_KERNELS_PANEL"
OUTPUT = "codespace_kernels/labextension"
INSTALLED = "share/jupyter/labextensions/codespace-kernels"

STEP_SECONDS = 900
"""For npm to fetch what the build needs; usually half a minute."""


class PanelBuildHook(BuildHookInterface):
    """The hook of the wheel target."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the panel and add it to what the wheel installs."""
        if version == "editable":
            return
        problem = self._problem()
        if not problem:
            build_data["shared_data"][str(Path(self.root, OUTPUT))] = INSTALLED
        elif os.environ.get(SETTING) == "require":
            raise RuntimeError(f"The panel was not built: {problem}.")
        else:
            self.app.display_warning(
                f"The panel of JupyterLab and Notebook was not built: {problem}. Everything else works without it."
            )

    def _problem(self) -> str:
        """Build; say why not, empty where it was built."""
        if os.environ.get(SETTING) == "skip":
            return f"{SETTING} is skip"
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            return "Node.js (with npm) is not installed"
        for command in (["ci"], ["run", "build"]):
            problem = self._failure([npm, "--prefix", str(Path(self.root, "frontend")), *command])
            if problem:
                return problem
        return ""

    def _failure(self, command: list[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return ""
        last = (done.stderr or done.stdout).strip().splitlines()[-20:]
        return "\n  ".join([f"`{' '.join(command)}` failed", *last])
