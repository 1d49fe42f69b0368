"""What a front end is shown of one request, and what is wrong with it."""

from __future__ import annotations

import itertools
import re
from typing import Any

from codespace_kernels.bridge.lost_answers import NOT_KNOWN
from codespace_kernels.saved_notebooks import MARK

from .cells import Item, made, merged

OURS = "[codespace-kernels] "
"""How lines of the product itself begin in a cell."""

_EXCERPT = 500


class ViolationError(AssertionError):
    """Something was lost, doubled or reordered."""


class View:
    """The messages of one request that reached one front end.

    Attributes:
        items: What is shown, in order.
        told: Lines of the product itself.
        statuses: `busy` and `idle`, as they came, with how many other messages had come before.
        codes: What `execute_input` said, with how many other messages had come before.
        replies: The reply messages' contents.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.told: list[str] = []
        self.statuses: list[tuple[str, int]] = []
        self.codes: list[tuple[str, int]] = []
        self.replies: list[dict[str, Any]] = []
        self._waiting_lines: set[str] = set()
        self._messages = 0

    def published(self, message: dict[str, Any]) -> None:
        """Take a message of iopub."""
        kind, content = message["msg_type"], message["content"]
        if kind == "status":
            self.statuses.append((content["execution_state"], self._messages))
        elif kind == "execute_input":
            self.codes.append((content["code"], self._messages))
        elif kind == "stream" and content["text"].startswith(OURS):
            self.told.append(content["text"])
        elif kind == "error" and content["evalue"] == NOT_KNOWN:
            self.told.append(content["evalue"])
        elif not self._is_waiting_line(kind, content):
            self._messages += 1
            self.items.append(shown(kind, message))

    def asked(self, message: dict[str, Any]) -> None:
        """Take a question of stdin. It comes on another channel than what was printed, so it is kept in its place."""
        self.items.append(("question", message["content"]["prompt"]))

    def _is_waiting_line(self, kind: str, content: dict[str, Any]) -> bool:
        """Tell whether this is the line with which the product shows that a cell waits, or its being taken away."""
        display = str(content.get("transient", {}).get("display_id", ""))
        if kind in ("display_data", "update_display_data") and MARK in content["metadata"]:
            self._waiting_lines.add(display)
            return True
        return kind == "clear_output" and bool(self._waiting_lines) and not self.items

    @property
    def messages(self) -> int:
        """How many there were."""
        return len(self.items) + len(self.told) + len(self.statuses) + len(self.codes) + len(self.replies)

    @property
    def idle(self) -> bool:
        """Whether the request is over on iopub."""
        return any(state == "idle" for state, _ in self.statuses)

    def check_frame(self, code: str | None, *, replies: int, status: str = "ok") -> None:
        """Check what stands around the outputs.

        Raises:
            ViolationError: It is not as it must be.
        """
        states = [state for state, _ in self.statuses]
        expect("statuses", states, ["busy", "idle"])
        expect("outputs before busy", self.statuses[0][1], 0)
        expect("outputs after idle", self._messages - self.statuses[1][1], 0)
        expect("execute_input", self.codes, [] if code is None else [(code, 0)])
        expect("replies", len(self.replies), replies)
        for reply in self.replies:
            expect("status of the reply", reply["status"], status)

    def check_shown(self, wanted: list[Item]) -> None:
        """Check that everything is shown, once and in order.

        Questions are compared for themselves: they come on a channel of their own.

        Raises:
            ViolationError: It is not.
        """
        for questions in (True, False):
            items = merged(item for item in self.items if (item[0] == "question") is questions)
            _compare(items, merged(item for item in wanted if (item[0] == "question") is questions))

    def check_gap(self, wanted: list[Item], *, told: bool = True, interrupted: bool = False) -> None:
        """Check that nothing is doubled or reordered where something may be missing.

        Args:
            wanted: All that there is.
            told: Whether it must be said if something is missing.
            interrupted: Whether an interrupt may be shown, too.

        Raises:
            ViolationError: It is not so.
        """
        items = [item for item in self.items if not (interrupted and item[1].startswith("KeyboardInterrupt"))]
        _check_order(items, wanted)
        try:
            self.check_shown(wanted)
        except ViolationError as error:
            if told and not self.told:
                raise ViolationError(f"something is missing, and the cell does not say so: {error}") from None


def shown(kind: str, message: dict[str, Any]) -> Item:
    """Describe what a message shows."""
    content = message["content"]
    if kind == "stream":
        return content["name"], content["text"]
    if kind.startswith("comm_"):
        return made(kind, [bytes(buffer) for buffer in message["buffers"]], content["data"].get("number", -1))
    if kind == "error":
        return kind, f"{content['ename']}: {content['evalue']}"
    if "data" not in content:
        return kind, str(content)[:_EXCERPT]
    large = content["data"].get("application/x-chaos")
    name = {"display_data": "display", "update_display_data": "update", "execute_result": "result"}.get(kind, kind)
    return made(name, [large.encode()]) if large is not None else (name, str(content["data"].get("text/plain")))


def expect(what: str, found: Any, wanted: Any) -> None:
    """Raise unless both are equal.

    Raises:
        ViolationError: They are not.
    """
    if found != wanted:
        raise ViolationError(f"{what}: {_short(found)} in place of {_short(wanted)}")


def _compare(found: list[Item], wanted: list[Item]) -> None:
    for number, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            raise ViolationError(f"output {number} of {len(wanted)}: {difference(one, other)}")
    expect("outputs too many", found[len(wanted) :], [])
    expect("outputs too few", wanted[len(found) :], [])


def difference(found: Item, wanted: Item) -> str:
    """Say where two outputs differ."""
    if found[0] != wanted[0] or "\n" not in wanted[1]:
        return f"{_short(found)} in place of {_short(wanted)}"
    ours, theirs = found[1].splitlines(), wanted[1].splitlines()
    same = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        same = min(len(ours), len(theirs))
    ours, theirs = (lines[same : same + 3] for lines in (ours, theirs))
    return f"line {same}, of {len(wanted[1].splitlines())}: {_short(ours)} in place of {_short(theirs)}"


def _check_order(items: list[Item], wanted: list[Item]) -> None:
    """Check that the numbered lines that came rise; the pieces of a line that was torn by the gap say nothing."""
    for stream in ("stdout", "stderr"):
        numbers = _numbers(text for kind, text in items if kind == stream)
        for one, other in itertools.pairwise(numbers):
            if other <= one:
                raise ViolationError(f"line {other} of {stream} came after line {one}")
    expected = iter(item for item in wanted if item[0] not in ("stdout", "stderr"))
    for item in items:
        if item[0] not in ("stdout", "stderr") and item not in expected:
            raise ViolationError(f"{_short(item)} came twice, or out of order")


def _numbers(texts: Any) -> list[int]:
    return [int(found[1]) for line in "".join(texts).splitlines() if (found := re.fullmatch(r"\d+ (\d+)", line))]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}… ({len(text)} characters)"
