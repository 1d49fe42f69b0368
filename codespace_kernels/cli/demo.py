"""`codespace-kernels demo`: a notebook runs in a codespace that is emulated on this machine.

Needs no account and no Docker. It is what a user does with a real codespace, step by step: list, connect, execute.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.protocol import Access
from codespace_kernels.cli import connect, demo_place, interrupts, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.errors import KernelError, SettingsError
from codespace_kernels.github import account_from_environment
from codespace_kernels.progress import ProgressEvent

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from codespace_kernels.providers.base import Workspace

EXECUTE_TIMEOUT = 300.0
"""Seconds for the notebook; it takes a few."""

NOTEBOOK = "hello-codespace.ipynb"


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("demo", description=__doc__, parents=[shared.common()])
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the emulated codespace running and its kernelspec installed, to be used from JupyterLab",
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo; whatever ends it, nothing is left running (but what `--keep` asks for)."""
    check_extra()
    with interrupts.ended_like_ctrl_c():
        if options.keep:
            with demo_place.emulator({}) as record:
                name, specs = show(record.api_url)
            names = {"api_url": record.api_url, "name": name, "shown": specs[0].display_name}
            print(KEPT.format(program=terminal.program("codespace-kernels"), **names))
        else:
            with (
                demo_place.place_of_its_own() as root,
                demo_place.emulator({"folder": str(root / "codespaces")}) as record,
            ):
                show(record.api_url)
            print(DONE.format(program=terminal.program("codespace-kernels")))
    return 0


DONE = """\
Everything of the demo is gone again. To see more:
  {program} demo --keep    the same, and it stays for JupyterLab
  {program} list           your own codespaces (sign in first: gh auth login -s codespace)"""

KEPT = """\
The codespace keeps running, and its kernel is in your kernel lists:
  {program} status         what is connected, and what each kernel does
  jupyter lab and others   choose "{shown}" (VS Code: after Reload Window)
When you have seen enough:
  {program} disconnect {name} --api-url {api_url}
  {program} emulator stop"""


def check_extra() -> None:
    """Check that what the demo drives is installed.

    Raises:
        SettingsError: It is not.
    """
    missing = [name for name in ("ipykernel", "nbconvert") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"The demo needs {' and '.join(missing)}. Install the extra: pip install 'codespace-kernels[demo]'."
        )


def show(api_url: str) -> tuple[str, list[connect.WrittenSpec]]:
    """List, connect, execute, and show the output; give the codespace's name and its kernelspecs."""
    access = Access.of(account_from_environment(os.environ), os.environ)
    (workspace,) = asyncio.run(_list(access))
    step(f"A GitHub account with a codespace is emulated at {api_url}:")
    terminal.print_table(
        ("NAME", "REPOSITORY", "STATE"), [(workspace.name, workspace.repository, workspace.provider_state)]
    )
    demo_place.start_broker()
    with demo_place.withdrawing(access, workspace.name):
        answer = connect.ask_broker(access, workspace.name)
        specs = connect.write_specs(access, answer, [])
        step(f"Started it and connected by {answer['connection']}; its kernel is now one of this machine's kernels:")
        terminal.print_table(("NAME", "SHOWN AS"), [(spec.name, spec.display_name) for spec in specs])
        # The emulated codespace has this machine's other kernels, too.
        kernel = next(spec.name for spec in specs if spec.kernel == "python3")
        notebook = notebook_path()
        step(f"$ {' '.join(nbconvert(kernel, notebook))}")
        _show_outputs(notebook, execute(notebook, kernel))
    return workspace.name, specs


async def _list(access: Access) -> list[Workspace]:
    async with shared.open_provider(access) as provider:
        return await provider.list()


def step(text: str) -> None:
    """Say what the demo has done, or does next."""
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(text, style="bold cyan"), soft_wrap=True)


def notebook_path() -> Path:
    """Find the notebook: beside this file in an installed package, in `examples/` in a clone.

    Raises:
        SettingsError: It is in neither place.
    """
    places = (Path(__file__).parent / NOTEBOOK, Path(__file__).parents[2] / "examples" / NOTEBOOK)
    for path in places:
        if path.exists():
            return path
    raise SettingsError(f"The demo's notebook {NOTEBOOK} is missing from this installation. Install it again.")


def nbconvert(kernel: str, notebook: Path) -> list[str]:
    """Give the command that executes a notebook, as a person types it."""
    shown = notebook.relative_to(Path.cwd()) if notebook.is_relative_to(Path.cwd()) else notebook
    options = ["--to", "notebook", "--execute", f"--ExecutePreprocessor.kernel_name={kernel}"]
    return [terminal.program("jupyter"), "nbconvert", *options, str(shown)]


def execute(notebook: Path, kernel: str) -> dict[str, Any]:
    """Execute a notebook by nbconvert, and give it with its outputs.

    Raises:
        KernelError: It failed; gives the last line of what nbconvert said.
    """
    with tempfile.TemporaryDirectory() as folder, terminal.progress() as progress:
        progress(ProgressEvent("execute", f"Executing {notebook.name}"))
        command = [sys.executable, "-m", *nbconvert(kernel, notebook)[1:], "--output-dir", folder]
        try:
            done = demo_place.run_to_its_end(command, EXECUTE_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise KernelError(f"The notebook did not end within {EXECUTE_TIMEOUT:g} s.") from None
        if done.returncode == 0:
            return dict(json.loads((Path(folder) / notebook.name).read_text(encoding="utf-8")))
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise KernelError(f"The notebook failed: {last}")


def code_cells(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the code cells of a notebook."""
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def output_text(cell: dict[str, Any]) -> str:
    """Give what a cell printed and returned, as text."""
    parts = []
    for output in cell["outputs"]:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        parts.append(text if isinstance(text, str) else "".join(text))
    return "\n".join(part.rstrip("\n") for part in parts)


def _show_outputs(path: Path, notebook: dict[str, Any]) -> None:
    """Show what the notebook printed there, next to what its first cell prints when it runs here."""
    cells = list(code_cells(notebook))
    there = "\n".join(output_text(cell) for cell in cells)
    source = "".join(cells[0]["source"])
    here = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True).stdout
    width = max(len(line) for line in (there + here).splitlines()) + len("│  │")
    _panel(f"output of {path.name}, in the codespace", there, "green", width)
    _panel("its first cell, on this machine", here.rstrip(), "blue", width)


def _panel(title: str, text: str, style: str, width: int) -> None:
    from rich.box import ROUNDED
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    # Without a terminal a line is as long as it is: a log must have each fact on one line.
    console = Console(width=None if sys.stdout.isatty() else width)
    panel = Panel(Text(text, overflow="fold"), title=title, title_align="left", box=ROUNDED, border_style=style)
    console.print(panel, width=min(width, console.width))
