"""`codespace-kernels create OWNER/REPO`: create a codespace. Says first who pays, and asks."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import connect, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.providers.base import CreateRequest

if TYPE_CHECKING:
    from codespace_kernels.providers.base import Workspace


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("create", description=__doc__, parents=[shared.account(), shared.transport()])
    parser.add_argument("repository", metavar="OWNER/REPO", type=_repository)
    parser.add_argument("--branch", default="", help="branch or commit (default: the repository's)")
    parser.add_argument("--machine", default="", help="name of a machine type (default: the smallest that will do)")
    parser.add_argument("--devcontainer-path", default="", metavar="PATH", help="which devcontainer.json to use")
    parser.add_argument("--display-name", default="", metavar="NAME", help="at most 48 bytes")
    parser.add_argument("--idle-timeout", type=int, metavar="MINUTES", help="stop after so long without use: 5 to 240")
    parser.add_argument(
        "--retention", type=int, metavar="MINUTES", help="delete so long after it was stopped: 0 to 43200"
    )
    parser.add_argument("--location", default="", help="region, such as WestEurope")
    parser.add_argument(
        "--default-permissions",
        action="store_true",
        help="decline further permissions that the devcontainer asks for",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--connect", action="store_true", help="go on with `connect`")
    parser.set_defaults(func=run)


def _repository(text: str) -> str:
    owner, slash, name = text.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OWNER/REPO")
    return text


def run(options: argparse.Namespace) -> int:
    """Create a codespace; print its name, and nothing else, on stdout."""
    if not options.yes:
        terminal.must_be_able_to_ask("Creating a codespace, which somebody pays for,")
    workspace = asyncio.run(_create(options))
    if workspace is None:
        terminal.say("Nothing was created.")
        return 1
    print(workspace.name, flush=True)
    if options.connect:
        return _connect(options, workspace.name)
    terminal.say(f"Next: codespace-kernels connect {workspace.name}")
    return 0


def _connect(options: argparse.Namespace, name: str) -> int:
    access = shared.chosen_access(options)
    answer = connect.ask_broker(access, name)
    connect.report(answer, connect.write_specs(access, answer, []))
    return 0


async def _create(options: argparse.Namespace) -> Workspace | None:
    request = _request(options)
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        payer = await provider.payer(request)
        terminal.say(f"A codespace of {request.repository}: {payer or 'GitHub does not say who'} pays for it.")
        # Asked in a thread: the terminal must not block the client's connections.
        if not options.yes and not await asyncio.to_thread(terminal.ask, "Create it?"):
            return None
        with terminal.progress() as progress:
            return await provider.create(request, progress)


def _request(options: argparse.Namespace) -> CreateRequest:
    return CreateRequest(
        repository=options.repository,
        ref=options.branch,
        devcontainer_path=options.devcontainer_path,
        machine=options.machine,
        display_name=options.display_name,
        idle_timeout_minutes=options.idle_timeout,
        retention_period_minutes=options.retention,
        location=options.location,
        default_permissions=options.default_permissions,
    )
