from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespace_kernels.bridge.strict_json import _known, strict_message
from codespace_kernels.messages import MalformedMessageError, Message

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["NaN", ": NaN", "-Infinity"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def message(content: bytes) -> Message:
    return Message((b"t",), b"{}", b"{}", b"{}", content, (b"NaN",))


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def without_constants(value):
    if isinstance(value, dict):
        return {key: without_constants(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_constants(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


@given(_values, st.sampled_from([None, 1, "\t"]), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_whatever_python_writes_becomes_json_of_the_same_value(value, indent, separators):
    content = json.dumps({"data": value}, indent=indent, separators=separators).encode()
    strict = strict_message(message(content))
    assert json.loads(strict.content, parse_constant=refuse) == without_constants({"data": value})
    assert strict.buffers == (b"NaN",)


@given(_values, st.text('a\\"N', max_size=4), st.booleans(), st.integers(0, 6))
def test_a_long_document_becomes_json_of_the_same_value(value, text, value_first, marks):
    pad = {text: "x" * 66_000 + text, "more": [text]}
    whole = {"data": value, **pad} if value_first else {**pad, "data": value}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codespace_kernels.bridge.strict_json._MARKS", marks)
        strict = strict_message(message(json.dumps(whole).encode()))
    assert json.loads(strict.content, parse_constant=refuse) == without_constants(whole)


@given(st.binary())
def test_what_needs_no_repair_is_not_touched(data):
    content = json.dumps({"image": data.hex() + "NaN", "text": "a NaN: NaN"}).encode()
    assert strict_message(message(content)).content == content


def test_base64_is_not_decoded():
    one = message(b'{"png":"abNaNcd/NaN+Infinity"}')
    assert strict_message(one) is one


def test_what_python_cannot_read_either_is_refused():
    with pytest.raises(MalformedMessageError):
        strict_message(message(b"{: NaN"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": NaN',
        b'{"a": NaN, ]',
        b"[" * 50_000,
        b"[NaN," * 50_000,
        b"{'a': 1}",
        b'{"a": 1',
        b'{"a": 1}}',
        b"\xff",
        b'{"a": "line\nbreak"}',
    ],
)
def test_what_is_no_json_at_all_is_refused(content):
    with pytest.raises(MalformedMessageError):
        strict_message(message(content))


def test_a_large_document_is_repaired_without_its_values(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("codespace_kernels.bridge.strict_json.MAX_DECODED", 70_000)
    value = {"pad": "x" * 80_000, 'a "NaN': [float("nan"), -float("inf"), "[NaN, \\", 1.5], "b": "Infinity"}
    strict = strict_message(message(json.dumps(value).encode()))
    assert json.loads(strict.content, parse_constant=refuse) == without_constants(value)


def test_an_empty_document_becomes_an_empty_object():
    one = Message((b"t",), b"{}", b"", b"", b'{"a": 1}', ())
    assert strict_message(one)[1:5] == (b"{}", b"{}", b"{}", b'{"a": 1}')


def test_a_large_parent_is_not_kept() -> None:
    parent = b'{"msg_id": "%s"}' % (b"x" * 100_000)
    before = _known.cache_info()
    assert strict_message(message(b"{}")._replace(parent=parent)).parent is parent
    assert _known.cache_info() == before
