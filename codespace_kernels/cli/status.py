"""`codespace-kernels status`: connections, kernels and what each is doing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import broker_status

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("status", description=__doc__, parents=[shared.common(), shared.output()])
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Show what the broker holds; that no broker runs is an answer, too."""
    status = broker_status()
    if options.json:
        terminal.print_json(status)
    elif status["broker"] is None:
        terminal.say("No broker is running: nothing is connected.")
    else:
        _show(status)
    return 0


def _show(status: dict[str, Any]) -> None:
    broker = status["broker"]
    terminal.say(f"Broker {broker['version']}, process {broker['pid']}, up for {_age(broker['started_at'])}.")
    if not status["workspaces"]:
        terminal.say("Nothing is connected.")
        return
    terminal.print_table(
        ("CODESPACE", "STATE", "SINCE", "BY", "ROUND TRIP"), [_workspace(entry) for entry in status["workspaces"]]
    )
    if status["kernels"]:
        terminal.print_table(
            ("KERNEL", "CODESPACE", "STATE", "SINCE", "NOTEBOOK"), [_kernel(entry) for entry in status["kernels"]]
        )


def _workspace(entry: dict[str, Any]) -> tuple[str, ...]:
    state = f"{entry['state']}: {entry['doing']}" if entry["doing"] else entry["state"]
    trip = entry["round_trip"]
    shown = "" if trip is None else f"{trip * 1000:.1f} ms"
    return entry["name"], state, _age(entry["since"]), entry["connection"], shown


def _kernel(entry: dict[str, Any]) -> tuple[str, ...]:
    state = f"{entry['state']}, kept" if entry["kept"] else entry["state"]
    return entry["kernel"], entry["workspace"], state, _age(entry["since"]), entry["session"]


def _age(since: float) -> str:
    """Give the time since a moment (seconds of the Unix epoch) in its largest unit."""
    seconds = max(0, int(time.time() - since))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
