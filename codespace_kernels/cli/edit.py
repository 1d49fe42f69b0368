"""`codespace-kernels edit NAME`: change a codespace's machine type, idle timeout or display name.

Another machine type is had from the codespace's next start on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.providers.base import ChangeRequest, WorkspaceState

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Workspace


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "edit", description=__doc__, parents=[shared.workspace(), shared.account(), shared.output()]
    )
    parser.add_argument("--machine", metavar="TYPE", help="name of a machine type; a wrong one lists those on offer")
    parser.add_argument("--idle-timeout", type=int, metavar="MINUTES", help="stop after so long without use: 5 to 240")
    parser.add_argument("--display-name", metavar="NAME", help="at most 48 bytes")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Change a codespace."""
    workspace = asyncio.run(_edit(options))
    if options.json:
        terminal.print_json({"codespace": workspace.to_json()})
    return 0


async def _edit(options: argparse.Namespace) -> Workspace:
    request = ChangeRequest(options.display_name, options.machine, options.idle_timeout)
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        before = await provider.resolve(options.name)
        workspace = await provider.change(before.name, request)
    terminal.say(f"Changed {workspace.name}.")
    if options.machine and before.state is not WorkspaceState.STOPPED:
        terminal.say("It has the other machine after a stop and a start.")
    return workspace
