"""A GitHub account with codespaces that run on this machine; replaces the account, nothing else.

Names are imported when they are first used: pytest imports this package in every run, for the sake of its fixtures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codespace_kernels.emulator.faults import FaultBoard
    from codespace_kernels.emulator.models import CodespaceState
    from codespace_kernels.emulator.server import Emulator
    from codespace_kernels.emulator.state import emulator_token
    from codespace_kernels.emulator.threaded import ThreadedEmulator

__all__ = ["CodespaceState", "Emulator", "FaultBoard", "ThreadedEmulator", "emulator_token"]

_MODULES = {
    "CodespaceState": "models",
    "Emulator": "server",
    "FaultBoard": "faults",
    "ThreadedEmulator": "threaded",
    "emulator_token": "state",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
