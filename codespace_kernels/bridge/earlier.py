"""Output of runs that no connected client asked for: kept until one runs something, then shown in that cell."""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge.answers import is_background
from codespace_kernels.messages import Channel, Message
from codespace_kernels.remote_kernel import no_receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.bridge.local_messages import LocalMessages

MAX_MESSAGES = 10_000
MAX_BYTES = 64 * 1024 * 1024
"""What is kept for one kernel at most; the oldest goes first, and it is said how many did."""

MAX_JOINED = 64 * 1024
"""Bytes of text up to which pieces of one stream are joined."""

OUTPUTS = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error"})

OPENING = "What the kernel wrote while no notebook was connected:"
STILL_RUNNING = "An earlier cell still runs, and this one is next. What the earlier one writes:"


class _Output:
    """One message of output: its kind, the id of the run that made it, and, for a stream, its text so far."""

    def __init__(self, message: Message, done: Callable[[], None]) -> None:
        self.message = message
        self.owed = [done]
        self.kind = str(message.header_dict().get("msg_type", ""))
        self.run = str(message.parent_dict().get("msg_id", ""))
        joinable = self.kind == "stream" and len(message.content) <= MAX_JOINED
        self.content = message.content_dict() if joinable else {}
        self.size = sum(map(len, message[1:5])) + sum(map(len, message.buffers))

    def joins(self, other: _Output) -> bool:
        """Take the text of what follows, where it is the same stream of the same run; tells whether it did."""
        same = self.kind == other.kind == "stream" and self.run == other.run
        if (
            not same
            or not other.content
            or self.content.get("name") != other.content.get("name")
            or self.size > MAX_JOINED
        ):
            return False
        self.content["text"] = f"{self.content.get('text', '')}{other.content.get('text', '')}"
        self.message = self.message._replace(content=b"")
        self.size += other.size
        self.owed += other.owed
        return True

    def finished(self) -> Message:
        """Give the message, with all the text that it got."""
        return (
            self.message if self.message.content else self.message._replace(content=json.dumps(self.content).encode())
        )


class OutputStore:
    """Keeps output in the order it came; the oldest is dropped where there is too much.

    Attributes:
        dropped: How many messages were.
    """

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self.dropped = 0
        self._outputs: collections.deque[_Output] = collections.deque()
        self._given: list[_Output] = []
        self._size = 0
        self._cleared_next: set[str] = set()
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def put(self, message: Message, done: Callable[[], None] = no_receipt) -> bool:
        """Keep a message of iopub; false where it is no output.

        Args:
            message: The message.
            done: Called when it was shown, or dropped: until then it is sent again after a death of this process.

        Raises:
            MalformedMessageError: Header, parent or content is no JSON object.
        """
        kind = message.header_dict().get("msg_type")
        if kind == "clear_output":
            self._clear(message)
            done()
            return True
        if kind not in OUTPUTS:
            return False
        output = _Output(message, done)
        if output.run in self._cleared_next:
            self._drop_run(output.run)
        if not (self._outputs and self._outputs[-1].joins(output)):
            self._outputs.append(output)
        self._size += output.size
        while len(self._outputs) > self._max_messages or self._size > self._max_bytes:
            oldest = self._outputs.popleft()
            self._size -= oldest.size
            self.dropped += 1
            _settle([oldest])
        return True

    def take_all(self) -> list[Message]:
        """Give and forget what is kept, oldest first; to be shown before `settle` is called."""
        messages = [output.finished() for output in self._outputs]
        self._given += self._outputs
        self._outputs.clear()
        self._size = 0
        return messages

    def settle(self) -> None:
        """Hear that what was given has been shown."""
        given, self._given = self._given, []
        _settle(given)

    def _clear(self, message: Message) -> None:
        run = str(message.parent_dict().get("msg_id", ""))
        if message.content_dict().get("wait"):
            self._cleared_next.add(run)
        else:
            self._drop_run(run)

    def _drop_run(self, run: str) -> None:
        self._cleared_next.discard(run)
        _settle([output for output in self._outputs if output.run == run])
        self._outputs = collections.deque(output for output in self._outputs if output.run != run)
        self._size = sum(output.size for output in self._outputs)


def _settle(outputs: list[_Output]) -> None:
    for output in outputs:
        for done in output.owed:
            done()


def is_idle(message: Message) -> bool:
    """Tell whether this is the last message of a request on iopub."""
    is_status = message.header_dict().get("msg_type") == "status"
    return is_status and message.content_dict().get("execution_state") == "idle"


class EarlierOutput:
    """Shows in the first cell that is run what runs of clients that are gone wrote, and still write.

    A run is a client's that is gone when its session has asked nothing here. Active from `begin` on.

    Args:
        messages: Makes messages.
        send: Hands a message to local clients.
        still_running: Tells whether such a run is not finished.
    """

    def __init__(
        self, messages: LocalMessages, send: Callable[[Channel, Message], None], still_running: Callable[[], bool]
    ) -> None:
        self.active = False
        self.store = OutputStore()
        self._messages = messages
        self._send = send
        self._still_running = still_running
        self._sessions: set[str] = set()
        self._cells: dict[str, Message] = {}
        self._question: Message | None = None
        self._ending = ""
        self._news: list[str] = []
        self._introduced = False

    def announce(self, text: str) -> None:
        """Say this, too, at the next run."""
        self.active = True
        self._news = [text]

    def begin(self, store: OutputStore, question: Message | None = None, ending: str = "") -> None:
        """Show this at the next run.

        Args:
            store: What was written.
            question: An `input_request` that nobody has answered.
            ending: Why the kernel that wrote it is no more; empty where it is the one that is here.
        """
        self.active = True
        self.store = store
        self._question = question
        self._ending = ending
        self._introduced = False

    def requested(self, channel: Channel, request: Message) -> None:
        """Note a request of a client that is here."""
        header = request.header_dict()
        self._sessions.add(str(header.get("session", "")))
        execution = channel is Channel.SHELL and header.get("msg_type") == "execute_request"
        if execution and not is_background(request.content_dict()):
            self._cells[str(header.get("msg_id", ""))] = request
            self._show()

    def finished(self, request: str) -> None:
        """Note the end of a run of a client that is here, by its id."""
        self._cells.pop(request, None)

    def reset(self) -> None:
        """Note that no run goes on: the process that had them is gone."""
        self._cells.clear()

    def takes(self, channel: Channel, message: Message, done: Callable[[], None] = no_receipt) -> bool:
        """Take output, or a question, that no client here would know what to do with; `done` as `OutputStore.put`.

        Raises:
            MalformedMessageError: Header, parent or content is no JSON object.
        """
        if channel not in (Channel.IOPUB, Channel.STDIN):
            return False
        parent = message.parent_dict()
        if not parent:
            return False
        if str(parent.get("session", "")) in self._sessions:
            # Not at the reply: that may overtake what an earlier run still wrote, which comes before this idle.
            if channel is Channel.IOPUB and is_idle(message):
                self.finished(str(parent.get("msg_id", "")))
            return False
        if channel is Channel.STDIN:
            self._question = message
            done()
        elif not self.store.put(message, done):
            return False
        self._show()
        return True

    def _show(self) -> None:
        cell = next(iter(self._cells.values()), None)
        if cell is None:
            return
        self._introduce(cell)
        for message in self.store.take_all():
            self._send(Channel.IOPUB, self._messages.again(message, cell.header))
        self.store.settle()
        if self._question is not None:
            question, self._question = self._question, None
            self._send(Channel.STDIN, self._messages.again(question, cell.header, cell.identities))

    def _introduce(self, cell: Message) -> None:
        lines, self._news = self._news, []
        if self.store.dropped:
            lines.append(f"{self.store.dropped} older outputs of the kernel were dropped: there were too many to keep.")
            self.store.dropped = 0
        if not self._introduced:
            running = self._still_running()
            if running or self.store:
                lines.append(STILL_RUNNING if running else OPENING)
            if self._ending:
                lines.append(f"The kernel that was kept is no more, this is a new one. {self._ending}")
            self._introduced = True
        for line in lines:
            content: dict[str, Any] = {"name": "stderr", "text": f"[codespace-kernels] {line}\n"}
            self._send(Channel.IOPUB, self._messages.published("stream", cell.header, content))
