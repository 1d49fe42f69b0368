"""`codespace-kernels quit`: end the broker, and with it every connection and the kernels that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import end_broker

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("quit", description=__doc__, parents=[shared.common()])
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """End the broker; no broker is no error."""
    terminal.say("The broker ended." if end_broker() else "No broker is running.")
    return 0
