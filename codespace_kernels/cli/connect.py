"""`codespace-kernels connect NAME`: connect to a codespace and write a kernelspec for each of its kernels.

A stopped codespace is started, unless `--no-start` is given.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels import kernelspecs
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli import connect_recipe, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.errors import KernelNotFoundError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.providers.base import Workspace
from codespace_kernels.remote_kernel import RemoteKernelSpec
from codespace_kernels.target import (
    BUSY,
    KEEP_AWAKE_HOURS,
    KEEP_AWAKES,
    KEEP_HOURS,
    ON_CLOSES,
    ON_RUN,
    SHUTDOWN,
    WAKES,
    Target,
)

if TYPE_CHECKING:
    from pathlib import Path

    from codespace_kernels.broker.protocol import Access

NEXT = """\
Where to find them:
  JupyterLab, Notebook  in the launcher and in every kernel list, within a minute or after a reload of the page
  VS Code               Select Another Kernel… > Jupyter Kernel…, after its refresh button or Reload Window
  anything else         by name: jupyter nbconvert --to notebook --execute --ExecutePreprocessor.kernel_name={name} …"""


class WrittenSpec(NamedTuple):
    """A kernelspec that was written here: its name, what pickers show, its name in the workspace, and its folder."""

    name: str
    display_name: str
    kernel: str
    folder: Path

    def to_json(self) -> dict[str, str]:
        """Give what `--json` prints."""
        return {**self._asdict(), "folder": str(self.folder)}


class Policy(NamedTuple):
    """What the specs are to say of waking, of closing and of what a codespace may cost; see `target.Target`."""

    wake: str = ON_RUN
    on_close: str = SHUTDOWN
    keep_hours: float = KEEP_HOURS
    keep_awake: str = BUSY
    keep_awake_hours: float = KEEP_AWAKE_HOURS
    stop_when_idle: float = 0.0


DEFAULT_POLICY = Policy()


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parents = [shared.account(), shared.transport(), shared.output()]
    parser = subparsers.add_parser("connect", description=__doc__, parents=parents)
    parser.add_argument("name", metavar="NAME", help="the codespace, or its title or repository if that is clear")
    parser.add_argument(
        "--kernel", action="append", default=[], metavar="KERNEL", help="only this kernel; may be given several times"
    )
    parser.add_argument("--no-start", action="store_true", help="fail if the codespace is stopped")
    parser.add_argument(
        "--install-ipykernel",
        default="",
        metavar="PYTHON",
        help="first install ipykernel into this Python of the codespace, so that it has a kernel",
    )
    parser.add_argument(
        "--wake",
        choices=WAKES,
        default=ON_RUN,
        help="what starts the codespace when it is stopped: opening a notebook, running a cell (default), or neither",
    )
    parser.add_argument(
        "--on-close",
        choices=ON_CLOSES,
        default=SHUTDOWN,
        help="what happens to a notebook's kernel when VS Code or the Jupyter server ends: it ends, too (default), or "
        "goes on, and the same notebook gets it back",
    )
    parser.add_argument(
        "--keep-hours",
        type=_above_zero,
        default=KEEP_HOURS,
        metavar="HOURS",
        help=f"how long such a kernel is kept after its last work (default: {KEEP_HOURS:g})",
    )
    _add_care(parser)
    connect_recipe.add_options(parser)
    parser.set_defaults(func=run)


def _add_care(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-awake",
        choices=KEEP_AWAKES,
        default=BUSY,
        help="what keeps the codespace awake: a kernel that works (default), one that a notebook holds, or nothing",
    )
    parser.add_argument(
        "--keep-awake-hours",
        type=_above_zero,
        default=KEEP_AWAKE_HOURS,
        metavar="HOURS",
        help=f"for how long, after the last thing that a person did in it (default: {KEEP_AWAKE_HOURS:g})",
    )
    parser.add_argument(
        "--stop-when-idle",
        type=_above_zero,
        default=0.0,
        metavar="MINUTES",
        help="stop the codespace when its kernels have had nothing to do for so long (default: leave that to GitHub)",
    )


def _above_zero(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def run(options: argparse.Namespace) -> int:
    """Connect to a codespace."""
    connect_recipe.check(options)
    if options.as_recipe:
        return connect_recipe.run(options)
    access, policy = shared.chosen_access(options), policy_of(options)
    answer = ask_broker(access, options.name, start=not options.no_start, install_ipykernel=options.install_ipykernel)
    written = write_specs(access, answer, options.kernel, policy)
    if options.json:
        terminal.print_json(
            {
                "workspace": answer["workspace"],
                "connection": answer["connection"],
                "kernelspecs": [spec.to_json() for spec in written],
                "offers": answer["offers"],
            }
        )
    else:
        report(answer, written)
    return 0


def policy_of(options: argparse.Namespace) -> Policy:
    """Give what the options say of waking, of closing and of costs.

    Raises:
        SettingsError: They contradict each other, or a number is out of its range.
    """
    policy = Policy(
        options.wake,
        options.on_close,
        options.keep_hours,
        options.keep_awake,
        options.keep_awake_hours,
        options.stop_when_idle,
    )
    # Before anything is started: a target that cannot be is refused.
    Target(shared.chosen_account(options), "", **policy._asdict())
    return policy


def ask_broker(access: Access, name: str, *, start: bool = True, install_ipykernel: str = "") -> dict[str, Any]:
    """Let the broker connect; give its answer (see `broker.Broker.connect`).

    Args:
        access: Whose workspace.
        name: Name, title or repository.
        start: Whether a stopped one is started.
        install_ipykernel: Path of a Python there that is to get a kernel first; empty for none.

    Raises:
        CodespaceKernelsError: The workspace cannot be had.
    """
    client = BrokerClient()
    with terminal.progress() as progress:
        progress(ProgressEvent("find", f"Connecting to {name}"))
        client.ensure()
        body = {"workspace": name, "start": start, "install_ipykernel": install_ipykernel}
        return client.stream("workspaces/connect", {**body, "access": access.to_json()}, progress)


def write_specs(
    access: Access, answer: dict[str, Any], wanted: list[str], policy: Policy = DEFAULT_POLICY
) -> list[WrittenSpec]:
    """Write kernelspecs for the kernels of a connected workspace.

    Args:
        access: Whose workspace.
        answer: The broker's.
        wanted: Names of kernels there; empty for all.
        policy: What the specs say of waking, closing and costs.

    Raises:
        KernelNotFoundError: There is none of a wanted name, or none at all. Nothing was written.
        SettingsError: The kernels folder cannot be written.
    """
    workspace = Workspace.from_json(answer["workspace"])
    remote = {name: RemoteKernelSpec.from_json(spec) for name, spec in answer["kernelspecs"].items()}
    check_kernels(workspace.name, remote.keys(), wanted, answer["offers"])
    targets = {
        Target(
            access.account, workspace.name, name, access.transport, language=remote[name].language, **policy._asdict()
        ): remote[name]
        for name in wanted or remote
    }
    return written_specs(kernelspecs.write(workspace, targets))


def written_specs(folders: dict[str, Path]) -> list[WrittenSpec]:
    """Describe kernelspecs that were written, by the folder of each."""
    return [_written(name, folder) for name, folder in folders.items()]


def _written(name: str, folder: Path) -> WrittenSpec:
    spec = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    return WrittenSpec(name, spec["display_name"], Target.from_env(spec["env"]).kernel, folder)


def check_kernels(workspace: str, known: Any, wanted: list[str], offers: list[str]) -> None:
    """Check that the wanted kernels exist.

    Raises:
        KernelNotFoundError: One does not, or there are none at all; says what there is.
    """
    missing = [name for name in wanted if name not in known]
    if missing:
        raise KernelNotFoundError(
            f"{workspace} has no kernel {', '.join(missing)}. It has: {', '.join(sorted(known)) or 'none'}."
        )
    if not known:
        advice = f"Connect again with --install-ipykernel {offers[0]}." if offers else "Install ipykernel there."
        raise KernelNotFoundError(f"{workspace} has no kernels. {advice}")


def report(answer: dict[str, Any], written: list[WrittenSpec]) -> None:
    """Say what was written and where front ends show it."""
    workspace = answer["workspace"]
    place = " ".join(part for part in (workspace["repository"], workspace["ref"]) if part)
    terminal.say(f"Connected to {workspace['name']}{f' ({place})' if place else ''} by {answer['connection']}.")
    print_specs(written)
    for offer in answer["offers"]:
        terminal.say(f"To have {offer} as a kernel, too, connect again with --install-ipykernel {offer}.")
    terminal.say(NEXT.format(name=written[0].name))


def print_specs(written: list[WrittenSpec]) -> None:
    """Say what was written."""
    terminal.print_table(
        ("NAME", "SHOWN AS", "KERNELSPEC"), [(spec.name, spec.display_name, str(spec.folder)) for spec in written]
    )
