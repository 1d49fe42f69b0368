"""Options that several verbs share, and what they come down to."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from codespace_kernels.broker.protocol import Access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from codespace_kernels.providers.base import Provider, Workspace
    from codespace_kernels.target import Account


def common() -> argparse.ArgumentParser:
    """Give a parent parser with what every verb takes."""
    parent = argparse.ArgumentParser(add_help=False)
    # Suppressed, or the verb's default would undo a `--debug` before the verb.
    parent.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parent


def account() -> argparse.ArgumentParser:
    """Give a parent parser with what says whose codespaces are meant."""
    parent = argparse.ArgumentParser(add_help=False, parents=[common()])
    group = parent.add_mutually_exclusive_group()
    group.add_argument("--host", metavar="HOST", help="GitHub host, such as github.com (default: GH_HOST)")
    group.add_argument("--api-url", metavar="URL", help="address of the REST API (default: GITHUB_API_URL)")
    return parent


def transport() -> argparse.ArgumentParser:
    """Give a parent parser with how a codespace is reached."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--transport",
        choices=("auto", "tunnel", "gh"),
        default="auto",
        help="reach the codespace by our own tunnel client, by `gh codespace ssh --stdio`, or by what works (auto)",
    )
    return parent


def workspace() -> argparse.ArgumentParser:
    """Give a parent parser with which codespace is meant."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("name", metavar="NAME", help="the codespace, or its title or repository if that is clear")
    return parent


def output() -> argparse.ArgumentParser:
    """Give a parent parser with `--json`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print JSON (docs/command-line.md describes it)")
    return parent


def chosen_account(options: argparse.Namespace) -> Account:
    """Give the account that the options mean, else the one that the environment means.

    Raises:
        SettingsError: The address or host cannot be used.
    """
    from codespace_kernels.github import account_from_environment

    if options.api_url:
        return account_from_environment({"GITHUB_API_URL": options.api_url})
    if options.host:
        return account_from_environment({"GH_HOST": options.host})
    return account_from_environment(os.environ)


def chosen_access(options: argparse.Namespace) -> Access:
    """Give what the broker must know to act for this user."""
    return Access.of(chosen_account(options), os.environ, getattr(options, "transport", "auto"))


async def chosen_workspace(options: argparse.Namespace) -> Workspace:
    """Give the codespace that the options mean.

    Raises:
        WorkspaceNotFoundError: None, or more than one.
    """
    async with open_provider(chosen_access(options)) as provider:
        return await provider.resolve(options.name)


@contextlib.asynccontextmanager
async def open_provider(access: Access) -> AsyncIterator[Provider]:
    """Give the provider of an account, closed at the end."""
    from codespace_kernels.providers.registry import make_provider

    provider = make_provider(access.account, env=os.environ, transport=access.transport)
    try:
        yield provider
    finally:
        await provider.close()
