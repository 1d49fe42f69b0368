"""The protocol without a network; that real ZMQ sockets are understood is tested with the bridge."""

from __future__ import annotations

import pytest

from codespace_kernels.zmtp.frames import ZmtpError, encode_message
from codespace_kernels.zmtp.mechanisms import Null
from codespace_kernels.zmtp.peer import Peer, Ready, Subscription

from .hello import GREETING, ready

BIG = b"x" * 100_000


def connected(socket_type: bytes = b"ROUTER", kind: bytes = b"DEALER", limit: int = 1 << 20) -> Peer:
    peer = Peer(socket_type, Null, limit)
    assert peer.receive_data(GREETING + ready(kind)) == [Ready(b"")]
    peer.data_to_send()
    return peer


def test_both_sides_greet_and_say_what_they_are():
    peer = Peer(b"ROUTER", Null, 1000)
    assert peer.data_to_send() == b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
    assert peer.receive_data(GREETING) == []
    assert peer.data_to_send() == b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
    assert not peer.ready
    assert peer.receive_data(ready(identity=b"me")) == [Ready(b"me")]
    assert peer.ready
    assert peer.data_to_send() == b""


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_messages_arrive_however_the_stream_is_cut(step):
    messages = [[b""], [b"one", b"", b"three"], [BIG, b"tail"], [b"y" * 255], [b"z" * 256]]
    stream = GREETING + ready() + b"".join(b"".join(encode_message(frames)) for frames in messages)
    peer = Peer(b"ROUTER", Null, 1 << 20)
    events = []
    for at in range(0, len(stream), step):
        events += peer.receive_data(stream[at : at + step])
    assert events == [Ready(b""), *messages]
    assert peer.kept == peer.missing == 0


def test_a_large_frame_is_not_copied_on_its_way_out():
    pieces = encode_message([b"id", BIG, b"tail"])
    assert [piece is BIG for piece in pieces] == [False, True, False]


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("command", [True, False])
def test_subscriptions_of_both_versions(command, wanted):
    name = b"\x09SUBSCRIBE" if wanted else b"\x06CANCEL"
    body = (name if command else bytes((wanted,))) + b"topic"
    frame = bytes((4 if command else 0, len(body))) + body
    assert connected(b"XPUB", b"SUB").receive_data(frame) == [Subscription(b"topic", wanted)]


def test_a_ping_is_answered_with_its_context():
    peer = connected()
    assert peer.receive_data(b"\x04\x0a\x04PING\x00\x64abc") == []
    assert peer.data_to_send() == b"\x04\x08\x04PONGabc"


WRONG = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "no signature": b"\xff" + bytes(9),
    "old": GREETING[:10] + b"\x01",
    "other mechanism": GREETING.replace(b"NULL", b"PLAIN"),
    "message before the handshake": GREETING + b"\x00\x01x",
    "other command": GREETING + b"\x04\x06\x05HELLO",
    "wrong socket": GREETING + ready(b"PUSH"),
    "reserved id": GREETING + ready(identity=b"\0abc"),
    "long id": GREETING + ready(identity=b"x" * 256),
    "cut property": GREETING + b"\x04\x08\x05READY\x0bS",
    "large handshake": GREETING + b"\x06" + (1 << 20).to_bytes(8, "big"),
    "flags": GREETING + ready() + b"\x08\x00",
    "command of two frames": GREETING + ready() + b"\x05\x00",
    "no name": GREETING + ready() + b"\x04\x00",
    "cut name": GREETING + ready() + b"\x04\x02\x05P",
    "long ping": GREETING + ready() + b"\x04\x18\x04PING" + bytes(19),
    "error": GREETING + ready() + b"\x04\x0a\x05ERROR\x03no!",
    "large frame": GREETING + ready() + b"\x02" + (1 << 40).to_bytes(8, "big"),
}


@pytest.mark.parametrize("name", WRONG)
def test_who_does_not_keep_to_the_protocol_is_refused(name):
    peer = Peer(b"ROUTER", Null, 1 << 20)
    with pytest.raises(ZmtpError):
        peer.receive_data(WRONG[name])


def test_a_message_of_frames_without_end_is_refused():
    peer = connected(limit=10_000)
    with pytest.raises(ZmtpError, match="10000"):
        peer.receive_data(b"\x01\x00" * 10_000)
    assert peer.kept <= 10_064


def test_bytes_that_trickle_in_cost_what_they_are():
    peer = connected()
    peer.receive_data(b"\x02" + (1 << 19).to_bytes(8, "big"))
    for _ in range(1000):
        peer.receive_data(b"x")
    assert peer.kept == 1000
    assert peer.missing == (1 << 19) - 1000
