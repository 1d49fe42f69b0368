"""`codespace-kernels doctor [NAME]`: find out what keeps kernels in codespaces from working, and what mends it.

Looks at the account, the network and this computer; with NAME also at that codespace and the way into it. Nothing is
changed, and a stopped codespace is not started, unless --start is given.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels import __version__
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.doctor_page import DoctorPage
from codespace_kernels.errors import SettingsError

if TYPE_CHECKING:
    from codespace_kernels.doctor.findings import Result
    from codespace_kernels.doctor.subject import Subject

REPORT = "codespace-kernels-report.md"


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "doctor",
        description=__doc__,
        parents=[shared.account(), shared.output()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="",
        metavar="NAME",
        help="a codespace that is to be examined: name, title or repository",
    )
    parser.add_argument("--start", action="store_true", help="start the codespace if it is stopped")
    parser.add_argument(
        "--report",
        nargs="?",
        type=Path,
        const=Path(REPORT),
        metavar="FILE",
        help=f"also write everything, without names and secrets, to a file for an issue (default: {REPORT})",
    )
    parser.add_argument("--force", action="store_true", help="write the report in place of a file that is there")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Examine, say what was found, and write it down where that was asked for."""
    if options.start and not options.name:
        raise SettingsError("--start needs the NAME of the codespace that is to be started.")
    if options.report and not may_write(options.report, force=options.force):
        terminal.say("Nothing was examined.")
        return 1
    results = asyncio.run(_examine(options))
    return 1 if any(result.verdict == "fail" for result in results) else 0


def may_write(file: Path, *, force: bool) -> bool:
    """Tell whether a report may be written to a file; asks where one is there.

    Raises:
        SettingsError: One is there and nobody can be asked, or the place cannot be written to.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise SettingsError(f"The report cannot be written to {file}: name a file in a folder that is there.")
    if not file.exists() or force:
        return True
    if not terminal.is_interactive():
        raise SettingsError(f"The file {file} is there already. Name another, or add --force to replace it.")
    return terminal.ask(f"{file} is there already. Replace it?")


async def _examine(options: argparse.Namespace) -> list[Result]:
    # These import half of the package: only who asks pays.
    from codespace_kernels.doctor.checks import all_checks
    from codespace_kernels.doctor.examination import examine
    from codespace_kernels.doctor.report import report
    from codespace_kernels.doctor.subject import Subject

    subject = Subject(shared.chosen_access(options), os.environ, options.name, options.start)
    checks, results = all_checks(named=bool(options.name)), []
    try:
        with DoctorPage(checks, options.name, quiet=options.json) as page:
            subject.progress = page.progress
            async for result in examine(checks, subject):
                results.append(result)
                page.show(result)
        if options.report:
            write_report(options.report, report(subject, results))
    finally:
        await subject.close()
    if options.json:
        terminal.print_json(_document(subject, results))
    return results


def _document(subject: Subject, results: list[Result]) -> dict[str, Any]:
    return {
        "version": __version__,
        "host": subject.host,
        "codespace": subject.workspace.name if subject.workspace else None,
        "ok": not any(result.verdict == "fail" for result in results),
        "findings": [finding for result in results for finding in result.to_json()],
    }


def write_report(file: Path, text: str) -> None:
    """Write the report; it is meant for others, so it is no private file.

    Raises:
        SettingsError: It cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"The report cannot be written to {file}: {error.strerror}.") from None
    terminal.say(f"Wrote {file}. Look through it before you publish it.")
