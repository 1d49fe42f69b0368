"""Texts that come from elsewhere, made fit for a terminal, a log or a list: they say something and do nothing."""

from __future__ import annotations

import logging
import re

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls of terminals, but tab and line feed; C1 is the eight-bit form of ESC x
    "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # the order in which letters are shown
    "\u2028\u2029\ud800-\udfff]"  # ends of lines for some programs; halves of characters, which cannot be written
)


def harmless(text: str) -> str:
    """Give a text without what moves a cursor, renames a window, or shows letters in another order; `?` stands there.

    A codespace, a kernel and a server choose names and error texts; a terminal takes orders from whatever is printed.
    """
    return _ACTING.sub("?", text)


def one_line(text: str, longest: int) -> str:
    """Give a text as one line of at most `longest` characters."""
    line = harmless(" ".join(text[: 4 * longest].split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


class HarmlessFormatter(logging.Formatter):
    """Formats log records that may quote what a codespace said: a log is read in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return harmless(super().format(record))
