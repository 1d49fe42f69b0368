"""A kernel in a workspace as the bridge sees it: the one interface between `bridge` and what carries the messages.

`link.client.LinkKernel` (our own link) and `jupyter.websocket.WebsocketKernel` (a server that is not ours) are its
implementations.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.messages import Channel, Message


class KernelState(enum.Enum):
    """What a remote kernel is doing, as far as its carrier knows."""

    ALIVE = "alive"
    RECONNECTING = "reconnecting"
    """The way to it is broken and being mended; nothing is known of the kernel meanwhile."""
    RESTARTING = "restarting"
    DEAD = "dead"
    """The process ended, was ended by others, or its server is gone. Final until `restart`."""


@dataclasses.dataclass(frozen=True)
class RemoteKernelSpec:
    """A kernelspec in a workspace.

    Attributes:
        name: Of the spec there.
        display_name: For people, as written there.
        language: `python`, `R`, ….
        interrupt_mode: `signal` or `message`; the server there does what it says.
        metadata: The spec's own metadata.
        resources: Content of the spec's logo files, by file name.
        versions: Of `python` and `ipython` behind it, as far as they are known without starting the kernel.
    """

    name: str
    display_name: str
    language: str
    interrupt_mode: str = "signal"
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    resources: dict[str, bytes] = dataclasses.field(default_factory=dict, repr=False)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object; resources in base64."""
        resources = {name: base64.b64encode(data).decode() for name, data in self.resources.items()}
        return {**dataclasses.asdict(self), "resources": resources}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RemoteKernelSpec:
        """Rebuild from `to_json`."""
        resources = {name: base64.b64decode(text) for name, text in data.get("resources", {}).items()}
        return cls(**{**data, "resources": resources})


class Token(NamedTuple):
    """What a message is known by to another process, which goes on when this one was killed.

    A `done` of `RemoteKernelListener.message_received` may have one as its attribute `token`, or None.

    Attributes:
        session: 64 bits of the link's session and of the peer that its frames are numbered for.
        place: Of the kernel and the channel.
        number: Of its last frame.
        after: The number of the message before it, of the same place, that was not delivered yet; 0 where all were.
    """

    session: int
    place: int
    number: int
    after: int


def no_receipt() -> None:
    """Do nothing: the carrier does not ask what became of a message."""


class RemoteKernelListener(Protocol):
    """What a remote kernel calls, always on the event loop it was made on."""

    def message_received(self, channel: Channel, message: Message, done: Callable[[], None] = no_receipt) -> None:
        """Take one message from the kernel. Per channel, in the order the kernel sent them.

        `done` is to be called when the message is where it belongs, or nobody is to have it: until then it is sent
        again to whoever goes on in the place of this process, should that die.
        """

    def state_changed(self, state: KernelState, reason: str) -> None:
        """Hear of a new state; `reason` is a sentence for a person, empty when there is nothing to say."""

    def output_may_be_missing(self, reason: str) -> None:
        """Hear that messages may have been lost; `reason` is a sentence for a person."""


class RemoteKernel(Protocol):
    """One running kernel in a workspace.

    All methods are called on the event loop that made the object. Identities of messages are the local client's routing
    identities: an answer carries those of the request that it answers.
    """

    @property
    def kernel_id(self) -> str:
        """Its id at the Jupyter server of the workspace."""

    @property
    def is_receiving(self) -> bool:
        """Whether a message of it has begun to come and is not whole yet, as far as the carrier knows."""

    def listen(self, listener: RemoteKernelListener | None) -> None:
        """Set who hears of this kernel; what came before anybody listened is handed over first, in order."""

    def send(self, channel: Channel, message: Message) -> None:
        """Queue a message to the kernel; never blocks, keeps order per channel, survives a reconnect exactly once."""

    async def interrupt(self) -> None:
        """Interrupt what the kernel is running.

        Raises:
            KernelError: The kernel is gone, or the server refused.
            WaitTimeoutError: No answer in time.
        """

    async def restart(self) -> None:
        """Replace the kernel's process by a fresh one under the same id; returns when the new process runs.

        Raises:
            KernelError: The server refused, or the new process did not start.
            WaitTimeoutError: No answer in time.
        """

    async def shutdown(self) -> None:
        """End the kernel. A kernel that is gone already is no error."""

    async def close(self) -> None:
        """Let go of the kernel without ending it."""
