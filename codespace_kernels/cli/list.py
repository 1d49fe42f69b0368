"""`codespace-kernels list`: codespaces and their state. Costs nothing and starts nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Workspace

COLUMNS = ("NAME", "REPOSITORY", "BRANCH", "STATE", "MACHINE", "LAST USED")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("list", description=__doc__, parents=[shared.account(), shared.output()])
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """List the account's codespaces."""
    workspaces = asyncio.run(_list(options))
    if options.json:
        terminal.print_json({"codespaces": [workspace.to_json() for workspace in workspaces]})
        return 0
    terminal.print_table(COLUMNS, [_row(workspace) for workspace in workspaces])
    if not workspaces:
        terminal.say("No codespaces. Create one with `codespace-kernels create OWNER/REPO`.")
    return 0


async def _list(options: argparse.Namespace) -> list[Workspace]:
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        return await provider.list()


def _row(workspace: Workspace) -> tuple[str, ...]:
    return (
        workspace.name,
        workspace.repository,
        workspace.ref,
        workspace.provider_state,
        workspace.machine,
        workspace.last_used_at,
    )
