"""`codespace-kernels start NAME`: start a codespace and wait until it can be connected to.

It costs computing time from then on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.providers.base import WorkspaceState

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Workspace


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "start", description=__doc__, parents=[shared.workspace(), shared.account(), shared.output()]
    )
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="SECONDS", help="how long to wait for it (default: 300)"
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Start a codespace."""
    workspace = asyncio.run(_start(options))
    if options.json:
        terminal.print_json({"codespace": workspace.to_json()})
    return 0


async def _start(options: argparse.Namespace) -> Workspace:
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        workspace = await provider.resolve(options.name)
        if workspace.state is WorkspaceState.RUNNING:
            terminal.say(f"{workspace.name} runs already.")
            return workspace
        with terminal.progress() as progress:
            workspace = await provider.ensure_running(workspace.name, progress, timeout=options.timeout)
        terminal.say(f"{workspace.name} runs. `codespace-kernels stop {workspace.name}` stops it.")
        return workspace
