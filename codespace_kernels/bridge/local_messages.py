"""What the bridge says to local clients in its own name, in the kernel's place."""

from __future__ import annotations

import datetime
import itertools
import json
import uuid
from typing import Any

from codespace_kernels.messages import Channel, Message

PROTOCOL_VERSION = "5.4"
"""Of the messages made here; `iopub_welcome` came with it."""


class LocalMessages:
    """Makes messages whose parent is a client's request.

    See https://jupyter-client.readthedocs.io/en/stable/messaging.html for the form of each.
    """

    def __init__(self) -> None:
        self._session = uuid.uuid4().hex
        self._numbers = itertools.count()

    def reply(self, request: Message, request_type: str, content: dict[str, Any]) -> Message:
        """Make the reply to a request; it carries the asker's identities."""
        kind = request_type.removesuffix("_request") + "_reply"
        return self._make(kind, request.header, content, request.identities)

    def answered(self, channel: Channel, request: Message, content: dict[str, Any]) -> list[tuple[Channel, Message]]:
        """Make all that a kernel says when it answers a request at once: busy, the reply, idle."""
        reply = self.reply(request, str(request.header_dict().get("msg_type", "")), content)
        busy, idle = (self.status(state, request.header) for state in ("busy", "idle"))
        return [(Channel.IOPUB, busy), (channel, reply), (Channel.IOPUB, idle)]

    def request(self, kind: str) -> Message:
        """Make a request of our own to a kernel, without content."""
        return self._make(kind, b"{}", {}, (self._session.encode(),))

    def status(self, state: str, parent: bytes) -> Message:
        """Make an iopub `status` with `execution_state: state`."""
        return self.published("status", parent, {"execution_state": state})

    def published(self, kind: str, parent: bytes, content: dict[str, Any]) -> Message:
        """Make a message for iopub, with the topic that ipykernel would give it."""
        return self._make(kind, parent, content, (f"kernel.{self._session}.{kind}".encode(),))

    def again(self, message: Message, parent: bytes, identities: tuple[bytes, ...] | None = None) -> Message:
        """Make a message of a kernel once more, for another request; to another client, where identities are given."""
        kind = str(message.header_dict().get("msg_type", ""))
        made = self._make(kind, parent, {}, message.identities if identities is None else identities)
        return made._replace(metadata=message.metadata, content=message.content, buffers=message.buffers)

    def welcome(self, subscription: bytes) -> Message:
        """Make the `iopub_welcome` that tells a subscriber that it will miss nothing from here on."""
        content = {"subscription": subscription.decode(errors="replace")}
        return self._make("iopub_welcome", b"{}", content, (subscription,) if subscription else ())

    def _make(self, kind: str, parent: bytes, content: dict[str, Any], identities: tuple[bytes, ...]) -> Message:
        header = {
            "msg_id": f"{self._session}_{next(self._numbers)}",
            "msg_type": kind,
            "username": "kernel",
            "session": self._session,
            "date": datetime.datetime.now(datetime.UTC).isoformat(),
            "version": PROTOCOL_VERSION,
        }
        return Message(identities, json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode())
