"""`codespace-kernels rebuild NAME`: make a codespace's container anew, from its dev container configuration.

Every process in it ends; the repository's folder stays, what lies elsewhere is lost.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import kernels_may_end
from codespace_kernels.cli.disconnect import end_connection

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Provider, Workspace


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "rebuild", description=__doc__, parents=[shared.workspace(), shared.account(), shared.output()]
    )
    parser.add_argument("--full", action="store_true", help="use nothing again that was built before")
    parser.add_argument(
        "--timeout", type=float, default=3600.0, metavar="SECONDS", help="how long to wait (default: 3600)"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask, even if kernels end")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Rebuild a codespace."""
    workspace = asyncio.run(_run(options))
    if workspace is None:
        terminal.say("Nothing was changed.")
        return 1
    terminal.say(f"{workspace.name} was rebuilt.")
    if options.json:
        terminal.print_json({"codespace": workspace.to_json()})
    return 0


async def _run(options: argparse.Namespace) -> Workspace | None:
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        workspace = await provider.resolve(options.name)
        agreed = await kernels_may_end(options, workspace.name, "Rebuilding")
        return await _rebuild(options, provider, workspace.name) if agreed else None


async def _rebuild(options: argparse.Namespace, provider: Provider, name: str) -> Workspace:
    with terminal.progress() as progress:
        await provider.ensure_running(name, progress)
        await asyncio.to_thread(end_connection, shared.chosen_access(options), name)
        await provider.rebuild(name, progress, full=options.full)
        return await provider.ensure_running(name, progress, timeout=options.timeout)
