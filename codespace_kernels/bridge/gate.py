"""The border to local clients: what comes in must carry the key's signature, and nothing passes twice."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge.strict_json import strict_message
from codespace_kernels.messages import Channel, MalformedMessageError, Message, Signer, WrongSignatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

_REMEMBERED_SIGNATURES = 1024
_REMEMBERED_CLIENTS = 256


class SignatureHistory:
    """The last signatures that passed one way; older ones are forgotten.

    Of each it keeps Python's own hash of 64 bits, which nobody can choose: whole ones took 2 MB for each kernel.
    """

    def __init__(self, size: int = _REMEMBERED_SIGNATURES) -> None:
        self._order: collections.deque[int] = collections.deque()
        self._known: set[int] = set()
        self._size = size

    def add(self, signature: bytes) -> bool:
        """Remember a signature; false where it is known already. Unsigned messages (empty key) are all new."""
        if not signature:
            return True
        mark = hash(signature)
        if mark in self._known:
            return False
        self._known.add(mark)
        self._order.append(mark)
        if len(self._order) > self._size:
            self._known.discard(self._order.popleft())
        return True


class LocalGate:
    """Checks and signs with the local key.

    Attributes:
        wrong_signature, malformed, duplicates: How many messages were dropped, by reason, both ways together.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._received = SignatureHistory()
        self._sent = SignatureHistory()
        self._complained: set[bytes] = set()
        self.wrong_signature = 0
        self.malformed = 0
        self.duplicates = 0

    def take(self, channel: Channel, frames: Sequence[bytes]) -> tuple[Message, dict[str, Any]] | None:
        """Give a client's message and its header; None where it was dropped."""
        try:
            message = self._signer.unpack(frames)
            header = message.header_dict()
        except WrongSignatureError:
            self.wrong_signature += 1
            self._complain(channel, frames, "its signature is wrong; the client may have an old connection file")
        except MalformedMessageError as error:
            self.malformed += 1
            self._complain(channel, frames, str(error))
        else:
            if self._received.add(_signature(frames, message)):
                return message, header
            self.duplicates += 1
            self._complain(channel, frames, "it came twice")
        return None

    def give(self, channel: Channel, message: Message) -> list[bytes] | None:
        """Give the signed frames of a message to clients; None where it was dropped.

        A jupyter_client session raises at a signature that it has seen already, so a message never passes twice.
        """
        try:
            message = strict_message(message)
        except MalformedMessageError as error:
            self.malformed += 1
            _log.warning("dropped a message of the kernel on %s: %s", channel.name.lower(), error)
            return None
        frames = self._signer.pack(message)
        if self._sent.add(_signature(frames, message)):
            return frames
        self.duplicates += 1
        _log.warning("dropped a message of the kernel on %s: it came twice", channel.name.lower())
        return None

    def _complain(self, channel: Channel, frames: Sequence[bytes], reason: str) -> None:
        client = frames[0] if frames else b""
        if client not in self._complained and len(self._complained) < _REMEMBERED_CLIENTS:
            self._complained.add(client)
            _log.warning(
                "dropped a message of local client %s on %s: %s (said once for this client)",
                client[:16].hex(),
                channel.name.lower(),
                reason,
            )


def _signature(frames: Sequence[bytes], message: Message) -> bytes:
    return frames[len(message.identities) + 1]
