"""`codespace-kernels delete NAME`: delete a codespace, everything in it, and its kernelspecs here.

It cannot be undone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels import kernelspecs
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import kernel_line, kernels_of
from codespace_kernels.cli.disconnect import end_connection
from codespace_kernels.cli.view import unsaved
from codespace_kernels.errors import SettingsError
from codespace_kernels.progress import ProgressEvent

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Workspace


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "delete", description=__doc__, parents=[shared.workspace(), shared.account(), shared.output()]
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--discard-changes", action="store_true", help="with --yes: also if there are unsaved changes in it"
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Delete a codespace."""
    if not options.yes:
        terminal.must_be_able_to_ask("Deleting a codespace")
    workspace = asyncio.run(_run(options))
    if workspace is None:
        terminal.say("Nothing was deleted.")
        return 1
    account = shared.chosen_account(options)
    removed = kernelspecs.remove(workspace.name, account)
    terminal.say(f"Deleted {', '.join([workspace.name, *removed])}.")
    if options.json:
        terminal.print_json({"deleted": workspace.name, "kernelspecs": removed})
    return 0


async def _run(options: argparse.Namespace) -> Workspace | None:
    access = shared.chosen_access(options)
    async with shared.open_provider(access) as provider:
        workspace = await provider.resolve(options.name)
        if not await asyncio.to_thread(_consent, options, workspace):
            return None
        with terminal.progress() as progress:
            progress(ProgressEvent("delete", f"Deleting {workspace.name}"))
            # First, so that its kernels end politely and nobody tries to mend the connection.
            await asyncio.to_thread(end_connection, access, workspace.name)
            await provider.delete(workspace.name)
        return workspace


def _consent(options: argparse.Namespace, workspace: Workspace) -> bool:
    """Say what is lost, and ask.

    Raises:
        SettingsError: Changes would be lost that nobody was asked about.
    """
    lost = unsaved(workspace)
    if options.yes:
        if lost and not options.discard_changes:
            raise SettingsError(
                f"{workspace.name} has {lost}, which deleting it would lose. Push them, or add --discard-changes."
            )
        return True
    terminal.say(f"{workspace.name} of {workspace.repository or 'no repository'}, {workspace.provider_state}:")
    terminal.say(f"  It has {lost}, which are lost." if lost else "  GitHub knows of no unsaved changes in it.")
    for kernel in kernels_of(workspace.name, shared.chosen_account(options)):
        terminal.say(f"  A kernel ends: {kernel_line(kernel)}")
    return terminal.ask("Delete it and everything in it?")
