"""The benchmarks run: without peers, which would have to be installed. How fast anything is, is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.numbers import NETWORK_ALONE

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_quick_run_of_one_part_without_peers(tmp_path: Path):
    """In a home of its own, which it makes."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--only", "40 ms", "--no-peers"]
    command += ["--ways", "local", "ours, tunnel"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "WARNING: the peers are left out" in done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "tables.md")
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["durations"]) == {"40 ms"}
    ways = {"local", "ours, tunnel"}
    (alone,) = results["40 ms"]["latency"].pop(NETWORK_ALONE)
    assert 40 <= min(alone) <= min(results["40 ms"]["latency"]["ours, tunnel"][0])
    for what, samples in results["40 ms"].items():
        assert set(samples) == ways, what
        assert not [one for of in samples.values() for one in of if isinstance(one, str)]
    for way in ways:
        assert results["40 ms"]["burst of 2,000"][way][0]["count"] == 2000
    tables = (tmp_path / "tables.md").read_text()
    assert "**The peers were left out.**" in tables
    assert "## Messages, 40 ms, 100 Mbit/s" in tables


def test_an_unknown_part_is_refused():
    command = [sys.executable, "-m", "benchmarks", "--only", "nothing"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'nothing'" in done.stderr
