"""What a person sees: progress and remarks on stderr, tables on stdout, questions where there is a terminal.

Stdout carries results only, so that a script can take them; where it is no terminal a table becomes lines of cells
between tabs, as `gh` has it. What is printed may come from a codespace, so all of it is made harmless first.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import SettingsError
from codespace_kernels.plain_text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from codespace_kernels.progress import Progress, ProgressEvent


def say(text: str = "") -> None:
    """Tell a person something that is no result."""
    print(harmless(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a result for a program."""
    print(_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print one of a program's results, of which more follow, on one line."""
    print(_json(value), flush=True)


def _json(value: Any, indent: int | None = None) -> str:
    # JSON itself leaves the eight-bit controls of terminals as they are.
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a result for a person, or for a program that splits at tabs (then without the column names)."""
    if not is_terminal():
        for row in rows:
            print("\t".join(_cell(cell) for cell in row), flush=True)
        return
    from rich.console import Console

    Console().print(table(columns, rows))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Give what `print_table` shows a person, to be drawn by rich."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(harmless(cell), overflow="fold") for cell in row))
    return table


def _cell(text: str) -> str:
    return harmless(" ".join(text.split()))


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print what is known of one thing, a line a fact; those that are empty are left out."""
    known = [(name, _cell(value)) for name, value in facts if value]
    if not is_terminal():
        for name, value in known:
            print(f"{name}\t{value}", flush=True)
        return
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        print(f"{name:{width}}  {value}", flush=True)


def program(name: str) -> str:
    """Give how a person starts a program of this Python's environment: by name where that finds it, else by path."""
    here = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not here.exists() or (found is not None and Path(found).resolve() == here.resolve()):
        return name
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Show what long work is doing: one changing line in a terminal, else a plain line for each step."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    from rich.text import Text

    began = time.monotonic()
    with console.status("") as status:
        yield lambda event: status.update(Text(f"{_line(event)} {time.monotonic() - began:.0f} s"))


def _plain_lines() -> Progress:
    shown = ""

    def show(event: ProgressEvent) -> None:
        nonlocal shown
        # The same step again and again says nothing new in a log.
        if event.message != shown:
            shown = event.message
            say(_line(event))

    return show


def _line(event: ProgressEvent) -> str:
    share = "" if event.fraction is None else f" ({event.fraction:.0%})"
    return f"{_cell(event.message)}{share} …"


def is_terminal() -> bool:
    """Tell whether results are shown to a person."""
    return sys.stdout is not None and sys.stdout.isatty()


def is_interactive() -> bool:
    """Tell whether a person can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty()


def must_be_able_to_ask(what: str) -> None:
    """Refuse where nobody could answer.

    Args:
        what: What needs a consent, as the start of a sentence.

    Raises:
        SettingsError: Stdin is no terminal.
    """
    if not is_interactive():
        raise SettingsError(f"{what} needs your consent, and there is no terminal to ask in. Add --yes to give it.")


def ask(question: str) -> bool:
    """Ask a question on stderr; only a clear yes is one."""
    print(f"{harmless(question)} [y/N] ", file=sys.stderr, end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
