from __future__ import annotations

import secrets
import tracemalloc

from codespace_kernels.bridge.gate import SignatureHistory


def test_the_last_signatures_are_known_and_older_ones_forgotten() -> None:
    history = SignatureHistory(3)
    assert [history.add(signature) for signature in (b"a", b"b", b"a", b"c", b"d", b"b", b"a")] == [
        True, True, False, True, True, False, True,
    ]  # fmt: skip
    assert history.add(b"")
    assert history.add(b"")


def test_what_is_remembered_costs_little() -> None:
    tracemalloc.start()
    try:
        history = SignatureHistory()
        for _ in range(20_000):
            history.add(secrets.token_hex(32).encode())
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
