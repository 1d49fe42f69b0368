"""The last steps of a new codespace's build, which go on when it can be connected to already.

`gh codespace create --status` polls the same file, `/workspaces/.codespaces/shared/postCreateOutput.json`, every second
until nothing runs in two looks: `{"steps": [{"name": …, "status": "running" | "succeeded" | "failed"}]}`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from codespace_kernels.connection import Connection

COMMAND = (
    'file=.codespaces/shared/postCreateOutput.json; for root in /workspaces "$(dirname "$CODESPACE_VSCODE_FOLDER")"; '
    'do if [ -r "$root/$file" ]; then exec cat "$root/$file"; fi; done'
)
"""`gh` reads the first of the two places; the second is the same wherever the codespace has its repositories."""

RUNNING, SUCCEEDED, FAILED = "running", "succeeded", "failed"

_QUIET_LOOKS = 2


class BuildStep(NamedTuple):
    """One step: its name, such as `postCreateCommand`, and `running`, `succeeded` or `failed`."""

    name: str
    status: str


async def follow_build(connection: Connection, *, pause: float = 1.0) -> AsyncIterator[BuildStep]:
    """Give each step when its status is new, until nothing runs any more.

    Args:
        connection: To the codespace.
        pause: Seconds between two looks.

    Raises:
        WorkspaceConnectionError: The connection was lost.
        WaitTimeoutError: The codespace does not answer.
    """
    known: dict[str, str] = {}
    quiet = 0
    while quiet < _QUIET_LOOKS:
        steps = read_steps((await connection.run(COMMAND)).stdout)
        for step in steps:
            if known.get(step.name) != step.status:
                known[step.name] = step.status
                yield step
        quiet = 0 if any(step.status == RUNNING for step in steps) else quiet + 1
        await asyncio.sleep(pause)


def read_steps(text: bytes) -> list[BuildStep]:
    """Read the file; no steps where there is none, or where it is seen half-written."""
    try:
        data: Any = json.loads(text)
    except ValueError:
        return []
    steps = data.get("steps") if isinstance(data, dict) else None
    return [
        BuildStep(str(step.get("name") or ""), str(step.get("status") or "").lower())
        for step in (steps if isinstance(steps, list) else [])
        if isinstance(step, dict)
    ]
