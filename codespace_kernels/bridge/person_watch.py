"""What a person did, of all that front ends ask a kernel for by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codespace_kernels.bridge.answers import is_background
from codespace_kernels.messages import Channel, MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.messages import Message

_ACTS = frozenset({"comm_open", "comm_msg", "input_reply"})


class PersonWatch:
    """Looks for it in what passes: a run, an answer to `input()`, a widget. A `RequestHandler` that takes nothing.

    Args:
        acted: Called for each.
    """

    def __init__(self, acted: Callable[[], None]) -> None:
        self._acted = acted

    def handle(self, channel: Channel, request: Message, msg_type: str) -> bool:
        """Look, and let the next one have the message."""
        if msg_type in _ACTS or (channel is Channel.SHELL and msg_type == "execute_request" and _is_run(request)):
            self._acted()
        return False


def _is_run(request: Message) -> bool:
    try:
        return not is_background(request.content_dict())
    except MalformedMessageError:
        return False
