"""What the bootstrap script says on stdout: lines of JSON behind a mark, to be told from a login shell's chatter."""

from __future__ import annotations

import json
import sys
from typing import Any

MARK = "codespace-kernels: "


def line(**fields: Any) -> str:
    """Give one line, without its end."""
    return MARK + json.dumps(fields)


def progress(stage: str, message: str) -> None:
    """Say what is being done, present tense, no full stop."""
    print(line(stage=stage, message=message), flush=True)


def result(kind: str, **fields: Any) -> None:
    """Say the result; the last line of the script, but for a link, whose bytes follow it."""
    print(line(result=kind, **fields), flush=True)


def note(text: str) -> None:
    """Write for the operator's log."""
    print(text, file=sys.stderr, flush=True)
