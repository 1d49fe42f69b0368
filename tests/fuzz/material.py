"""Bytes and JSON that are nearly right, or not at all."""

from __future__ import annotations

import json
import random
from typing import Any

_TEXTS = (
    "",
    "status",
    "idle",
    "stream",
    "\ud800",
    "\x00",
    "<IDS|MSG>",
    "NaN",
    "hmac-sha256",
    "k" * 300,
    "../..",
    "é\n",
)
_NUMBERS = (0, 1, -1, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf"), -0.0)
_BYTES = (
    b"\x00",
    b"\xff",
    b"\n",
    b'"',
    b"[",
    b"{",
    b"\x00\x00\x00\x01",
    b"\xff\xff\xff\xff",
    b"NaN",
    b"1e999",
    b"\xed\xa0\x80",
)


def mutated(dice: random.Random, data: bytes, most: int = 4) -> bytes:
    """Give data that was changed in some places: bits, bytes put in, taken out, doubled, cut off."""
    changed = bytearray(data)
    for _ in range(dice.randint(0, most)):
        at = dice.randrange(len(changed) + 1)
        length = dice.choice((1, 1, 2, 4, 8, 40))
        kind = dice.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at:at] = dice.choice(_BYTES)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at : at + length] = dice.randbytes(min(length, max(0, len(changed) - at)))
        elif dice.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def pieces(dice: random.Random, data: bytes) -> list[bytes]:
    """Cut data anywhere."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randint(0, 5)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def any_json(dice: random.Random, depth: int = 3) -> Any:
    """Give a value of any shape."""
    kind = dice.randrange(7 if depth else 5)
    if kind == 0:
        return dice.choice((None, True, False))
    if kind in (1, 2):
        return dice.choice(_TEXTS)
    if kind in (3, 4):
        return dice.choice(_NUMBERS)
    if kind == 5:
        return [any_json(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {dice.choice(_TEXTS): any_json(dice, depth - 1) for _ in range(dice.randrange(4))}


def bent(dice: random.Random, value: Any) -> Any:
    """Give a JSON value like this one in which something is missing, or of another kind."""
    if dice.random() < 0.15:
        return any_json(dice)
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if dice.random() > 0.1}
        return {key: bent(dice, item) for key, item in kept.items()}
    if isinstance(value, list):
        return [bent(dice, item) for item in value if dice.random() > 0.1]
    return value


def document(dice: random.Random, value: Any) -> bytes:
    """Give the text of a JSON value, sometimes bent, broken, or nested deeper than anybody reads."""
    if dice.random() < 0.03:
        return dice.choice((b"[", b'{"a":', b'{"header":[')) * 100_000
    if dice.random() < 0.02:
        return b"1" * 5000
    text = json.dumps(bent(dice, value) if dice.random() < 0.7 else value).encode("utf-8", "surrogatepass")
    return mutated(dice, text) if dice.random() < 0.4 else text
