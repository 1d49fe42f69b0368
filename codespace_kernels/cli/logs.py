"""`codespace-kernels logs NAME`: how a codespace's container was made, as its creation log tells. It must run."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.errors import WorkspaceConnectionError

if TYPE_CHECKING:
    import argparse

COMMAND = (
    'log=.codespaces/.persistedshare/creation.log; for root in /workspaces "$(dirname "$CODESPACE_VSCODE_FOLDER")"; '
    'do if [ -r "$root/$log" ]; then exec %s "$root/$log"; fi; done; exit 66'
)
"""`gh` reads the first of the two places; the second is the same wherever the codespace has its repositories."""

NO_LOG = 66
"""The exit code of `COMMAND` where there is none (EX_NOINPUT)."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "logs", description=__doc__, parents=[shared.workspace(), shared.account(), shared.transport(), shared.output()]
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is added, until Ctrl-C")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Print the creation log."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with shared.open_provider(shared.chosen_access(options)) as provider:
        with terminal.progress() as progress:
            workspace = await provider.resolve(options.name)
            await provider.ensure_running(workspace.name, progress, start=False)
            connection = await provider.connect(workspace.name, progress)
        command = COMMAND % ("tail -n +1 -F" if options.follow else "cat")
        session = await connection.open_session(command, on_stderr=lambda _: None)
        text = bytearray()
        while data := await session.read():
            if options.json:
                text += data
            else:
                sys.stdout.buffer.write(data)
                sys.stdout.flush()
        await session.wait_closed()
        if session.exit_status == NO_LOG:
            raise WorkspaceConnectionError(
                f"{workspace.name} has no creation log. It is written by GitHub's own builds."
            )
        if options.json:
            terminal.print_json({"log": text.decode(errors="replace")})
        return 0
