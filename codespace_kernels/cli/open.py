"""`codespace-kernels open NAME`: open a codespace's page, its editor, in the browser. GitHub starts it then."""

from __future__ import annotations

import asyncio
import webbrowser
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.errors import SettingsError

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "open", description=__doc__, parents=[shared.workspace(), shared.account(), shared.output()]
    )
    parser.add_argument("--print", action="store_true", help="print the address only")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Open a codespace's page."""
    url = asyncio.run(_address(options))
    if options.json:
        terminal.print_json({"url": url})
    elif options.print or not webbrowser.open(url):
        print(url, flush=True)
    return 0


async def _address(options: argparse.Namespace) -> str:
    workspace = await shared.chosen_workspace(options)
    if not workspace.web_url.startswith(("https://", "http://")):
        raise SettingsError(f"GitHub names no page of {workspace.name}.")
    return workspace.web_url
