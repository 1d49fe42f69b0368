"""`codespace-kernels stop NAME`: stop a codespace. It costs no computing time then; its files stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import kernels_may_end
from codespace_kernels.cli.disconnect import TIMEOUT
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.providers.base import Workspace, WorkspaceState

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
        client = BrokerClient()
        if client.running():
            body = {"access": shared.chosen_access(options).to_json(), "workspace": name, "end_kernels": True}
            # It ends the kernels, and nobody in it tries to mend the connection.
            done = await asyncio.to_thread(client.call, "POST", "workspaces/stop", body, timeout=TIMEOUT)
            workspace = Workspace.from_json(done["workspace"])
        else:
            workspace = await provider.stop(name)
    terminal.say(f"{name}: {workspace.provider_state}. Its kernelspecs stay: running a cell starts it again.")
    return _report(options, workspace)


def _report(options: argparse.Namespace, workspace: Workspace) -> int:
    if options.json:
        terminal.print_json({"codespace": workspace.to_json()})
    return 0
