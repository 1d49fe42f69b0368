"""What a client makes of the messages of one request."""

from __future__ import annotations

import time

import pytest

from benchmarks import zmq_client
from benchmarks.zmq_client import Collector

PARENT = b'{"msg_id": "mine"}'


def status(state: str) -> tuple[bytes, bytes, bytes]:
    return b'{"msg_type": "status"}', PARENT, b'{"execution_state": "%s"}' % state.encode()


def test_a_request_is_over_with_its_reply_and_its_idle():
    collector = Collector("mine")
    collector.take_output(*status("busy"), 30)
    collector.take_output(b'{"msg_type": "stream"}', PARENT, b'{"text": "hello"}', 17)
    collector.take_reply(b'{"msg_id": "another"}')
    collector.take_output(b'{"msg_type": "stream"}', b'{"msg_id": "another"}', b'{"text": "no"}', 14)
    assert not collector.is_over
    collector.take_reply(PARENT)
    assert not collector.is_over
    collector.take_output(*status("idle"), 30)
    assert collector.is_over
    result = collector.result()
    assert (result["counts"], result["bytes"], result["text"]) == ({"status": 2, "stream": 1}, 77, "hello")


def test_an_idle_that_does_not_come_is_lost_after_a_silence_that_does_not_count(monkeypatch: pytest.MonkeyPatch):
    collector = Collector("mine")
    collector.take_reply(PARENT)
    assert not collector.idle_is_lost
    heard = time.perf_counter()
    monkeypatch.setattr(zmq_client, "LOST_AFTER", 0.05)
    time.sleep(0.1)
    assert collector.idle_is_lost
    result = collector.result()
    assert result["ms"] <= (heard - collector._began) * 1000
    assert (result["reply"], result["idle"]) == (True, False)


def test_silence_before_the_reply_says_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zmq_client, "LOST_AFTER", 0.0)
    assert not Collector("mine").idle_is_lost
