"""What a bridge tells whoever holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from codespace_kernels.bridge.waiting_line import WaitingState
    from codespace_kernels.remote_kernel import KernelState


class BridgeOwner(Protocol):
    """Who holds a bridge: the broker. Called on the bridge's event loop."""

    def shutdown_requested(self, *, restart: bool, session: str) -> None:
        """The client of a session asked to end or restart the kernel, and was told that it will be done."""

    def execution_state_changed(self, state: str) -> None:
        """The kernel is `starting`, `idle`, `busy` or `dead` now."""

    def kernel_state_changed(self, state: KernelState, reason: str) -> None:
        """The carrier of the remote kernel tells a new state."""

    def person_acted(self) -> None:
        """A client passed on what a person did: a run, an answer to `input()`, a move of a widget."""

    def run_waits(self) -> None:
        """A person's run waits for a kernel, and the stand-in can show in its cell what for (see `tell_waiting`)."""

    def waiting_interrupted(self) -> None:
        """The runs that waited were interrupted: nobody waits for the kernel any more."""

    def lost_way(self) -> WaitingState:
        """Tell what is being done about the way to the kernel, which is lost."""

    def told_of_way(self, text: str) -> None:
        """The way to the kernel stays lost, or is back after it was: this is what people are told."""

    def somebody_waits(self) -> None:
        """A person runs something on a kernel to which the way is lost."""

    def kernel_info_received(self, content: dict[str, Any]) -> None:
        """The kernel answered a `kernel_info_request`, with this content."""

    def notebook_named(self, path: str) -> None:
        """A client said which notebook it works on."""
