"""What a broker leaves on disk: whole and private, or set aside; nothing is half trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.broker.state import (
    SavedKernel,
    SavedRemote,
    SavedRequest,
    SavedState,
    SavedWorkspace,
    from_text,
    load,
    to_text,
    without_tokens,
)
from codespace_kernels.clones import ClonePlace
from codespace_kernels.messages import Channel, Message
from codespace_kernels.recipe import Recipe
from codespace_kernels.ssh.files import replace_file
from codespace_kernels.strict_data import UnsoundDataError
from codespace_kernels.target import Account, Target

ACCOUNT = Account(login="octocat")
PORTS = {"shell_port": 5001, "iopub_port": 5002, "stdin_port": 5003, "control_port": 5004, "hb_port": 5005}
REQUEST = KernelRequest(
    Target(ACCOUNT, "", "python3", recipe=Recipe("octocat/ml", idle_timeout_minutes=30)),
    Access(ACCOUNT, {"GH_TOKEN": "gho_canary", "GITHUB_ENTERPRISE_TOKEN": "canary", "HOME": "/home/ada"}),
    key="signs",
    place=ClonePlace(("github.com/octocat/ml",), "notebooks"),
)
WAITING = SavedRequest.of(Channel.SHELL, Message((b"\x00id",), b"{}", b"{}", b"{}", b'{"code": "1"}', (b"\xff",)))
KERNEL = SavedKernel(
    "0b5e4a7e-0000-4000-8000-000000000001",
    without_tokens(REQUEST, PORTS),
    "hello",
    "/home/ada/a.ipynb",
    kept=False,
    dead=False,
    since=0.0,
    remote=SavedRemote("there", 3, "its-key", "hmac-sha256"),
    waiting=(WAITING,),
)
STATE = SavedState((SavedWorkspace(ACCOUNT, "hello", "github.com/octocat/ml", "0123456789abcdef"),), (KERNEL,))


def test_comes_back_as_it_was():
    assert from_text(to_text(STATE)) == STATE
    assert WAITING.read()[1].buffers == (b"\xff",)


def test_has_no_token():
    assert "canary" not in to_text(STATE)
    assert STATE.kernels[0].request.access.environment == {"HOME": "/home/ada"}


def test_is_private(tmp_path):
    replace_file(tmp_path / "state", to_text(STATE).encode())
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o600
    assert load(tmp_path / "state") == (STATE, "")


def test_none_is_nothing(tmp_path):
    assert load(tmp_path / "state") == (SavedState(), "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "of version 2"),
        ({"product": "other"}, "not of this program"),
        ({"kernels": [{}]}, "SavedKernel"),
        ({"more": 1}, "'more'"),
    ],
)
def test_what_cannot_be_used_is_kept_aside(tmp_path, change, text):
    path = tmp_path / "state"
    content = json.dumps({**json.loads(to_text(STATE)), **change})
    for number in range(1, 8):
        path.write_text(content)
        state, notice = load(path)
        assert state == SavedState()
        assert text in notice
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == min(number, 5)
    assert (tmp_path / "state.set-aside-1").read_text() == content


def test_two_kernels_do_not_share_a_number():
    twice = dataclasses.replace(STATE, kernels=(KERNEL, dataclasses.replace(KERNEL, id="0b5e4a7e-2")))
    with pytest.raises(UnsoundDataError, match="twice"):
        from_text(to_text(twice))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def check(text: str | bytes) -> None:
    """The text is refused whole, or every entry is of the form that it has to have."""
    with contextlib.suppress(UnsoundDataError):
        state = from_text(text)
        assert from_text(to_text(state)) == state
        for kernel in state.kernels:
            assert all(0 < port < 65536 for port in kernel.request.ports.values())
            assert kernel.remote is None or isinstance(kernel.remote.number, int)
            assert all(isinstance(request.read()[1], Message) for request in kernel.waiting)


@given(st.binary() | json_values.map(json.dumps))
def test_anything_is_refused(text):
    with pytest.raises(UnsoundDataError):
        from_text(text)


@given(st.integers(0, len(to_text(STATE)) - 1))
def test_a_torn_one_is_refused(length):
    with pytest.raises(UnsoundDataError):
        from_text(to_text(STATE)[:length])


@given(st.data())
@settings(max_examples=200)
def test_a_changed_one_is_refused_or_sound(data):
    content = json.loads(to_text(STATE))
    place = content
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
    check(json.dumps(content))


@given(st.integers(0, len(to_text(STATE)) - 1), st.binary(min_size=1, max_size=3))
def test_a_file_with_other_bytes_is_refused_or_sound(at, new):
    text = to_text(STATE).encode()
    check(text[:at] + new + text[at + len(new) :])
