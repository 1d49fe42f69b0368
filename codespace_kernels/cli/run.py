"""`codespace-kernels run NOTEBOOK.ipynb --repo OWNER/REPO`: run a notebook in a codespace, then stop or delete that.

It takes a codespace of the repository, or creates one: says first who pays, and asks. Everything but --json goes to
stderr, so that a script can do it unattended with --yes.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import connect, interrupts, recipes, run_notebook, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.cli.run_codespace import KEEP, THENS, Released, RunCodespace
from codespace_kernels.cli.run_notebook import Execution, NotebookFile
from codespace_kernels.errors import CodespaceKernelsError, KernelError, SettingsError
from codespace_kernels.providers.prices import PRICES_DATE, PRICES_SOURCE
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.recipe import Recipe


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parents = [shared.account(), shared.transport(), shared.output()]
    parser = subparsers.add_parser("run", description=__doc__, parents=parents)
    parser.add_argument("notebook", metavar="NOTEBOOK", type=Path)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--repo", metavar="OWNER/REPO", help="in a codespace of this repository, created if need be")
    place.add_argument("--codespace", metavar="NAME", help="in this one, started if need be")
    recipes.add_options(parser)
    parser.add_argument("--kernel", default="", help="of the codespace (default: what the notebook asks for)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--output", metavar="FILE", type=Path, help="the executed notebook (default: NOTEBOOK.executed.ipynb)"
    )
    output.add_argument("--inplace", action="store_true", help="write it over NOTEBOOK")
    parser.add_argument("--allow-errors", action="store_true", help="go on after a cell that failed")
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for each cell (default: none)")
    parser.add_argument(
        "--then",
        choices=THENS,
        default=KEEP,
        help="what becomes of the codespace, however the run ends: it goes on (default), is stopped, or is deleted if "
        "this run created it, and stopped otherwise; one that other kernels use goes on",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="create a codespace without asking")
    parser.set_defaults(func=run)


def _seconds(text: str) -> int:
    seconds = int(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Run a notebook."""
    run_notebook.check_extra()
    recipe = _chosen_recipe(options)
    file = NotebookFile(options.notebook, _output(options))
    with interrupts.ended_like_ctrl_c():
        return _Run(options, file, RunCodespace(shared.chosen_access(options), recipe, options.codespace or "")).run()


def _chosen_recipe(options: argparse.Namespace) -> Recipe | None:
    """Give what the codespace is like; None where it is named.

    Raises:
        SettingsError: Options contradict each other.
    """
    if options.repo:
        return recipes.chosen_recipe(options.repo, options)
    if given := recipes.given_options(options):
        raise SettingsError(f"{given[0]} is for --repo: a codespace that is named is as it is.")
    return None


def _output(options: argparse.Namespace) -> Path:
    if options.inplace:
        return Path(options.notebook)
    return Path(options.output or options.notebook.with_suffix(".executed.ipynb"))


class _Run:
    """One run, from its codespace to what became of it."""

    def __init__(self, options: argparse.Namespace, file: NotebookFile, codespace: RunCodespace) -> None:
        self.options = options
        self.file = file
        self.codespace = codespace
        self.done = Execution()
        self.released = Released(options.then)

    def run(self) -> int:
        """Do it all; give the exit code.

        Raises:
            CodespaceKernelsError: What went wrong first; the codespace was released, and the notebook written, before.
        """
        ended: BaseException | None = None
        try:
            if not self._execute():
                terminal.say("Nothing was created, and nothing was run.")
                return 1
        except BaseException as error:
            # Whatever it is: a machine that costs money must not go on for it.
            ended = error
        with interrupts.undisturbed():
            ended = self._finish(ended)
        return _end(ended, self.done)

    def _execute(self) -> bool:
        answer = self.codespace.connect(yes=self.options.yes)
        if answer is None:
            return False
        offered = {name: RemoteKernelSpec.from_json(spec) for name, spec in answer["kernelspecs"].items()}
        connect.check_kernels(self.codespace.name, offered.keys(), [], answer["offers"])
        remote = offered[self.file.kernel(self.options.kernel, offered)]
        access = self.codespace.access
        target = Target(access.account, self.codespace.name, remote.name, access.transport, language=remote.language)
        with terminal.progress() as told:
            limits = {"timeout": self.options.timeout, "allow_errors": self.options.allow_errors}
            asyncio.run(self.file.execute(target, remote, self.done, told, **limits))
        return True

    def _finish(self, ended: BaseException | None) -> BaseException | None:
        """Write the notebook and release the codespace, each whatever comes of the other; give the first error."""
        if self.done.began:
            ended = _first_error(ended, self._write)
        ended = _first_error(ended, self._release)
        if self.options.json and self.codespace.workspace is not None:
            terminal.print_json(self._json())
        return ended

    def _write(self) -> None:
        self.file.write()
        terminal.say(f"Wrote {self.file.output}.")

    def _release(self) -> None:
        try:
            self.released = self.codespace.release(self.options.then, self.done.kernel_id)
        except CodespaceKernelsError as error:
            self.released = Released(self.options.then, "", str(error))
            raise
        self._report(self.released)

    def _report(self, released: Released) -> None:
        if not released.done:
            return
        why = f", not what was asked for, as {released.why}" if released.why else ""
        name = self.codespace.name
        terminal.say(f"{name} was {released.done}{why}.")
        if released.done == "kept":
            terminal.say(f"It goes on until its idle timeout; `codespace-kernels stop {name}` stops it.")

    def _json(self) -> dict[str, Any]:
        failed = self.done.failed
        return {
            "codespace": self.codespace.name,
            "created": self.codespace.created,
            "output": str(self.file.output) if self.done.began else None,
            "cells": self.done.cells,
            "executed": self.done.executed,
            "failed_cell": dataclasses.asdict(failed) if failed is not None else None,
            "then": self.released._asdict(),
            "cost": self._cost(),
        }

    def _cost(self) -> dict[str, Any] | None:
        """Estimate what the machine cost while it was this run's; None where its price is not known."""
        workspace = self.codespace.workspace
        price = workspace.dollars_per_hour if workspace is not None else None
        if price is None:
            return None
        hours = self.codespace.hours
        return {
            "dollars": round(price * hours, 4),
            "hours": round(hours, 4),
            "dollars_per_hour": price,
            "prices_source": PRICES_SOURCE,
            "prices_date": PRICES_DATE,
        }


def _first_error(ended: BaseException | None, action: Callable[[], None]) -> BaseException | None:
    """Do one more thing; its error is the one to end with where there was none before, and told at once otherwise."""
    try:
        action()
    except Exception as error:
        if ended is None:
            return error
        terminal.say(str(error))
    return ended


def _end(ended: BaseException | None, done: Execution) -> int:
    if isinstance(ended, asyncio.CancelledError):
        raise KeyboardInterrupt
    if ended is not None:
        raise ended
    if done.failed is not None:
        terminal.say(done.failed.text)
        raise KernelError(f"Cell {done.failed.number} failed: {done.failed.ename}: {done.failed.evalue}")
    return 0
