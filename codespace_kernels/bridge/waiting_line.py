"""The one line that a waiting cell shows."""

from __future__ import annotations

import html
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.messages import Channel
from codespace_kernels.saved_notebooks import MARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.bridge.local_messages import LocalMessages
    from codespace_kernels.messages import Message


class WaitingState(NamedTuple):
    """What a cell waits for.

    Attributes:
        doing: What is being done, for a person.
        bar: What is done and what is not, as text; may be empty.
        outlook: Which step it is and what comes next; empty where that is not known.
    """

    doing: str = ""
    bar: str = ""
    outlook: str = ""


class WaitingLine:
    """A display that is replaced in place and taken away at the end, so that no cell keeps it.

    `display_data`, then `update_display_data` with its `display_id`, then `clear_output` without `wait`: a cell that
    prints nothing would keep what is only to be cleared before the next output. There is no `text/plain`: programs
    that cannot take it away again (`jupyter run`, papermill with `--log-output`) would print it among the results. A
    mark keeps it out of notebooks that are saved meanwhile (see `saved_notebooks`).

    Args:
        messages: Makes messages.
        send: Publishes a message to local clients.
    """

    def __init__(self, messages: LocalMessages, send: Callable[[Channel, Message], None]) -> None:
        self._messages = messages
        self._send = send
        self._parent = b""
        self._display_id = ""
        self._text = ""

    def show(self, parent: bytes, state: WaitingState, seconds: float) -> None:
        """Show in the cell of this request, in place of what was shown before, what it waits for and for how long."""
        doing = f"{state.bar} {state.doing}".lstrip()
        text = " · ".join(part for part in (doing, duration(seconds), state.outlook) if part)
        if parent != self._parent:
            self.clear()
            self._parent, self._display_id = parent, uuid.uuid4().hex
            self._publish("display_data", text)
        elif text != self._text:
            self._publish("update_display_data", text)
        self._text = text

    def finish(self, seconds: float) -> None:
        """Take the line away: the kernel has come."""
        self.clear()

    def clear(self) -> None:
        """Take the line away; where there is none, nothing is done."""
        if self._parent:
            self._send(Channel.IOPUB, self._messages.published("clear_output", self._parent, {"wait": False}))
        self._parent, self._text = b"", ""

    def _publish(self, kind: str, text: str) -> None:
        self._publish_data(kind, {"text/html": f"<div>{html.escape(text)}</div>"})

    def _publish_data(self, kind: str, data: dict[str, str]) -> None:
        content: dict[str, Any] = {
            "data": data,
            "metadata": {MARK: True},
            "transient": {"display_id": self._display_id},
        }
        self._send(Channel.IOPUB, self._messages.published(kind, self._parent, content))


def duration(seconds: float) -> str:
    """Give a time for a person, in the two largest units that it has."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
