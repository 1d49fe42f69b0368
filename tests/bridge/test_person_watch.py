"""What counts as a person's doing, and what is said in the first cell of a new kernel."""

from __future__ import annotations

import json

import pytest

from codespace_kernels.bridge.earlier import EarlierOutput
from codespace_kernels.bridge.local_messages import LocalMessages
from codespace_kernels.bridge.person_watch import PersonWatch
from codespace_kernels.messages import Channel, Message

RUN = {"code": "1", "silent": False, "store_history": True}


def request_of(msg_type: str, content: dict) -> Message:
    return LocalMessages().request(msg_type)._replace(content=json.dumps(content).encode())


@pytest.mark.parametrize(
    ("channel", "msg_type", "content", "acts"),
    [
        (Channel.SHELL, "execute_request", RUN, 1),
        (Channel.SHELL, "execute_request", {**RUN, "silent": True}, 0),
        (Channel.SHELL, "comm_msg", {"comm_id": "1", "data": {}}, 1),
        (Channel.STDIN, "input_reply", {"value": "yes"}, 1),
        (Channel.SHELL, "kernel_info_request", {}, 0),
        (Channel.SHELL, "complete_request", {"code": "pri", "cursor_pos": 3}, 0),
        (Channel.CONTROL, "debug_request", {}, 0),
    ],
)
def test_front_ends_ask_for_much_that_no_person_did(channel, msg_type, content, acts):
    acted = []
    request = request_of(msg_type, content)
    assert PersonWatch(lambda: acted.append(1)).handle(channel, request, msg_type) is False
    assert len(acted) == acts


def test_a_run_that_cannot_be_read_is_none_and_is_passed_on():
    request = LocalMessages().request("execute_request")._replace(content=b"[")
    assert PersonWatch(pytest.fail).handle(Channel.SHELL, request, "execute_request") is False


def test_news_are_told_in_the_next_run_and_only_there():
    messages = LocalMessages()
    sent = []
    earlier = EarlierOutput(messages, lambda channel, message: sent.append(message), lambda: False)
    earlier.announce("It was stopped.")
    for _ in range(2):
        earlier.requested(Channel.SHELL, request_of("execute_request", {**RUN, "silent": True}))
        earlier.requested(Channel.SHELL, request_of("execute_request", RUN))
    (told,) = sent
    assert told.content_dict() == {"name": "stderr", "text": "[codespace-kernels] It was stopped.\n"}
