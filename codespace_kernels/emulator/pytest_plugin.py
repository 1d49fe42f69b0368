"""Fixtures that give a test an emulated GitHub account.

The plugin is loaded in every pytest run of an environment that has this package, so what costs time is imported inside
the fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from codespace_kernels import platforms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codespace_kernels.emulator.threaded import ThreadedEmulator


@pytest.fixture(scope="session")
def emulator_options() -> dict[str, Any]:
    """Options of `Emulator` for the fixtures below; override it to have others."""
    return {"transition_seconds": 0.1}


def _run(options: dict[str, Any]) -> Iterator[ThreadedEmulator]:
    if platforms.is_windows():
        pytest.skip("the emulator runs on Linux and macOS only")
    from codespace_kernels.emulator.server import Emulator
    from codespace_kernels.emulator.threaded import ThreadedEmulator

    with ThreadedEmulator(Emulator(**options)) as running:
        yield running


@pytest.fixture
def emulator(emulator_options: dict[str, Any]) -> Iterator[ThreadedEmulator]:
    """An emulated GitHub account of this test's own."""
    yield from _run(emulator_options)


@pytest.fixture(scope="session")
def shared_emulator(emulator_options: dict[str, Any]) -> Iterator[ThreadedEmulator]:
    """An emulated GitHub account that all tests of the run share: leave it as you found it."""
    yield from _run(emulator_options)
