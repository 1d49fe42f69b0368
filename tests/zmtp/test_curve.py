"""CurveZMQ keys; that real clients are understood is tested with the bridge."""

from __future__ import annotations

import functools

import pytest
import zmq
from zmq.utils import z85

from codespace_kernels.zmtp.curve import CurveKeys, CurveServer
from codespace_kernels.zmtp.frames import ZmtpError
from codespace_kernels.zmtp.peer import Peer

from .hello import GREETING

CURVE_GREETING = GREETING.replace(b"NULL\0", b"CURVE")


def test_keys_are_written_as_zmq_writes_them():
    for _ in range(50):
        public, secret = (key.decode() for key in zmq.curve_keypair())
        keys = CurveKeys.from_text(public, secret)
        assert keys == (z85.decode(public), z85.decode(secret))
        assert keys.to_text() == (public, secret)
        assert secret not in repr(keys)


@pytest.mark.parametrize("public", ["", "x" * 39, "x" * 41, "é" * 40, "~" * 40, "`" * 40, "#" * 40, "0" * 40])
def test_what_is_no_pair_of_keys_is_refused(public):
    _, secret = CurveKeys.generate().to_text()
    with pytest.raises(ValueError):
        CurveKeys.from_text(public, secret)


HELLO = b"\x05HELLO\x01\x00" + bytes(72)
WRONG = {
    "too short": b"\x05HELLO",
    "another version": HELLO.replace(b"\x01", b"\x02") + b"k" * 32 + b"\x01" * 88,
    "another key": HELLO + b"k" * 32 + b"\x01" * 88,
    "a key of order one": HELLO + bytes(32) + b"\x01" * 88,
    "initiate first": b"\x08INITIATE" + bytes(300),
    "plain ready": b"\x05READY",
    "no name": b"\xff",
}


@pytest.mark.parametrize("name", WRONG)
def test_who_does_not_know_the_key_is_refused(name):
    body = WRONG[name]
    peer = Peer(b"ROUTER", functools.partial(CurveServer, CurveKeys.generate()), 1000)
    peer.receive_data(CURVE_GREETING)
    with pytest.raises(ZmtpError):
        peer.receive_data(b"\x06" + len(body).to_bytes(8, "big") + body)
