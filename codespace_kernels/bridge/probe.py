"""Finds out whether a kernel works, where that is not known: another process had it until now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codespace_kernels.messages import Channel

if TYPE_CHECKING:
    from codespace_kernels.bridge.activity import Activity
    from codespace_kernels.bridge.local_messages import LocalMessages
    from codespace_kernels.messages import Message
    from codespace_kernels.remote_kernel import RemoteKernel


class BusyProbe:
    """Asks a kernel for its `kernel_info`: the answer comes when all that was asked before is done.

    Until then the kernel counts as busy: its codespace must not fall asleep in the middle of a training run.

    Args:
        activity: Told that the kernel is busy, and when it is not.
        messages: Makes the request.
    """

    def __init__(self, activity: Activity, messages: LocalMessages) -> None:
        self._activity = activity
        self._messages = messages
        self._asked: set[str] = set()
        self._open = False

    def begin(self) -> None:
        """Take the kernel for busy."""
        self._open = True
        self._activity.begin_unknown()

    def ask(self, kernel: RemoteKernel) -> str:
        """Ask, once there is a way to the kernel, or again over another one; give the request's id, empty for none."""
        if not self._open:
            return ""
        request = self._messages.request("kernel_info_request")
        msg_id = str(request.header_dict()["msg_id"])
        self._asked.add(msg_id)
        kernel.send(Channel.SHELL, request)
        return msg_id

    def replied(self, message: Message) -> None:
        """Look at a reply of the kernel.

        Raises:
            MalformedMessageError: Its parent is no JSON object.
        """
        if self._open and str(message.parent_dict().get("msg_id", "")) in self._asked:
            self.end()

    def end(self) -> None:
        """Ask no more: the kernel has answered, or is another one by now."""
        if self._open:
            self._open = False
            self._activity.end_unknown()
