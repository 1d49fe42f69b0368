"""What is lost, doubled or reordered is seen as such: a test that cannot fail proves nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from . import cells
from .views import View, ViolationError

WANTED = [("stdout", "".join(f"7 {i}\n" for i in range(30))), ("display", "p"), ("stdout", "end\n")]
GAP = "[codespace-kernels] Output may be missing: the process was replaced.\n"


def message(kind: str, **content: Any) -> dict[str, Any]:
    return {"msg_type": kind, "content": content, "buffers": []}


def stream(text: str) -> dict[str, Any]:
    return message("stream", name="stdout", text=text)


def whole() -> list[dict[str, Any]]:
    """All that a front end sees of a cell, the lines in messages of their own."""
    return [
        message("status", execution_state="busy"),
        message("execute_input", code="code"),
        *(stream(f"7 {i}\n") for i in range(30)),
        message("display_data", data={"text/plain": "p"}, metadata={}),
        stream("end\n"),
        message("status", execution_state="idle"),
    ]


def check(messages: list[dict[str, Any]], *, replies: int = 1) -> None:
    view = View()
    for one in messages:
        view.published(one)
    view.replies += [{"status": "ok"}] * replies
    view.check_frame("code", replies=1)
    view.check_shown(WANTED)


def test_the_whole_is_whole() -> None:
    check(whole())


def test_a_kernel_may_join_what_it_prints() -> None:
    messages = whole()
    messages[2:5] = [stream("7 0\n7"), stream(" 1\n7 2\n")]
    check(messages)


@pytest.mark.parametrize("index", range(len(whole())))
def test_what_is_missing_is_missed(index: int) -> None:
    messages = whole()
    del messages[index]
    with pytest.raises(ViolationError):
        check(messages)


@pytest.mark.parametrize("index", range(len(whole())))
def test_what_is_doubled_is_seen(index: int) -> None:
    messages = whole()
    messages.insert(index, messages[index])
    with pytest.raises(ViolationError):
        check(messages)


@pytest.mark.parametrize("index", [i for i in range(len(whole()) - 1) if i != 0])
def test_what_is_reordered_is_seen(index: int) -> None:
    messages = whole()
    messages[index], messages[index + 1] = messages[index + 1], messages[index]
    with pytest.raises(ViolationError):
        check(messages)


@pytest.mark.parametrize("replies", [0, 2])
def test_there_is_one_reply(replies: int) -> None:
    with pytest.raises(ViolationError, match="replies"):
        check(whole(), replies=replies)


def gap(messages: list[dict[str, Any]]) -> None:
    view = View()
    for one in messages:
        view.published(one)
    view.check_gap(WANTED)


def test_a_gap_that_is_told_may_be_one() -> None:
    gap([*whole()[:10], stream(GAP).copy(), *whole()[15:]])


def test_a_gap_must_be_told() -> None:
    with pytest.raises(ViolationError, match="does not say so"):
        gap([*whole()[:10], *whole()[15:]])


def test_beside_a_gap_nothing_is_doubled() -> None:
    with pytest.raises(ViolationError, match="came after"):
        gap([*whole()[:10], stream(GAP), *whole()[8:]])
    with pytest.raises(ViolationError, match="twice"):
        gap([*whole()[:10], stream(GAP), *whole()[32:33], *whole()[32:]])


@pytest.mark.parametrize("kind", dict.fromkeys(cells.KINDS), ids=lambda kind: kind.__name__)
def test_a_seed_gives_the_same_cell(kind: Any) -> None:
    assert kind(random.Random("seed")) == kind(random.Random("seed"))
