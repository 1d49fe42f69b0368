"""What the verbs want to know of the broker, without starting one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psutil

from codespace_kernels import kernelspecs
from codespace_kernels.broker.client import BrokerClient, no_broker
from codespace_kernels.broker.ledger import Ledger, key_of, ledger_path
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.errors import BrokerError, WorkspaceNotFoundError
from codespace_kernels.processes import wait_for_end

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.providers.base import Workspace
    from codespace_kernels.target import Account

QUIT_TIMEOUT = 40.0
"""Seconds for a broker to end its kernels and connections, each of which it does in bounded time."""


def broker_status() -> dict[str, Any]:
    """Give the broker's `status`; `broker` is None and the lists are empty where none runs."""
    client = BrokerClient()
    return dict(client.call("GET", "status")) if client.running() else no_broker()


def end_broker() -> bool:
    """End the broker and wait until its process is gone; tell whether there was one.

    Raises:
        BrokerError: It did not end in time.
    """
    client = BrokerClient()
    if not client.running():
        return False
    try:
        process = psutil.Process(client.call("POST", "quit", {})["pid"])
    except psutil.NoSuchProcess:
        return True
    if wait_for_end([process], QUIT_TIMEOUT):
        raise BrokerError(f"The broker (process {process.pid}) did not end within {QUIT_TIMEOUT:g} s. End it.")
    return True


def kernels_of(workspace: str, account: Account) -> list[dict[str, Any]]:
    """Give the kernels that the broker holds in a workspace and that have not ended."""
    return [
        kernel
        for kernel in broker_status()["kernels"]
        if (kernel["workspace"], kernel["api_url"]) == (workspace, account.api_url)
        and kernel["state"] not in {"dead", "ended"}
    ]


def usage_of(workspace: Workspace, account: Account) -> dict[str, Any]:
    """Give a workspace's `usage`: the broker's where it knows the workspace, else what it wrote down before."""
    for entry in broker_status()["workspaces"]:
        if (entry["name"], entry["api_url"]) == (workspace.name, account.api_url):
            return dict(entry["usage"])
    meter = UsageMeter(Ledger(ledger_path(), read_only=True), key_of(account, workspace.name))
    # Not learnt: that it runs now does not say since when.
    meter.workspace = workspace
    return meter.to_json(busy=False)


def kernel_line(kernel: dict[str, Any]) -> str:
    """Say in a line which kernel of `status` it is, and what it does."""
    return f"{kernel['kernel']}, {kernel['state']} {kernel['session']}".rstrip()


def consent_to_end_kernels(workspace: str, account: Account, action: str, *, yes: bool) -> bool:
    """Say which kernels end by what is about to be done, and ask; no kernels, no question.

    Args:
        workspace: Name of the workspace.
        account: Whose.
        action: What is about to be done, as the start of a sentence: "Stopping hello".
        yes: Consent was given already.

    Raises:
        SettingsError: There is something to ask and nobody to answer.
    """
    kernels = kernels_of(workspace, account)
    if not kernels:
        return True
    terminal.say(f"{action} ends {len(kernels)} kernel{'s' if len(kernels) > 1 else ''}:")
    for kernel in kernels:
        terminal.say(f"  {kernel_line(kernel)}")
    if yes:
        return True
    terminal.must_be_able_to_ask(action)
    return terminal.ask("Go on?")


async def kernels_may_end(options: argparse.Namespace, workspace: str, doing: str) -> bool:
    """Ask as `consent_to_end_kernels` does, in a thread: the terminal must not block a client's connections.

    Args:
        options: With `yes`, and with what says whose workspace.
        workspace: Its name.
        doing: What is about to be done: "Stopping".

    Raises:
        SettingsError: There is something to ask and nobody to answer.
    """
    account, action = shared.chosen_account(options), f"{doing} {workspace}"
    return await asyncio.to_thread(consent_to_end_kernels, workspace, account, action, yes=options.yes)


def known_workspace(name: str, account: Account) -> str:
    """Find a workspace among those that are connected or have kernelspecs here, without asking the provider.

    Args:
        name: Its name, or its repository where only one workspace of that repository is known.
        account: Whose.

    Raises:
        WorkspaceNotFoundError: None, or more than one.
    """
    installed = kernelspecs.installed().values()
    specs = [spec for spec in installed if spec.target.account == account and spec.target.recipe is None]
    names = {spec.target.workspace for spec in specs}
    names |= {entry["name"] for entry in broker_status()["workspaces"] if entry["api_url"] == account.api_url}
    if name in names:
        return name
    matches = {spec.target.workspace for spec in specs if spec.repository.lower() == name.lower()}
    if len(matches) == 1:
        return matches.pop()
    known = f"Known are: {', '.join(sorted(names))}." if names else "Nothing is connected."
    raise WorkspaceNotFoundError(f"No codespace {name!r} is connected or has kernelspecs here. {known}")
