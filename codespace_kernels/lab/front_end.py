"""Whether the panel's front end is installed, and how it is had where it is not."""

from __future__ import annotations

from pathlib import Path

from jupyter_core.paths import jupyter_path

NAME = "codespace-kernels"
"""Name of the extension of JupyterLab, and of its folder."""

CLONE = Path(__file__).parents[2]

_REBUILD = "install Node.js 18 or newer and run `pip install --force-reinstall --no-deps --no-binary :all: {name}`"
_DEVELOP = (
    "run `npm --prefix {frontend} ci`, `npm --prefix {frontend} run build` and `jupyter labextension develop {clone}`"
)


def installed() -> Path | None:
    """Give the folder that JupyterLab and Notebook load the front end from; None where there is none."""
    folders = (Path(path) / NAME for path in jupyter_path("labextensions"))
    return next((folder for folder in folders if (folder / "package.json").is_file()), None)


def advice() -> str:
    """Say that the panel is missing and how to have it; empty where it is there."""
    if installed() is not None:
        return ""
    frontend = CLONE / "frontend"
    how = _DEVELOP.format(frontend=frontend, clone=CLONE) if frontend.is_dir() else _REBUILD.format(name=NAME)
    return (
        f"The codespaces panel of JupyterLab and Notebook is not installed; everything else works. To have it, {how}."
    )
