"""The short form: some hundred cases of each target, other ones each time. `python -m tests.fuzz` is the long one."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from .endpoints import ENDPOINTS
from .run import run_target
from .targets import TARGETS


@pytest.fixture(autouse=True)
def without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("name", "target"), [*TARGETS.items(), *ENDPOINTS.items()], ids=[*TARGETS, *ENDPOINTS])
def test_nothing_from_outside_does_more_than_it_may(name: str, target: Any) -> None:
    result = run_target(name, target, secrets.randbits(32), cases=400, seconds=0.4)
    assert result.cases
