"""Which files of tests take long: with `-n` they begin first, so that no processor is idle while the last one ends.

By itself, pytest runs the fast ones first.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SECONDS = {
    "e2e/test_asleep.py": 120,
    "e2e/browser/test_abilities.py": 110,
    "e2e/test_kept.py": 100,
}
"""Of the longest files, on two cores, roughly: only their order counts. `--durations=0` tells them anew."""


def longest_first(item: pytest.Item) -> tuple[bool, int]:
    """Give what to sort by: what shares the end-to-end tests' account stays together, then the longest file first."""
    path = item.path.relative_to(TESTS)
    return "e2e" not in path.parts, -SECONDS.get(path.as_posix(), 0)
