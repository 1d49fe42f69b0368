"""The files of open requests: what the next broker makes of them."""

from __future__ import annotations

import pytest

from codespace_kernels.broker.open_requests import left_behind, request_log, requests_folder, tidy
from codespace_kernels.messages import Channel, Message

KERNEL, OTHER = "0f0f0f0f-0001", "0f0f0f0f-0002"
REQUEST = Message((b"client",), b'{"msg_id": "one", "msg_type": "execute_request"}', b"{}", b"{}", b"{}")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("CODESPACE_KERNELS_HOME", str(tmp_path))


def asked(kernel_id: str) -> None:
    log = request_log(kernel_id)
    log.asked("one", Channel.SHELL, REQUEST)
    log.leave()


def names() -> list[str]:
    return sorted(path.name for path in requests_folder().iterdir())


def test_what_a_broker_leaves_is_had_by_the_next_and_the_rest_is_tidied_away():
    asked(KERNEL)
    asked(OTHER)
    (requests_folder() / f"{KERNEL}.new").write_text("half")
    tidy({KERNEL})
    assert names() == [f"{KERNEL}.log"]
    log = request_log(KERNEL)
    assert [one.request for one in left_behind(log, KERNEL)] == [REQUEST]
    log.remove()
    assert names() == []


def test_a_file_of_no_use_is_set_aside(caplog):
    path = requests_folder() / f"{KERNEL}.log"
    path.write_text("what somebody else wrote\n")
    log = request_log(KERNEL)
    assert left_behind(log, KERNEL) == []
    assert names() == [f"{KERNEL}.log.set-aside-1"]
    assert "kept as" in caplog.text
    log.asked("one", Channel.SHELL, REQUEST)
    assert names() == [f"{KERNEL}.log", f"{KERNEL}.log.set-aside-1"]
    log.remove()
