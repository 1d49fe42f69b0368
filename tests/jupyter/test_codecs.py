"""Both forms of the websocket, against jupyter_server's own functions."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

from codespace_kernels.jupyter import legacy, v1
from codespace_kernels.messages import Channel, MalformedMessageError, Message

_documents = st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.floats(allow_nan=False)))
_json = _documents.map(lambda value: json.dumps(value).encode())
_header = _documents.map(lambda value: json.dumps({"msg_id": "1", **value}).encode())
_messages = st.builds(Message, st.just(()), _header, _json, _json, _json, st.lists(st.binary(), max_size=4).map(tuple))
_channels = st.sampled_from(Channel)


def values(message: Message) -> list:
    return [*map(json.loads, message[1:5]), message.buffers]


@given(_channels, _messages)
def test_v1_round_trip(channel, message):
    assert v1.decode(v1.encode(channel, message)) == (channel.name.lower(), message)


@given(_channels, _messages)
def test_v1_is_jupyter_servers(channel, message):
    name = channel.name.lower()
    parts = [*message[1:5], *message.buffers]
    data = v1.encode(channel, message)
    assert data == serialize_msg_to_ws_v1(parts, name)
    assert deserialize_msg_from_ws_v1(data) == (name, parts)


@given(_channels, _messages)
def test_legacy_round_trip(channel, message):
    data = legacy.encode(channel, message)
    assert isinstance(data, str) is not bool(message.buffers)
    name, decoded = legacy.decode(data)
    assert name == channel.name.lower()
    assert values(decoded) == values(message)


@given(_channels, _messages)
def test_legacy_is_jupyter_servers(channel, message):
    header, parent, metadata, content, buffers = values(message)
    plain = {"channel": channel.name.lower(), "header": header, "parent_header": parent, "metadata": metadata,
             "content": content}  # fmt: skip
    if buffers:
        ours = deserialize_binary_message(legacy.encode(channel, message))
        assert ours["buffers"] == list(buffers)
        assert ours["content"] == content
        theirs = serialize_binary_message({**plain, "buffers": list(buffers)})
    else:
        ours = json.loads(legacy.encode(channel, message))
        assert {**ours, "buffers": None} == {**plain, "buffers": None}
        theirs = json.dumps({**plain, "buffers": []})
    assert values(legacy.decode(theirs)[1]) == values(message)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_message_or_a_named_error(data):
    for decode in (v1.decode, legacy.decode):
        try:
            decode(data)
        except MalformedMessageError:
            continue


@given(_messages, st.data())
def test_a_damaged_v1_message_is_a_message_or_a_named_error(message, data):
    whole = bytearray(v1.encode(Channel.SHELL, message))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        v1.decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except MalformedMessageError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        struct.pack("<6Q", 5, 48, 48, 48, 48, 48),
        struct.pack("<7Q", 6, 56, 57, 56, 56, 56, 56),
        struct.pack("<7Q", 6, 56, 56, 56, 56, 56, 57),
        struct.pack("<7Q", 6, 8, 56, 56, 56, 56, 56),
        struct.pack("<Q", 2**63) + b"\x00" * 100,
    ],
    ids=["empty", "no offsets", "too few", "backwards", "beyond the end", "into the table", "huge count"],
)
def test_malformed_v1(data):
    with pytest.raises(MalformedMessageError):
        v1.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "{}",
        '{"header": 1}',
        b"",
        struct.pack(">2I", 1, 4),
        struct.pack(">2I", 2**31, 4),
        struct.pack(">2I", 1, 99),
        '{"header":' * 100_000,
    ],
    ids=["empty", "list", "nothing", "number", "no bytes", "no end", "huge count", "beyond the end", "nested"],
)
def test_malformed_legacy(data):
    with pytest.raises(MalformedMessageError):
        legacy.decode(data)


def test_bytes_that_are_no_utf8_still_make_a_text_frame():
    message = Message((), b'{"msg_id":"1"}', b"{}", b"{}", b'{"text":"\xed\xb2\x80"}')
    assert isinstance(legacy.encode(Channel.SHELL, message), str)
