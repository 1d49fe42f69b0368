"""`codespace-kernels connect OWNER/REPO --as-recipe`: kernelspecs that mean any codespace of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels import kernelspecs
from codespace_kernels.cli import connect, recipes, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.errors import SettingsError, WorkspaceNotFoundError
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.target import Target

if TYPE_CHECKING:
    import argparse

    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.recipe import Recipe

_SHOWN = {"python3": "Python 3", "ir": "R", "bash": "Bash"}
"""How usual kernelspecs call themselves, by name."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `connect` that are for recipes."""
    group = recipes.add_options(parser)
    group.add_argument(
        "--as-recipe",
        action="store_true",
        help="NAME is OWNER/REPO: the kernelspecs mean whichever codespace of it is like this when a notebook is run",
    )
    group.add_argument(
        "--allow-create",
        action="store_true",
        help="running a cell creates one where none is like this; says who pays, and asks",
    )
    group.add_argument(
        "--language", default="", help="of the --kernel: its kernelspec is written without connecting to a codespace"
    )
    group.add_argument("-y", "--yes", action="store_true", help="do not ask")


def check(options: argparse.Namespace) -> None:
    """Check that what is for recipes was given for one.

    Raises:
        SettingsError: It was not, or options contradict each other.
    """
    others = {"--allow-create": options.allow_create, "--language": options.language}
    given = [*recipes.given_options(options), *(name for name, value in others.items() if value)]
    if given and not options.as_recipe:
        raise SettingsError(f"{given[0]} is for --as-recipe: a codespace that is named is as it is.")
    if options.language and not options.kernel:
        raise SettingsError("--language is for a kernel that is named with --kernel.")


def run(options: argparse.Namespace) -> int:
    """Write the kernelspecs of a recipe."""
    access, policy = shared.chosen_access(options), connect.policy_of(options)
    recipe = recipes.chosen_recipe(options.name, options)
    if options.allow_create:
        question = "May a cell that is run create one, each time that none is like this?"
        agreed = recipes.allowed(access, recipe, question, yes=options.yes)
        if agreed is None:
            terminal.say("Nothing was written.")
            return 1
        recipe = agreed[0]
    # Looked for in any case: an unknown repository is better told now than in a notebook.
    found = recipes.find(access, recipe)
    remote = _described(options) if options.language else _kernels(access, recipe, found, options)
    written = connect.written_specs(kernelspecs.write_recipe(_targets(access, recipe, remote, policy)))
    if options.json:
        terminal.print_json({"recipe": recipe.to_json(), "kernelspecs": [spec.to_json() for spec in written]})
    else:
        _report(recipe, written)
    return 0


def _targets(
    access: Access, recipe: Recipe, remote: dict[str, RemoteKernelSpec], policy: connect.Policy
) -> dict[Target, RemoteKernelSpec]:
    said = policy._asdict()
    return {
        Target(access.account, "", name, access.transport, language=spec.language, recipe=recipe, **said): spec
        for name, spec in remote.items()
    }


def _described(options: argparse.Namespace) -> dict[str, RemoteKernelSpec]:
    # Every IPython kernel since 2021 has a debugger; who names another one has no button for it, or one without use.
    metadata: dict[str, Any] = {"debugger": True} if options.language.lower() == "python" else {}
    return {
        name: RemoteKernelSpec(name, _SHOWN.get(name, name), options.language, metadata=metadata)
        for name in options.kernel
    }


def _kernels(
    access: Access, recipe: Recipe, found: recipes.Found | None, options: argparse.Namespace
) -> dict[str, RemoteKernelSpec]:
    """Ask a codespace that is like this for its kernels.

    Raises:
        WorkspaceNotFoundError: There is none.
        KernelNotFoundError: It has none, or not those that are wanted.
    """
    if found is None:
        raise WorkspaceNotFoundError(
            f"There is no codespace of {recipe.title} to learn its kernels from. Create one with "
            f"`{recipe.create_command}`, or name what it will have: --kernel python3 --language python."
        )
    name = found.workspace.name
    answer = connect.ask_broker(access, name, start=not options.no_start, install_ipykernel=options.install_ipykernel)
    remote = {name: RemoteKernelSpec.from_json(spec) for name, spec in answer["kernelspecs"].items()}
    connect.check_kernels(name, remote.keys(), options.kernel, answer["offers"])
    return {name: remote[name] for name in options.kernel or remote}


def _report(recipe: Recipe, written: list[connect.WrittenSpec]) -> None:
    connect.print_specs(written)
    terminal.say(f"They mean any codespace of {recipe.title}: one that runs before one that is stopped, and of")
    terminal.say("several the one that was used last.")
    if recipe.may_create:
        terminal.say(f"Where there is none, a cell that is run creates one; {recipe.payer or 'nobody known'} pays.")
    else:
        terminal.say(f"Where there is none, none is created: add --allow-create, or `{recipe.create_command}`.")
    terminal.say(f"To have one away again: jupyter kernelspec remove {written[0].name}")
    terminal.say(connect.NEXT.format(name=written[0].name))
