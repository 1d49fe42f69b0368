"""`codespace-kernels disconnect NAME`: give up the connection to a codespace and remove its kernelspecs.

The codespace itself goes on: `codespace-kernels stop` stops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels import kernelspecs
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import consent_to_end_kernels, known_workspace

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.broker.protocol import Access

TIMEOUT = 90.0
"""Seconds for the kernels of a workspace to end, politely first."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("disconnect", description=__doc__, parents=[shared.account()])
    parser.add_argument("name", metavar="NAME", help="the codespace, or its repository if that is clear")
    parser.add_argument("--keep-specs", action="store_true", help="keep the kernelspecs: the next kernel reconnects")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask, even if kernels end")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Disconnect from a codespace."""
    access = shared.chosen_access(options)
    name = known_workspace(options.name, access.account)
    if not consent_to_end_kernels(name, access.account, f"Disconnecting from {name}", yes=options.yes):
        terminal.say("Nothing was changed.")
        return 1
    connected = end_connection(access, name)
    terminal.say(f"Disconnected from {name}." if connected else f"{name} was not connected.")
    if not options.keep_specs:
        removed = kernelspecs.remove(name, access.account)
        terminal.say(f"Removed {', '.join(removed)}." if removed else "There were no kernelspecs of it.")
    return 0


def end_connection(access: Access, name: str) -> bool:
    """Give up the broker's connection to a workspace; tell whether there was one. Starts no broker."""
    client = BrokerClient()
    if not client.running():
        return False
    body = {"access": access.to_json(), "workspace": name}
    return bool(client.call("POST", "workspaces/disconnect", body, timeout=TIMEOUT)["disconnected"])
