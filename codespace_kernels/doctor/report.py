"""The report: everything that was found, in Markdown, fit to be shown to strangers."""

from __future__ import annotations

import datetime
import platform
from typing import TYPE_CHECKING

from codespace_kernels import __version__
from codespace_kernels.doctor.findings import MARKS, Group
from codespace_kernels.doctor.private_names import redactor_for
from codespace_kernels.doctor.questions import answers, shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from codespace_kernels.doctor.findings import Result
    from codespace_kernels.doctor.subject import Subject

_HEAD = """\
# codespace-kernels doctor

Made on {day} by codespace-kernels {version} on {system} with Python {python}, {what}.
Secrets are taken out; names, addresses and folders are replaced by placeholders such as `<owner-1>/<repo-1>`.
Look through it all the same before you publish it.
"""


def report(subject: Subject, results: Sequence[Result]) -> str:
    """Give the report, redacted."""
    return redactor_for(subject).clean("\n".join(_lines(subject, results)) + "\n")


def _lines(subject: Subject, results: Sequence[Result]) -> Iterator[str]:
    yield _HEAD.format(
        day=datetime.datetime.now(datetime.UTC).date().isoformat(),
        version=__version__,
        system=platform.platform(),
        python=platform.python_version(),
        what="with a codespace examined" if subject.name else "without a codespace examined",
    )
    yield "## Findings"
    for group in Group:
        yield from _group(group, [result for result in results if result.check.group is group])
    yield "\n## Answers to the open questions\n"
    for number, (question, answer) in enumerate(answers(subject), start=1):
        yield f"{number}. {question}: **{_inline(answer)}**"
    yield from _answers_of_github(subject)


def _group(group: Group, results: Sequence[Result]) -> Iterator[str]:
    if results:
        yield f"\n### {group}\n"
    for result in results:
        for finding in result.findings:
            about = f" `{finding.subject}`" if finding.subject else ""
            yield f"- {MARKS[finding.verdict]} **{result.check.title}**{about}: {_inline(finding.found)}" + (
                f" ({result.seconds:.1f} s)" if result.seconds >= 1 else ""
            )
            if finding.fix:
                yield f"  - {_inline(finding.fix)}"


def _answers_of_github(subject: Subject) -> Iterator[str]:
    yield "\n## What GitHub's answers look like\n"
    yield f"Statuses: {', '.join(f'`{what}` {status}' for what, status in subject.api.statuses.items()) or 'none'}.\n"
    yield f"Names of headers: {', '.join(f'`{name}`' for name in sorted(subject.api.header_names)) or 'none seen'}.\n"
    constraints = (subject.internal or next(iter(subject.codespaces or []), {})).get("runtime_constraints")
    yield f"`runtime_constraints`: `{constraints!r}`\n"
    for title, value in (("Internal form of the codespace", subject.internal), ("Tunnel", subject.description)):
        if value is not None:
            yield f"{title}, keys and types:\n\n```text"
            yield from (f"{key}: {kind}" for key, kind in shape(value))
            yield "```\n"


def _inline(text: str) -> str:
    """Keep what others wrote (a log's lines, GitHub's messages) from being taken for Markdown or HTML."""
    return " ".join(text.split()).replace("<", "\\<")
