"""JSON that a browser takes: VS Code stops reading a channel for ever at the first document it cannot parse."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING

from codespace_kernels.messages import MAX_DECODED, MalformedMessageError, decode_json

if TYPE_CHECKING:
    from codespace_kernels.messages import Message

_BARE_WORDS = (b"NaN", b"Infinity")
_BEFORE_A_VALUE = b"[,: \t\r\n-"

_PARSED_BYTES = 64 * 1024
"""Up to this size a document is parsed to be sure of it (microseconds); longer ones are searched for bare words."""

_MARKS = 512
"""So many quotation marks of a longer document are looked at, to leave texts out of the search for words.

A single byte is found ten times as fast as a word, and a document with an image is little else than one text.
"""

_BACKSLASH = ord("\\")

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)', re.DOTALL)
"""A text, which may hold anything, or a bare word outside of texts."""


class _BareWordError(Exception):
    """A `NaN` or `Infinity` stands in a document."""


def _refuse(word: str) -> None:
    raise _BareWordError(word)


# Made once: that costs more than most documents.
_STRICT = json.JSONDecoder(parse_constant=_refuse)
_REPAIRING = json.JSONDecoder(parse_constant=lambda _: None)


def strict_message(message: Message) -> Message:
    """Give the message with every `NaN` and `Infinity` replaced by null; the same object where there is none.

    Python's json module writes them bare, which is no JSON; kernels that use it as it comes send them. An empty
    document, as some kernels send for empty metadata, becomes `{}`.

    Raises:
        MalformedMessageError: A document is no JSON even for Python.
    """
    documents = message[1:5]
    header, parent, metadata, content = documents
    known = _known if len(parent) <= _PARSED_BYTES else _strict
    strict = (_strict(header), known(parent), _strict(metadata), _strict(content))
    if strict == documents:
        return message
    header, parent, metadata, content = strict
    return message._replace(header=header, parent=parent, metadata=metadata, content=content)


def _may_be_loose(document: bytes) -> bool:
    """Whether a bare word may stand outside of the document's texts; surely none does where this says no."""
    position, inside = 0, False
    for _ in range(_MARKS):
        mark = document.find(b'"', position)
        end = mark if mark >= 0 else len(document)
        if not inside:
            if any(document.find(word, position, end) >= 0 for word in _BARE_WORDS):
                return True
            inside = True
        else:
            inside = document[end - 1] == _BACKSLASH and _is_escaped(document[position:end])
        if mark < 0:
            return False
        position = mark + 1
    return any(_stands_bare(document, word, position) for word in _BARE_WORDS)


def _is_escaped(before: bytes) -> bool:
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _stands_bare(document: bytes, word: bytes, start: int) -> bool:
    """Whether the word stands where a value may begin: base64 is full of `NaN`, and decoding each image is too dear."""
    position = document.find(word, start)
    while position >= 0:
        if document[position - 1] in _BEFORE_A_VALUE:
            return True
        position = document.find(word, position + 1)
    return False


def _strict(document: bytes) -> bytes:
    # The length first: to look for it in a set, a whole image would be hashed.
    if len(document) <= len(b"{}") and document in {b"", b"{}"}:
        return b"{}"
    if len(document) > _PARSED_BYTES and not _may_be_loose(document):
        return document
    if len(document) > MAX_DECODED:
        # Its values would take many times its size in memory.
        return _TOKEN.sub(_null_for_bare_word, document)
    text = document.decode(errors="replace")
    try:
        try:
            decode_json(text, _STRICT)
        except _BareWordError:
            return json.dumps(_REPAIRING.decode(text)).encode()
    except ValueError as error:
        raise MalformedMessageError(f"not JSON: {error}") from None
    except RecursionError:
        raise MalformedMessageError("JSON that is nested too deeply") from None
    return document


_known = functools.lru_cache(maxsize=16)(_strict)
"""For the parent's header, which is the same in all that one request brings; not for one that is worth no keeping."""


def _null_for_bare_word(token: re.Match[bytes]) -> bytes:
    return token[0] if token[0].startswith(b'"') else b"null"
