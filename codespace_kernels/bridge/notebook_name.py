"""Which notebook a front end works on, where only the code that it runs of its own accord tells.

VS Code sets none of the variables that other front ends name the notebook in. Its start-up code tells the kernel the
path: an assignment of a string to `__vsc_ipynb_file__` (measured with 2026.6.1).
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from codespace_kernels.messages import Channel, MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.messages import Message

_ASSIGNMENT = re.compile(r"""__vsc_ipynb_file__\s*=\s*([rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))""")


def notebook_in(code: str) -> str:
    """Give the path that VS Code's start-up code names; empty where it names none."""
    found = _ASSIGNMENT.search(code)
    if found is None:
        return ""
    try:
        return str(ast.literal_eval(found.group(1)))
    except (ValueError, SyntaxError):
        return ""


class NotebookName:
    """Looks for it in what passes; a `RequestHandler` that takes nothing.

    Args:
        named: Called with the path.
    """

    def __init__(self, named: Callable[[str], None]) -> None:
        self._named = named

    def handle(self, channel: Channel, request: Message, msg_type: str) -> bool:
        """Look, and let the next one have the message."""
        if channel is Channel.SHELL and msg_type == "execute_request" and b"__vsc_ipynb_file__" in request.content:
            try:
                path = notebook_in(str(request.content_dict().get("code", "")))
            except MalformedMessageError:
                return False
            if path:
                self._named(path)
        return False
