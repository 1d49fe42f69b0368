"""JSON that a browser takes: VS Code stops reading a channel for ever at the first document it cannot parse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from codespace_kernels.messages import MalformedMessageError

if TYPE_CHECKING:
    from codespace_kernels.messages import Message

_BARE_WORDS = (b"NaN", b"Infinity")
_BEFORE_A_VALUE = b"[,: \t\r\n-"


def strict_message(message: Message) -> Message:
    """Give the message with every `NaN` and `Infinity` replaced by null; the same object where there is none.

    Python's json module writes them bare, which is no JSON; kernels that use it as it comes send them.

    Raises:
        MalformedMessageError: A document with such a word is no JSON even for Python.
    """
    for document in message[1:5]:
        if _may_be_loose(document):
            header, parent, metadata, content = (_strict(part) for part in message[1:5])
            return message._replace(header=header, parent=parent, metadata=metadata, content=content)
    return message


def _may_be_loose(document: bytes) -> bool:
    return any(_stands_bare(document, word) for word in _BARE_WORDS)


def _stands_bare(document: bytes, word: bytes) -> bool:
    """Whether the word stands where a value may begin: base64 is full of `NaN`, and decoding each image is too dear."""
    position = document.find(word)
    while position >= 0:
        if document[position - 1] in _BEFORE_A_VALUE:
            return True
        position = document.find(word, position + 1)
    return False


def _strict(document: bytes) -> bytes:
    if not _may_be_loose(document):
        return document
    found: list[str] = []
    try:
        value = json.loads(document.decode(errors="replace"), parse_constant=found.append)
    except ValueError as error:
        raise MalformedMessageError(f"not JSON: {error}") from None
    return json.dumps(value).encode() if found else document
