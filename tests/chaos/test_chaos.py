"""The short form, with another seed each time. `python -m tests.chaos` is the long one."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_nothing_is_lost_or_doubled_whatever_breaks(tmp_path: Path) -> None:
    """In a process and home of its own: what it kills and stops is nobody else's."""
    options = ["--faults", "26", "--kernels", "3", "--patience", "0.8", "--pause", "0.1"]
    options += ["--bound", "140", "--end-bound", "90"]
    files = ["--seed", str(secrets.randbits(32)), "--journal", str(tmp_path / "journal.jsonl")]
    command = [sys.executable, "-m", "tests.chaos", *options, *files]
    log = tmp_path / "log"
    try:
        # A file, so that what was said is seen where the run itself hangs in spite of its bounds.
        with log.open("wb") as file:
            done = subprocess.run(
                command, cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT, timeout=220, check=False
            )
    finally:
        print(log.read_text(errors="replace"))
    assert done.returncode == 0
    assert "26 faults in" in log.read_text()
