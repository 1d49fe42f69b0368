"""What a check is, and what it finds."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from codespace_kernels.doctor.subject import Subject


class Verdict(enum.StrEnum):
    """How a finding is to be taken; the later ones are worse, but for what was not looked at."""

    SKIPPED = "skipped"
    OK = "ok"
    NOTE = "note"
    """Worth knowing; kernels work all the same, or it was asked not to go on."""
    FAIL = "fail"


MARKS = {Verdict.OK: "✓", Verdict.FAIL: "✗", Verdict.NOTE: "•", Verdict.SKIPPED: "-"}
"""How each verdict is shown where these characters can be."""


class Group(enum.StrEnum):
    """Under which heading a check stands."""

    ACCOUNT = "Account"
    NETWORK = "Network"
    CODESPACE = "Codespace"
    COMPUTER = "This computer"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        verdict: How it is to be taken.
        found: What, in one line without a full stop.
        fix: What to do, one or two sentences; empty where there is nothing to do.
        subject: Which of several it is about, such as the name of a kernelspec.
        blocks: Why checks that need this one cannot be made, where that is not because it failed.
    """

    verdict: Verdict
    found: str
    fix: str = ""
    subject: str = ""
    blocks: str = ""


def ok(found: str, subject: str = "") -> Finding:
    """Give a finding that is as it should be."""
    return Finding(Verdict.OK, found, subject=subject)


def note(found: str, fix: str = "", subject: str = "", blocks: str = "") -> Finding:
    """Give a finding that is worth knowing."""
    return Finding(Verdict.NOTE, found, fix, subject, blocks)


def fail(found: str, fix: str, subject: str = "") -> Finding:
    """Give a finding that keeps something from working."""
    return Finding(Verdict.FAIL, found, fix, subject)


@dataclasses.dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Stable, for programs.
        title: For people.
        group: Its heading.
        run: Finds out; may raise `CodespaceKernelsError`, which is then what was found.
        needs: Names of the checks without whose success this one cannot be made.
        after: Names of checks whose outcome it looks at, whatever it is.
        seconds: After which it is given up.
    """

    name: str
    title: str
    group: Group
    run: Callable[[Subject], Awaitable[Finding | Sequence[Finding]]]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    seconds: float = 15.0


@dataclasses.dataclass(frozen=True)
class Result:
    """What a check came to.

    Attributes:
        check: The check.
        findings: At least one.
        seconds: How long it took, without the wait for others.
    """

    check: Check
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The worst of its findings."""
        order = list(Verdict)
        return max((finding.verdict for finding in self.findings), key=order.index)

    @property
    def blocks(self) -> str:
        """Why checks that need this one cannot be made; empty where they can."""
        for finding in self.findings:
            if finding.blocks:
                return finding.blocks
        return f'"{self.check.title}" failed' if self.verdict is Verdict.FAIL else ""

    def to_json(self) -> list[dict[str, Any]]:
        """Give an object a finding, as `doctor --json` prints them."""
        check = {"check": self.check.name, "title": self.check.title, "group": str(self.check.group)}
        return [
            {
                **check,
                "subject": finding.subject,
                "verdict": str(finding.verdict),
                "found": finding.found,
                "fix": finding.fix,
                "seconds": round(self.seconds, 3),
            }
            for finding in self.findings
        ]
