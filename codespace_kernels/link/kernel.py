"""A kernel at the other end of the link."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import CodespaceKernelsError, KernelError, KernelNotFoundError, RemoteServerError
from codespace_kernels.messages import Channel, MalformedMessageError, Signer
from codespace_kernels.remote_kernel import KernelState, no_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from codespace_kernels.link.client import LinkClient
    from codespace_kernels.messages import Message
    from codespace_kernels.remote_kernel import RemoteKernelListener

log = logging.getLogger(__name__)

INTERRUPT_SECONDS = 25.0
"""For the answer to an interrupt: whoever asked for it, waits; front ends do so for half a minute."""

_CHANNELS = {int(channel): channel for channel in Channel}


class LinkKernel:
    """One kernel on a `LinkClient`; made by its `start_kernel` and `attach_kernel`. Implements `RemoteKernel`.

    Messages are signed with the remote kernel's own key and cross the link as they are; the identities of the local
    client travel through the kernel and back as further routing identities.

    Attributes:
        number: Which kernel this is on the link.
    """

    def __init__(self, client: LinkClient, number: int, kernel_id: str, state: KernelState = KernelState.ALIVE) -> None:
        self.number = number
        self._client = client
        self._kernel_id = kernel_id
        self._signer = Signer(b"")
        self._listener: RemoteKernelListener | None = None
        self._backlog: deque[Callable[[RemoteKernelListener], None]] = deque()
        self._held: list[Callable[[], None]] | None = None
        self._state = state
        self._closed = False

    def __repr__(self) -> str:
        return f"<LinkKernel {self._kernel_id} {self._state.value}>"

    # -- RemoteKernel -------------------------------------------------------------------------------------------------

    @property
    def kernel_id(self) -> str:
        """Its id at the Jupyter server of the workspace."""
        return self._kernel_id

    @property
    def state(self) -> KernelState:
        """What is known of it now."""
        return self._state

    @property
    def is_receiving(self) -> bool:
        """See `RemoteKernel`."""
        return self._client.is_receiving(self.number)

    def listen(self, listener: RemoteKernelListener | None) -> None:
        """Set who hears of this kernel; what came before anybody listened is handed over first, in order."""
        self._listener = listener
        while self._backlog and self._listener is not None:
            self._backlog.popleft()(self._listener)

    def send(self, channel: Channel, message: Message) -> None:
        """Queue a message to the kernel. To a kernel that is dead or let go of, it is dropped.

        Raises:
            KernelError: The message is larger than the link carries (1 GiB).
        """
        if self._closed or self._state is KernelState.DEAD:
            log.debug("message to kernel %s dropped: it is %s", self._kernel_id, self._state.value)
            return
        try:
            self._client.send(self.number, channel, self._signer.pack(message))
        except ValueError as error:
            raise KernelError(f"The message cannot be sent to the kernel: {error}.") from None

    async def interrupt(self) -> None:
        """Interrupt what the kernel is running.

        Raises:
            KernelError: The kernel is gone, or the server refused.
            WaitTimeoutError: No answer in time.
        """
        await self._command("interrupt", timeout=INTERRUPT_SECONDS)

    async def restart(self) -> None:
        """Replace the kernel's process, dead or alive; returns when the new one answers.

        Raises:
            KernelError: The server refused, or the new process did not start.
            WaitTimeoutError: No answer in time.
        """
        await self._command("restart")

    async def shutdown(self) -> None:
        """End the kernel. A kernel that is gone already is no error.

        Raises:
            KernelError: The server failed, or the link was closed.
            WaitTimeoutError: No answer in time.
        """
        await self._command("shutdown")
        await self.close()

    async def close(self) -> None:
        """Let go of the kernel without ending it."""
        if not self._closed:
            self._closed = True
            self._client.release(self)

    async def _command(self, do: str, timeout: float | None = None) -> None:
        try:
            await self._client.command(do, timeout=timeout, kernel_id=self._kernel_id)
        except RemoteServerError as error:
            raise KernelError(str(error)) from error

    @property
    def signing(self) -> dict[str, str]:
        """The remote kernel's `key` and `signature_scheme`."""
        return {"key": self._signer.key.decode(), "signature_scheme": self._signer.scheme}

    # -- from the client ----------------------------------------------------------------------------------------------

    def attached(self, answer: Mapping[str, Any]) -> None:
        """Take the answer to `start` or `attach`."""
        self._take_key(answer)
        self._set_state(KernelState.ALIVE, "")

    def restored(self, signing: Mapping[str, Any]) -> None:
        """Go on with a kernel that another process had; its `signing` was that."""
        self._take_key(signing)

    def refused(self, error: CodespaceKernelsError) -> None:
        """Take the refusal to be attached again."""
        reason = str(error)
        if isinstance(error, KernelNotFoundError):
            reason = (
                "The workspace's Jupyter server was started anew, and the kernel ended with the old one. Restart it."
            )
        self._set_state(KernelState.DEAD, reason)

    def hold(self) -> None:
        """Keep messages back until `go_on`: they are of another process there, and a gap is to be told before them."""
        self._held = self._held or []

    def go_on(self) -> None:
        """Hand over what was kept back."""
        held, self._held = self._held or [], None
        for hand_over in held:
            hand_over()

    def message_received(self, channel: int, parts: Sequence[bytes], done: Callable[[], None] = no_receipt) -> None:
        """Take a message from the link; `done` as `RemoteKernelListener.message_received` has it."""
        if self._held is not None:
            self._held.append(lambda: self.message_received(channel, parts, done))
            return
        known = _CHANNELS.get(channel)
        if known is None:
            done()
            return
        try:
            # It came over an authenticated link: checking its signature would prove nothing more.
            message = self._signer.unpack(parts, check=False)
        except MalformedMessageError as error:
            log.warning("message from kernel %s dropped: %s", self._kernel_id, error)
            done()
            return
        if self._listener is not None:
            self._listener.message_received(known, message, done)
        else:
            self._backlog.append(lambda listener: listener.message_received(known, message, done))

    def event_received(self, event: Mapping[str, Any]) -> None:
        """Take an event from the server."""
        kind, reason = event["event"], str(event.get("reason", ""))
        if kind in ("died", "ended"):
            self._set_state(KernelState.DEAD, reason)
        elif kind == "restarting":
            self._set_state(KernelState.RESTARTING, reason)
        elif kind == "restarted":
            self._take_key(event)
            self._set_state(KernelState.ALIVE, reason)
            if event.get("lost"):
                self.gap(reason or "The kernel died right after its start, and was started again.")

    def link_lost(self, reason: str) -> None:
        """Hear that the link has no stream now."""
        if self._state is not KernelState.DEAD:
            self._set_state(KernelState.RECONNECTING, reason)

    def link_restored(self) -> None:
        """Hear that the link goes on where it stopped."""
        if self._state is KernelState.RECONNECTING:
            self._set_state(KernelState.ALIVE, "")

    def gap(self, reason: str) -> None:
        """Hear that messages may have been lost."""
        self._tell(lambda listener: listener.output_may_be_missing(reason))

    def _take_key(self, answer: Mapping[str, Any]) -> None:
        self._signer = Signer(answer["key"].encode(), answer["signature_scheme"])

    def _set_state(self, state: KernelState, reason: str) -> None:
        if state is not self._state or reason:
            self._state = state
            self._tell(lambda listener: listener.state_changed(state, reason))

    def _tell(self, call: Callable[[RemoteKernelListener], None]) -> None:
        if self._listener is not None:
            call(self._listener)
        elif not self._closed:
            self._backlog.append(call)
