"""What a terminal prints of a wait for the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from codespace_kernels.bridge.waiting_line import duration
from codespace_kernels.messages import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.bridge.local_messages import LocalMessages
    from codespace_kernels.bridge.waiting_line import WaitingState
    from codespace_kernels.messages import Message


class WaitingNotes:
    """One line at the start and one at the end, on stderr: what a terminal has printed cannot be replaced.

    Args:
        messages: Makes messages.
        send: Publishes a message to local clients.

    Attributes:
        end: What is told at the end, with a place for the `duration`.
    """

    end: ClassVar[str] = "The kernel is there after {duration}."

    def __init__(self, messages: LocalMessages, send: Callable[[Channel, Message], None]) -> None:
        self._messages = messages
        self._send = send
        self._parent = b""

    def show(self, parent: bytes, state: WaitingState, seconds: float) -> None:
        """Tell the first step that is known; later ones are not told."""
        if state.outlook and not self._parent:
            self._parent = parent
            self._print(f"{state.doing} …")

    def finish(self, seconds: float) -> None:
        """Tell that the kernel has come, if it was told that it is waited for."""
        if self._parent:
            self._print(self.end.format(duration=duration(seconds)))
        self.clear()

    def clear(self) -> None:
        """Tell nothing more of this wait: an error says how it ended."""
        self._parent = b""

    def _print(self, text: str) -> None:
        content = {"name": "stderr", "text": f"[codespace-kernels] {text}\n"}
        self._send(Channel.IOPUB, self._messages.published("stream", self._parent, content))
