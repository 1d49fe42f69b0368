"""`codespace-kernels view NAME`: show everything about a codespace. Costs nothing and starts nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels import kernelspecs
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal, usage_text
from codespace_kernels.cli.broker_status import kernel_line, kernels_of, usage_of

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Workspace
    from codespace_kernels.target import Account


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "view", description=__doc__, parents=[shared.workspace(), shared.account(), shared.output()]
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Show a codespace."""
    workspace = asyncio.run(shared.chosen_workspace(options))
    account = shared.chosen_account(options)
    kernels = kernels_of(workspace.name, account)
    specs = specs_of(workspace.name, account)
    usage = usage_of(workspace, account)
    if options.json:
        terminal.print_json(
            {"codespace": workspace.to_json(), "kernels": kernels, "kernelspecs": specs, "usage": usage}
        )
        return 0
    terminal.print_facts(
        [
            *facts(workspace),
            *usage_facts(usage),
            *(("Kernel", kernel_line(kernel)) for kernel in kernels),
            *(("Kernelspec", name) for name in specs),
        ]
    )
    return 0


def specs_of(workspace: str, account: Account) -> list[str]:
    """Give the names of the kernelspecs of a workspace that are installed here."""
    installed = kernelspecs.installed().items()
    return sorted(n for n, spec in installed if (spec.target.workspace, spec.target.account) == (workspace, account))


def facts(workspace: Workspace) -> list[tuple[str, str]]:
    """Give what is known of a workspace, for people; what is not known is empty."""
    return [
        ("Name", workspace.name),
        ("Display name", workspace.title if workspace.title != workspace.name else ""),
        ("State", workspace.provider_state),
        ("Last stop", workspace.stop_notice),
        ("Repository", workspace.repository),
        ("Branch", workspace.ref),
        ("Changes", unsaved(workspace)),
        ("Dev container", workspace.devcontainer_path),
        ("Machine", " ".join(part for part in (workspace.machine_name, _in_brackets(workspace.machine)) if part)),
        ("Price", usage_text.price(workspace.dollars_per_hour)),
        ("Region", workspace.location),
        ("Paid by", workspace.billable_owner),
        ("Created", workspace.created_at),
        ("Last used", workspace.last_used_at),
        ("Idle timeout", _minutes(workspace.idle_timeout_minutes)),
        ("Deleted after", _minutes(workspace.retention_period_minutes)),
        ("Page", workspace.web_url),
    ]


def usage_facts(usage: dict[str, Any]) -> list[tuple[str, str]]:
    """Give what is known of a workspace's use, for people; what is not known is empty."""
    now, month = time.time(), usage_text.month_cost(usage)
    return [
        ("Running", usage_text.uptime(usage, now)),
        ("Stops", usage_text.stops(usage, now)),
        ("This session", usage_text.session_cost(usage)),
        ("This month", month),
        ("Estimate", usage_text.remark(usage) if month else ""),
    ]


def unsaved(workspace: Workspace) -> str:
    """Say what deleting a workspace would lose; empty where nothing is known of."""
    parts = []
    if workspace.has_uncommitted_changes:
        parts.append("uncommitted changes")
    if workspace.has_unpushed_changes:
        parts.append("unpushed commits")
    return " and ".join(parts)


def _in_brackets(text: str) -> str:
    return f"({text})" if text else ""


def _minutes(minutes: int | None) -> str:
    """Give a time in its largest whole unit."""
    if minutes is None:
        return ""
    for unit, length in (("day", 1440), ("hour", 60)):
        if minutes and minutes % length == 0:
            count = minutes // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{minutes} minutes"
