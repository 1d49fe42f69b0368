"""Questions to a person at a terminal: lists for the arrow keys, and lines of text.

They stand on stderr, so that stdout carries results only. Ctrl-C or Ctrl-D in one raises KeyboardInterrupt.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from codespace_kernels.cli import terminal
from codespace_kernels.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from questionary import Question

T = TypeVar("T")

_FEW = 8
"""Options that are seen at a glance; longer lists can be filtered by typing."""


class Option(NamedTuple, Generic[T]):
    """One line of a list: what it says, and what choosing it gives."""

    title: str
    value: T


def can_ask() -> bool:
    """Tell whether a person can see a question and answer it."""
    return terminal.is_interactive() and sys.stderr.isatty()


async def choose(question: str, options: Sequence[Option[T]], default: T | None = None) -> T:
    """Have one line of a list chosen.

    Args:
        question: With its question mark.
        options: At least one; values are distinct.
        default: Value of the line that is pointed at first; the first line's where None.
    """
    import questionary

    searched = len(options) > _FEW
    # Titles are looked up by place: a value may be of any type.
    lines = [questionary.Choice(option.title, value=place) for place, option in enumerate(options)]
    first = next((line for line, option in zip(lines, options, strict=True) if option.value == default), None)
    # Letters move the pointer, unless they filter.
    asked = questionary.select(
        question, lines, default=first, use_search_filter=searched, use_jk_keys=not searched, **_on_stderr()
    )
    return options[cast("int", await _answer(asked))].value


async def type_in(question: str, *, default: str = "", check: Callable[[str], None] | None = None) -> str:
    """Have a line of text typed.

    Args:
        question: With its question mark.
        default: Stands there already.
        check: Raises SettingsError for what cannot be used; the person sees its text and goes on typing.
    """
    import questionary

    def judge(text: str) -> bool | str:
        try:
            if check is not None:
                check(text.strip())
        except SettingsError as error:
            return str(error)
        return True

    asked = questionary.text(question, default=default, validate=judge, **_on_stderr())
    return str(await _answer(asked)).strip()


async def _answer(asked: Question) -> object:
    try:
        return await asked.unsafe_ask_async()
    except EOFError:
        # Ctrl-D, or the terminal is gone.
        raise KeyboardInterrupt from None


def _on_stderr() -> dict[str, Any]:
    from prompt_toolkit.output import create_output

    return {"output": create_output(stdout=sys.stderr)}
