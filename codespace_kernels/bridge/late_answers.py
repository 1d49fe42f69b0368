"""Requests that were answered here and go to the kernel all the same: what it answers to them comes too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codespace_kernels.messages import Message

_IDLE, _REPLY = "idle", "reply"


class LateAnswers:
    """Holds back a kernel's reply and statuses for each such request; true while it waits for any."""

    def __init__(self) -> None:
        self._missing: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._missing)

    def expect(self, msg_id: str) -> None:
        """Hold back what comes for this request."""
        self._missing[msg_id] = {_IDLE, _REPLY}

    def waits_for(self, request: Message) -> bool:
        """Tell whether what comes for a request is held back.

        Raises:
            MalformedMessageError: Its header is no JSON object.
        """
        return bool(self._missing) and request.header_dict().get("msg_id") in self._missing

    def clear(self) -> None:
        """Expect nothing more: the kernel that had the requests is gone."""
        self._missing.clear()

    def holds_back(self, message: Message) -> bool:
        """Tell whether a message of the kernel must not reach clients; output of such a request may.

        Reply and idle come on two channels, in any order.

        Raises:
            MalformedMessageError: Header, parent or content is no JSON object.
        """
        msg_id = str(message.parent_dict().get("msg_id", ""))
        missing = self._missing.get(msg_id)
        if missing is None:
            return False
        msg_type = str(message.header_dict().get("msg_type", ""))
        if msg_type.endswith("_reply"):
            missing.discard(_REPLY)
        elif msg_type != "status":
            return False
        elif message.content_dict().get("execution_state") == "idle":
            missing.discard(_IDLE)
        if not missing:
            del self._missing[msg_id]
        return True
