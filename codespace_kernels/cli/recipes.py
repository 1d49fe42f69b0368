"""What verbs share that mean any codespace of a kind: its options, the search for it, consent to what it costs."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.providers.base import Workspace
from codespace_kernels.recipe import Recipe

if TYPE_CHECKING:
    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.providers.terms import Terms

_NAMES = {
    "branch": "that is checked out (default: the repository's default branch)",
    "devcontainer_path": "which devcontainer.json it was made from (default: the default one)",
    "machine": "name of a machine type (default: any)",
    "location": "region of a new one, such as WestEurope",
}


def add_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that say what a codespace of a repository is like; give their group."""
    group = parser.add_argument_group("which codespace of the repository")
    for name, text in _NAMES.items():
        metavar = "PATH" if name == "devcontainer_path" else name.upper()
        group.add_argument(f"--{name.replace('_', '-')}", default="", metavar=metavar, help=text)
    group.add_argument(
        "--idle-timeout", type=int, metavar="MINUTES", help="a new one stops after so long without use: 5 to 240"
    )
    return group


def given_options(options: argparse.Namespace) -> list[str]:
    """Give the names of these options that were given."""
    names = [*_NAMES, "idle_timeout"]
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in ("", None)]


def chosen_recipe(repository: str, options: argparse.Namespace) -> Recipe:
    """Give what the options come down to.

    Raises:
        SettingsError: The repository is not of the form OWNER/REPO, or the branch is a commit.
    """
    return Recipe(
        repository,
        options.branch,
        options.devcontainer_path,
        options.machine,
        options.location,
        options.idle_timeout,
    )


@dataclasses.dataclass(frozen=True)
class Found:
    """What the broker found: a workspace, and whether it was made for this."""

    workspace: Workspace
    created: bool


def find(access: Access, recipe: Recipe, *, create: bool = False, join: bool = False) -> Found | None:
    """Let the broker find, or make, a codespace (see `broker.Broker.find`).

    Raises:
        CodespaceKernelsError: The account cannot be looked at, or nothing can be made; says why.
    """
    client = BrokerClient()
    with terminal.progress() as progress:
        progress(ProgressEvent("find", f"Looking for a codespace of {recipe.title}"))
        client.ensure()
        body = {"access": access.to_json(), "recipe": recipe.to_json(), "create": create, "join": join}
        answer: dict[str, Any] = client.stream("workspaces/find", body, progress)
    if answer["workspace"] is None:
        return None
    return Found(Workspace.from_json(answer["workspace"]), bool(answer["created"]))


def allowed(access: Access, recipe: Recipe, question: str, *, yes: bool) -> tuple[Recipe, Terms] | None:
    """Say who would pay for a codespace, and ask.

    Args:
        access: Whose.
        recipe: What it is like.
        question: What is asked, once it was said who pays.
        yes: Consent was given already.

    Returns:
        The recipe that allows it, and its terms; None where a person said no.

    Raises:
        SettingsError: There is nobody to ask, or what is wanted is not to be had.
        CodespaceKernelsError: It cannot be found out who pays.
    """
    terms = asyncio.run(_terms(access, recipe))
    terminal.say(f"A codespace of {recipe.title}: {terms}.")
    if not yes:
        terminal.must_be_able_to_ask("Creating a codespace, which somebody pays for,")
        if not terminal.ask(question):
            return None
    return dataclasses.replace(recipe, may_create=True, payer=terms.payer), terms


async def _terms(access: Access, recipe: Recipe) -> Terms:
    # Only who needs it pays for the import.
    from codespace_kernels.providers.terms import terms_of

    async with shared.open_provider(access) as provider:
        return await terms_of(provider, recipe.request())
