"""The panel's front end, built once for a checkout and built again when its sources changed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import filelock
import pytest

from ..conftest import REPOSITORY, run

SOURCES = REPOSITORY / "frontend"
OUTPUT = REPOSITORY / "codespace_kernels" / "labextension"
STAMP = OUTPUT / "sources.sha256"

NPM_SECONDS = 600.0


def _digest() -> str:
    """Give a digest of everything that the build reads of this repository."""
    digest = hashlib.sha256()
    made = (SOURCES / "node_modules", SOURCES / "lib", SOURCES / "lib.lock")
    for file in sorted(SOURCES.rglob("*")):
        if file.is_file() and not any(file.is_relative_to(folder) for folder in made):
            digest.update(str(file.relative_to(SOURCES)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def build() -> Path:
    """Give the built extension's folder; skips the test, loudly, where it cannot be had on this machine."""
    with filelock.FileLock(REPOSITORY / "frontend" / "lib.lock", timeout=NPM_SECONDS):
        wanted = _digest()
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return OUTPUT
        if shutil.which("npm") is None or shutil.which("node") is None:
            pytest.skip("Node.js is not installed: the panel of JupyterLab is not built, and so not looked at.")
        npm = ("npm", "--prefix", str(SOURCES))
        if not (SOURCES / "node_modules" / ".package-lock.json").is_file():
            fetched = run(*npm, "ci", timeout=NPM_SECONDS)
            if fetched.returncode != 0:
                pytest.skip("npm cannot fetch what the panel's build needs: the panel of JupyterLab is not looked at.")
        assert run(*npm, "run", "build", timeout=NPM_SECONDS).returncode == 0
        STAMP.write_text(wanted)
    return OUTPUT
