"""What travels on kernel number 0: lifecycle commands, their answers, and events, as JSON with raw parts behind it.

    request  {"id": 7, "do": "start", …}
    answer   {"id": 7, "ok": {…}}  or  {"id": 7, "error": {"type": "KernelStartError", "message": "…"}}
    event    {"event": "died", "kernel_id": …, …}

They are ordinary numbered messages: kept, replayed and taken once like all others.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Sequence, Tuple

from .frames import ProtocolError

KERNEL = 0
CHANNEL = 0

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a JSON object that is decoded: in memory it may take 20 times as many. What is large is sent raw."""


def encode(document: Dict[str, Any], raw: Sequence[bytes] = ()) -> List[bytes]:
    """Give the parts of a message from a JSON object and raw parts."""
    return [json.dumps(document, separators=(",", ":")).encode(), *raw]


def decode(parts: Sequence[bytes]) -> Tuple[Dict[str, Any], List[bytes]]:
    """Give the JSON object and the raw parts of a message.

    Raises:
        ProtocolError: It begins with no JSON object, or with one that is too large.
    """
    if parts and len(parts[0]) > MAX_DOCUMENT:
        raise ProtocolError("a JSON object of %d bytes on kernel number 0" % len(parts[0]))
    try:
        document = json.loads(parts[0].decode()) if parts else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProtocolError("a message on kernel number 0 that is no JSON object")
    return document, list(parts[1:])
