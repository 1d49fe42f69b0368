"""What `doctor` shows: a heading a group, a line a finding, and under it what to do."""

from __future__ import annotations

import collections
import contextlib
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from codespace_kernels.doctor.findings import MARKS, Group, Verdict
from codespace_kernels.plain_text import harmless
from codespace_kernels.progress import silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from codespace_kernels.doctor.findings import Check, Finding, Result
    from codespace_kernels.progress import ProgressEvent

PLAIN_MARKS = {Verdict.OK: "+", Verdict.FAIL: "x", Verdict.NOTE: "*", Verdict.SKIPPED: "-"}
STYLES = {Verdict.OK: "green", Verdict.FAIL: "bold red", Verdict.NOTE: "yellow", Verdict.SKIPPED: "dim"}

LONG_SECONDS = 1.0
"""What took longer is told with its time."""


def can_show(text: str, encoding: str) -> bool:
    """Tell whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class DoctorPage:
    """Shows results as they come; a context manager.

    Args:
        checks: All that will be shown.
        name: The codespace that is examined, empty for none.
        quiet: Whether nothing is shown.
    """

    def __init__(self, checks: Sequence[Check], name: str, *, quiet: bool) -> None:
        # While a line changes, rich puts something without an encoding in its place.
        self._encoding = sys.stdout.encoding or "ascii"
        self._console = Console(highlight=False, quiet=quiet)
        self._name = name
        self._titles = max(len(check.title) for check in checks)
        self._marks, self._arrow = (MARKS, "→") if can_show("✓✗•→", self._encoding) else (PLAIN_MARKS, "->")
        self._group: Group | None = None
        self._counts: collections.Counter[Verdict] = collections.Counter()
        self._skipped: list[Result] = []
        self._waiting = [check.title for check in checks]
        self._working = ""
        self._closing = contextlib.ExitStack()
        # The line that changes is for a terminal only.
        self._status = self._console.status("") if self._console.is_terminal and not quiet else None
        self._shown = not quiet

    def __enter__(self) -> Self:
        if self._status is not None:
            self._closing.enter_context(self._status)
        self._tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.close()
        if error is None:
            if self._skipped:
                self._show_skipped()
            self._print("")
            self._print(self._summary())

    def progress(self, event: ProgressEvent) -> None:
        """Show what takes long."""
        self._working = event.message if self._shown else ""
        (self._tell if self._status is not None else silent)(event)

    def show(self, result: Result) -> None:
        """Show what a check came to, under its group's heading."""
        self._waiting.remove(result.check.title)
        self._working = ""
        self._counts.update(finding.verdict for finding in result.findings)
        if self._skipped and not self._is_skipped_alike(result):
            self._show_skipped()
        if result.check.group is not self._group:
            self._heading(result.check.group)
        if result.verdict is Verdict.SKIPPED:
            self._skipped.append(result)
        else:
            for number, finding in enumerate(result.findings):
                self._finding(result, finding, is_first=number == 0)
        self._tell()

    def _is_skipped_alike(self, result: Result) -> bool:
        last = self._skipped[-1]
        return result.check.group is last.check.group and result.findings == last.findings

    def _show_skipped(self) -> None:
        """Show checks that were skipped one after another for one reason in one line."""
        results, self._skipped = self._skipped, []
        title = results[0].check.title if len(results) == 1 else f"{len(results)} more"
        others = "" if len(results) == 1 else f" ({', '.join(result.check.title for result in results)})"
        head = f"  {self._marks[Verdict.SKIPPED]} {title:{self._titles}}  "
        self._wrapped(head, results[0].findings[0].found + others, STYLES[Verdict.SKIPPED])

    def _heading(self, group: Group) -> None:
        if self._group is not None:
            self._print("")
        self._group = group
        title = f"{group} {self._name}" if group is Group.CODESPACE else str(group)
        self._print(title, "bold")

    def _finding(self, result: Result, finding: Finding, *, is_first: bool) -> None:
        title = result.check.title if is_first else ""
        found = f"{finding.subject}: {finding.found}" if finding.subject else finding.found
        if is_first and result.seconds >= LONG_SECONDS:
            found += f" ({result.seconds:.1f} s)"
        head = f"  {self._marks[finding.verdict]} {title:{self._titles}}  "
        self._wrapped(head, found, STYLES[finding.verdict])
        if finding.fix:
            self._wrapped(f"{'':{len(head)}}{self._arrow} ", finding.fix, "")

    def _wrapped(self, head: str, text: str, style: str) -> None:
        """Print a text with its further lines below its beginning; whole where no terminal says how wide it may be."""
        if not self._console.is_terminal:
            self._print(head + text)
            return
        room = max(shutil.get_terminal_size().columns - len(head) - 1, 30)
        lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            self._print((head if number == 0 else " " * len(head)) + line, style if number == 0 else "", mark=3)

    def _print(self, text: str, style: str = "", mark: int = 0) -> None:
        """Print a line; with `mark`, only so many of its first characters have the style."""
        text = harmless(text).encode(self._encoding, "replace").decode(self._encoding)
        line = Text(text)
        if style:
            line.stylize(style, 0, mark or len(text))
        self._console.print(line, soft_wrap=True)

    def _tell(self, _: object = None) -> None:
        if self._status is not None:
            self._status.update(Text(f"{harmless(self._working) or ', '.join(self._waiting[:1])} …"))

    def _summary(self) -> str:
        failed, noted, skipped = (self._counts[v] for v in (Verdict.FAIL, Verdict.NOTE, Verdict.SKIPPED))
        parts = [_counted(failed, "problem"), _counted(noted, "note"), f"{skipped} skipped" if skipped else ""]
        said = ", ".join(part for part in parts if part)
        return f"{said}." if failed else f"No problems{f'; {said}' if said else ''}."


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}" if count else ""
