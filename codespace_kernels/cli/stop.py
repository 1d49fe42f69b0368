"""`codespace-kernels stop NAME`: stop a codespace. It costs no computing time then; its files stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import kernels_may_end
from codespace_kernels.cli.disconnect import end_connection
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.providers.base import WorkspaceState

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Provider, Workspace


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parents = [shared.workspace(), shared.account(), shared.output()]
    parser = subparsers.add_parser("stop", description=__doc__, parents=parents)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask, even if kernels end")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Stop a codespace."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        workspace = await provider.resolve(options.name)
        if workspace.state is WorkspaceState.STOPPED:
            terminal.say(f"{workspace.name} is stopped already.")
            return _report(options, workspace)
        agreed = await kernels_may_end(options, workspace.name, "Stopping")
        if not agreed:
            terminal.say("Nothing was changed.")
            return 1
        return await _stop(options, provider, workspace.name)


async def _stop(options: argparse.Namespace, provider: Provider, name: str) -> int:
    with terminal.progress() as progress:
        progress(ProgressEvent("stop", f"Stopping {name}"))
        # First, so that its kernels end politely and nobody tries to mend the connection.
        await asyncio.to_thread(end_connection, shared.chosen_access(options), name)
        workspace = await provider.stop(name)
    terminal.say(f"{name}: {workspace.provider_state}. Its kernelspecs stay: running a cell starts it again.")
    return _report(options, workspace)


def _report(options: argparse.Namespace, workspace: Workspace) -> int:
    if options.json:
        terminal.print_json({"codespace": workspace.to_json()})
    return 0
