from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespace_kernels.link import frames

parts_lists = st.lists(st.binary(max_size=300), max_size=12)
sessions = st.text("0123456789abcdef", min_size=8, max_size=64)


def decode_all(data: bytes, cut: int = 0) -> list[object]:
    decoder = frames.FrameDecoder()
    if not cut:
        return decoder.feed(data)
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@given(parts_lists)
def test_a_message_comes_out_as_it_went_in(parts: list[bytes]) -> None:
    assert frames.decode_message(frames.encode_message(parts)) == parts


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_by_name(data: bytes) -> None:
    try:
        parts = frames.decode_message(data)
    except frames.ProtocolError:
        return
    assert frames.encode_message(parts) == data


@given(parts_lists, st.lists(st.integers(1, 200), max_size=30), st.binary(max_size=3))
def test_pieces_of_any_size_make_the_message(parts, sizes, more):
    body = frames.encode_message(parts) + more
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    pieces.append(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "MIN_PIECE", 0)
        fragments = frames.Fragments()
        assert [fragments.add(piece, more=True) for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        if more:
            with pytest.raises(frames.ProtocolError, match="the parts of a message are"):
                fragments.add(pieces[-1], more=False)
        else:
            assert fragments.add(pieces[-1], more=False) == parts


@given(st.lists(parts_lists, min_size=1, max_size=6), st.integers(1, 40))
def test_frames_survive_any_cutting(messages: list[list[bytes]], cut: int) -> None:
    data = b""
    wanted: list[object] = []
    for number, parts in enumerate(messages, 1):
        body = frames.encode_message(parts)
        data += frames.encode_data_header(number, 7, 2, False, len(body)) + body
        wanted.append(frames.Data(number, 7, 2, False, body))
        data += frames.encode_ack(number, 0.25) + frames.encode_ping(number) + frames.encode_pong(number)
        wanted += [frames.Ack(number, 0.25), frames.Ping(number), frames.Pong(number)]
    data += frames.encode_bye("so long") + frames.encode_error("no")
    wanted += [frames.Bye("so long"), frames.PeerError("no")]
    assert decode_all(data, cut) == decode_all(data) == wanted


@given(sessions, st.integers(0, 2**62))
def test_a_hello_comes_out_as_it_went_in(session: str, received: int) -> None:
    hello = frames.Hello(session, "endpoint", "", received, software="1.2")
    assert decode_all(frames.encode_hello(hello)) == [hello]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (struct.pack("!IB", 5, 99), "unknown kind of frame: 99"),
        (struct.pack("!IB", 1 << 31, 2), "DATA frame of 2147483648 bytes"),
        (struct.pack("!IB", 3, 2), "DATA frame of 3 bytes"),
        (struct.pack("!IB", 20000, 1), "HELLO frame of 20000 bytes"),
        (struct.pack("!IB", 11, 3), "ACK frame of 11 bytes"),
        (struct.pack("!IB", 2, 1) + b"[]", "no hello of this protocol"),
        (struct.pack("!IBQIBB", 14, 2, 1, 1, 1, 4), "unknown flags"),
        (b"HTTP/1.1 400 Bad Request\r\n", "unknown kind of frame"),
    ],
)
def test_nonsense_is_refused_before_it_is_kept(data: bytes, why: str) -> None:
    (error,) = decode_all(data)
    assert isinstance(error, frames.ProtocolError)
    assert why in str(error)


def test_good_frames_before_a_bad_one_count() -> None:
    found = decode_all(frames.encode_ping(4) + struct.pack("!IB", 5, 99))
    assert found[0] == frames.Ping(4)
    assert isinstance(found[1], frames.ProtocolError)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"major": 2},
            "(codespace-kernels 9.9) speaks version 2 of the link, this end 1: the latter must be updated",
        ),
        (
            {"major": 0},
            "(codespace-kernels 9.9) speaks version 0 of the link, this end 1: the former must be updated",
        ),
        ({"session": "x"}, "out of range"),
        ({"received": -1}, "out of range"),
        ({"received": True}, "valid 'received'"),
    ],
)
def test_a_hello_that_does_not_fit_says_what_does_not(fields: dict[str, object], why: str) -> None:
    import json

    good = json.loads(frames.encode_hello(frames.Hello("s" * 16, "e", "", 0, software="9.9"))[5:])
    with pytest.raises(frames.ProtocolError) as raised:
        frames.decode_hello(json.dumps({**good, **fields}).encode())
    assert why in str(raised.value)


def test_a_message_that_is_too_large_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE", 1000)
    with pytest.raises(ValueError, match="at most"):
        frames.encode_message([b"x" * 1000])


@given(st.binary(max_size=2000), st.integers(1, 64))
def test_any_bytes_give_frames_or_the_protocol_error(data: bytes, cut: int) -> None:
    for frame in decode_all(data, cut):
        assert type(frame).__module__ == frames.__name__
