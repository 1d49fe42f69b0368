"""The Python inside an emulated codespace: an environment of its own that borrows another one's packages.

Made by `venv` without pip and one `.pth` file, so in a tenth of a second and without a download. Packages that are
installed inside stay inside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from codespace_kernels.errors import EmulatorError

_LIMIT = 60.0

_DESCRIBE = """
import importlib.util, json, os, site, sys
folders = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]
print(json.dumps({"prefix": sys.prefix, "folders": folders, "scripts": os.path.dirname(sys.executable),
                  "executable": sys.executable}))
"""
_HERE = "import json, sysconfig, sys; print(json.dumps([sysconfig.get_path('purelib'), sysconfig.get_path('scripts')]))"
_HAS = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in sys.argv[1:]))"

_NO_WARNING = ["-Xfrozen_modules=off"]
"""As `ipykernel install` has it: else the debugger warns on stderr that it may miss breakpoints."""

_LENT_SCRIPTS = ("jupyter*", "ipython*", "pip*")


@dataclasses.dataclass(frozen=True)
class _Lender:
    executable: str
    prefix: Path
    scripts: Path
    folders: list[str]


class Python:
    """The Python inside.

    Args:
        lender: The interpreter whose packages are borrowed, or that is used itself.
        folder: Where the own environment stands; None: the lender itself is the Python inside.
    """

    def __init__(self, lender: str, folder: Path | None) -> None:
        self._lender_executable = lender
        self._folder = folder

    @property
    def scripts(self) -> Path:
        """The folder with its interpreter and scripts."""
        return self._folder / "bin" if self._folder else Path(self._lender_executable).parent

    @property
    def executable(self) -> Path:
        """The interpreter."""
        return self._folder / "bin" / "python" if self._folder else Path(self._lender_executable)

    def create(self, *, bare: bool) -> None:
        """Make the environment where it is missing or not as wanted; blocks (about 0.2 s).

        What was installed inside lasts from one start of the machine to the next.

        Args:
            bare: Without the borrowed packages: an image that has neither Jupyter nor ipykernel.

        Raises:
            EmulatorError: The lender cannot make environments.
        """
        if self._folder is None or (self._folder.exists() and bare is not self._mark.exists()):
            return
        self.remove()
        _run([self._lender_executable, "-m", "venv", "--without-pip", str(self._folder)])
        if not bare:
            self._lend()
            self._mark.touch()

    def remove(self) -> None:
        """Remove the environment with all that was installed there; blocks."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _mark(self) -> Path:
        """Written last, so that an environment that was made by halves is made anew."""
        assert self._folder is not None
        return self._folder / "borrowed"

    def _lend(self) -> None:
        """Let the environment have the lender's packages, scripts and Jupyter data."""
        lender = _describe(self._lender_executable)
        packages, _ = json.loads(_run([str(self.executable), "-c", _HERE]))
        lines = [f"import site; site.addsitedir({folder!r})" for folder in lender.folders]
        Path(packages, "_borrowed.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._lend_scripts(lender)
        self._lend_data(lender.prefix)
        if self.has("ipykernel"):
            self._write_kernelspec(lender)

    def has(self, *modules: str) -> bool:
        """Tell whether modules can be imported inside; blocks (about 0.05 s)."""
        command = [str(self.executable), "-c", _HAS, *modules]
        try:
            return subprocess.run(command, timeout=_LIMIT, check=False, capture_output=True).returncode == 0
        except FileNotFoundError:
            # It is being made anew.
            return False

    def _lend_scripts(self, lender: _Lender) -> None:
        for pattern in _LENT_SCRIPTS:
            for script in lender.scripts.glob(pattern):
                text = _python_script(script)
                if text is not None:
                    # `exec` by a shell: the path of an environment can be longer than a #! line may be.
                    head = f"#!/bin/sh\n'''exec' \"{self.executable}\" \"$0\" \"$@\"\n' '''\n"
                    target = self.scripts / script.name
                    target.write_text(head + text, encoding="utf-8")
                    target.chmod(0o755)

    def _lend_data(self, prefix: Path) -> None:
        assert self._folder is not None
        share = self._folder / "share" / "jupyter"
        share.mkdir(parents=True, exist_ok=True)
        for entry in (prefix / "share" / "jupyter").glob("*"):
            if entry.name != "kernels":
                _link(entry, share / entry.name)
        if (prefix / "etc" / "jupyter").is_dir():
            (self._folder / "etc").mkdir(exist_ok=True)
            _link(prefix / "etc" / "jupyter", self._folder / "etc" / "jupyter")

    def _write_kernelspec(self, lender: _Lender) -> None:
        assert self._folder is not None
        spec = _kernelspec_in(lender.prefix)
        spec["argv"] = [str(self.executable), *_NO_WARNING, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        folder = self._folder / "share" / "jupyter" / "kernels" / "python3"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(json.dumps(spec, indent=1), encoding="utf-8")
        for library in lender.folders:
            for logo in Path(library, "ipykernel", "resources").glob("logo-*"):
                shutil.copyfile(logo, folder / logo.name)


def _kernelspec_in(prefix: Path) -> dict[str, Any]:
    """Read what ipykernel's own wheel put there: the metadata differ between its versions."""
    path = prefix / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        spec = json.loads(path.read_text(encoding="utf-8"))
        if "ipykernel_launcher" in spec["argv"]:
            return dict(spec)
    return {"display_name": "Python 3 (ipykernel)", "language": "python", "metadata": {"debugger": True}}


def _describe(executable: str) -> _Lender:
    data = json.loads(_run([executable, "-c", _DESCRIBE]))
    return _Lender(data["executable"], Path(data["prefix"]), Path(data["scripts"]), data["folders"])


def _run(command: list[str]) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(command, timeout=_LIMIT, check=True, capture_output=True, text=True, env=env)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise EmulatorError(
            f"The Python of the emulated codespace could not be made with {command[0]}: {reason.strip()}"
        ) from error
    return done.stdout


def _python_script(path: Path) -> str | None:
    """Give the text of a Python script without its first line; None for anything else."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        first, _, rest = text.partition("\n")
        if first.startswith("#!") and "python" in first:
            return rest
        if text.startswith("#!/bin/sh\n'''exec'"):
            return text.split("\n' '''\n", 1)[-1]
    return None


def _link(target: Path, link: Path) -> None:
    with contextlib.suppress(FileExistsError):
        link.symlink_to(target)
