"""`codespace-kernels status`: connections, kernels and what each is doing, and what runs up costs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal, usage_text
from codespace_kernels.cli.broker_status import broker_status
from codespace_kernels.errors import SettingsError
from codespace_kernels.plain_text import harmless

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

NO_BROKER = "No broker is running: nothing is connected."
NOTHING = "Nothing is connected."

REDRAW_SECONDS = 1.0
"""Between two drawings of what is watched: times go on, though nothing has changed."""

_WORKSPACES = ("CODESPACE", "STATE", "SINCE", "BY", "ROUND TRIP")
_USAGE = ("COSTS OF", "PRICE", "RUNNING", "STOPS", "THIS SESSION", "THIS MONTH")
_KERNELS = ("KERNEL", "CODESPACE", "STATE", "SINCE", "NOTEBOOK")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("status", description=__doc__, parents=[shared.common(), shared.output()])
    parser.add_argument(
        "--watch", action="store_true", help="follow it until Ctrl-C; with --json, a JSON object a line at each change"
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Show what the broker holds; that no broker runs is an answer, too."""
    if options.watch:
        if not options.json and not terminal.is_terminal():
            raise SettingsError("--watch draws in a terminal, and stdout is none. Add --json to have lines instead.")
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_print_lines() if options.json else _draw())
        return 0
    status = broker_status()
    if options.json:
        terminal.print_json(status)
    elif status["broker"] is None:
        terminal.say(NO_BROKER)
    else:
        _show(status)
    return 0


async def _print_lines() -> None:
    from codespace_kernels.broker.client import BrokerClient

    async with contextlib.aclosing(BrokerClient().watch()) as documents:
        async for document in documents:
            terminal.print_json_line(document)


async def _draw() -> None:
    """Draw the newest status again and again."""
    from rich.console import Console
    from rich.live import Live

    from codespace_kernels.broker.client import BrokerClient

    with Live(console=Console(), auto_refresh=False) as live:
        shown: dict[str, Any] = {}

        async def redraw() -> None:
            while True:
                live.update(_picture(shown), refresh=True)
                await asyncio.sleep(REDRAW_SECONDS)

        async with contextlib.aclosing(BrokerClient().watch()) as documents:
            shown = await anext(documents)
            drawing = asyncio.create_task(redraw())
            try:
                async for shown in documents:
                    live.update(_picture(shown), refresh=True)
            finally:
                drawing.cancel()


def _picture(status: dict[str, Any]) -> RenderableType:
    """Give all of a status as something that can be drawn again."""
    from rich.console import Group
    from rich.text import Text

    if status["broker"] is None:
        return NO_BROKER
    tables = [terminal.table(columns, rows) for columns, rows in _tables(status) if rows]
    return Group(*tables, *(Text(harmless(remark)) for remark in _remarks(status))) if status["workspaces"] else NOTHING


def _show(status: dict[str, Any]) -> None:
    broker = status["broker"]
    terminal.say(f"Broker {broker['version']}, process {broker['pid']}, up for {_age(broker['started_at'])}.")
    if notice := broker.get("notice"):
        terminal.say(notice)
    if not status["workspaces"]:
        terminal.say(NOTHING)
        return
    for columns, rows in _tables(status):
        if rows:
            terminal.print_table(columns, rows)
    for line in _remarks(status):
        terminal.say(line)


def _tables(status: dict[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    usage = [_usage(entry) for entry in status["workspaces"]]
    return [
        (_WORKSPACES, [_workspace(entry) for entry in status["workspaces"]]),
        (_KERNELS, [_kernel(entry) for entry in status["kernels"]]),
        (_USAGE, [row for row in usage if any(row[2:])]),
    ]


def _remarks(status: dict[str, Any]) -> list[str]:
    """Give what is to be said below the tables: who is promised less, and what costs are worth."""
    weaker = [
        f"{entry['name']} is reached by its own Jupyter server: what its kernels print while the connection is broken "
        f"may be lost. Why: {entry['promise']['why']}"
        for entry in status["workspaces"]
        if entry.get("promise") and entry["promise"]["output"] != "kept"
    ]
    costs = [entry["usage"] for entry in status["workspaces"] if usage_text.month_cost(entry["usage"])]
    return weaker + ([usage_text.remark(costs[0])] if costs else [])


def _workspace(entry: dict[str, Any]) -> tuple[str, ...]:
    state = f"{entry['state']}: {entry['doing']}" if entry["doing"] else entry["state"]
    trip = entry["round_trip_ms"]
    shown = "" if trip is None else f"{trip:.1f} ms"
    return entry["name"], state, _age(entry["since"]), entry["connection"], shown


def _usage(entry: dict[str, Any]) -> tuple[str, ...]:
    usage, now = entry["usage"], time.time()
    return (
        entry["name"],
        usage_text.price(usage["dollars_per_hour"]),
        usage_text.uptime(usage, now),
        usage_text.stops(usage, now),
        usage_text.session_cost(usage),
        usage_text.month_cost(usage),
    )


def _kernel(entry: dict[str, Any]) -> tuple[str, ...]:
    state = f"{entry['state']}, kept" if entry["kept"] else entry["state"]
    return entry["kernel"], entry["workspace"] or entry["recipe"], state, _age(entry["since"]), entry["session"]


def _age(since: float) -> str:
    """Give the time since a moment (seconds of the Unix epoch) in its largest unit."""
    seconds = max(0, int(time.time() - since))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
