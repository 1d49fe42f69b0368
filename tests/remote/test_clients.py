"""What one client is told when: a kernel's messages wait a moment for each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codespace_kernels.link.session import MessageReceived, Session
from codespace_kernels.remote import clients
from codespace_kernels.remote.channels import CONTROL, IOPUB, SHELL, STDIN
from codespace_kernels.remote.spool import Spool

ID = "0123456789abcdef"
KERNEL = 7
HEADERS = {name: json.dumps({"msg_type": name}).encode() for name in ("status", "execute_input", "execute_reply")}


class Clock:
    """Of the reactor, all that a client asks of it."""

    now = 1000.0


class Kernel:
    """Stands for the sockets of a kernel: a test says what comes from them."""

    def __init__(
        self,
        reactor: object,
        context: object,
        info: object,
        deliver: Callable[[int, list[bytes]], None],
        observe: Callable[[bytes, bytes, bytes], None],
        ready: object,
    ) -> None:
        self._deliver = deliver
        self._observe = observe

    def says(self, channel: int, kind: str, content: dict[str, Any], padding: int = 0) -> None:
        parts = [HEADERS[kind], b"{}", b"{}", json.dumps({**content, "padding": "x" * padding}).encode()]
        self._deliver(channel, [b"topic", b"<IDS|MSG>", b"", *parts])
        if channel == IOPUB:
            self._observe(parts[0], parts[1], parts[3])

    def tick(self, now: float) -> None:
        """Nothing is due."""

    def next_deadline(self) -> None:
        """Nothing will be due."""

    def close(self) -> None:
        """There is nothing to close."""


class Stream:
    """Takes everything, each write as a whole."""

    writable = True

    def __init__(self) -> None:
        self.peer = Session(ID)
        self.peer.attach()
        self.writes: list[list[str]] = []

    def write(self, data: bytes) -> None:
        events = self.peer.receive_data(data, Clock.now)
        self.writes.append([kind_of(event) for event in events if isinstance(event, MessageReceived)])

    def close(self) -> None:
        """There is nothing to close."""


def kind_of(message: MessageReceived) -> str:
    return "answer" if message.kernel != KERNEL else str(json.loads(message.parts[3])["msg_type"])


class Served:
    """A client with a kernel, and what it writes."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.client = clients.Client(self.clock, None, ID, lambda record: None, Spool(str(folder)))  # type: ignore[arg-type]
        self.stream = Stream()
        self.client.attach(self.stream)  # type: ignore[arg-type]
        self.client.flush()
        self.client.receive(self.stream.peer.data_to_send(Clock.now))
        self.client.answer({"open": {"number": KERNEL, "kernel_id": "k", "info": {}}, "answer": {"id": 1}}, [])
        kernel: Any = self.client._kernels[KERNEL].channels
        self.kernel: Kernel = kernel
        self.turn()
        self.stream.writes.clear()

    def turn(self, seconds: float = 0.0) -> list[list[str]]:
        """Go on by some time; give what each write brought so far."""
        self.clock.now += seconds
        self.client.tick(self.clock.now)
        self.client.flush()
        return [kinds for kinds in self.stream.writes if kinds]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setattr(clients, "KernelChannels", Kernel)
    return Served(tmp_path)


def test_busy_and_input_travel_together_and_so_do_reply_and_idle(served: Served) -> None:
    served.kernel.says(IOPUB, "status", {"execution_state": "busy"})
    assert served.turn() == []
    served.kernel.says(IOPUB, "execute_input", {"code": "pass"})
    assert served.turn(clients.LINGER / 2) == []
    assert served.turn(clients.LINGER / 2) == [["status", "execute_input"]]
    served.kernel.says(SHELL, "execute_reply", {})
    served.turn()
    served.kernel.says(IOPUB, "status", {"execution_state": "idle"})
    assert served.turn() == [["status", "execute_input"], ["execute_reply", "status"]]


def test_what_waits_is_written_in_time(served: Served) -> None:
    served.kernel.says(IOPUB, "status", {"execution_state": "busy"})
    served.turn()
    deadline = served.client.next_deadline()
    assert deadline is not None
    assert served.turn(deadline - served.clock.now) == [["status"]]


@pytest.mark.parametrize("channel", [CONTROL, STDIN])
def test_what_somebody_waits_for_takes_along_what_waits(served: Served, channel: int) -> None:
    served.kernel.says(IOPUB, "status", {"execution_state": "busy"})
    served.turn()
    served.kernel.says(channel, "execute_reply", {})
    assert served.turn() == [["status", "execute_reply"]]


def test_an_answer_of_the_server_takes_along_what_waits(served: Served) -> None:
    served.kernel.says(IOPUB, "status", {"execution_state": "busy"})
    served.turn()
    served.client.answer({"answer": {"id": 2}}, [])
    (kinds,) = served.turn()
    assert sorted(kinds) == ["answer", "status"]


def test_much_does_not_wait(served: Served) -> None:
    served.kernel.says(IOPUB, "execute_input", {"code": ""}, padding=clients.LINGER_BYTES)
    assert served.turn() == [["execute_input"]]


def test_a_broken_protocol_is_answered_at_once(served: Served) -> None:
    served.kernel.says(IOPUB, "status", {"execution_state": "busy"})
    served.client.receive(b"\xff" * 64)
    assert len(served.stream.writes) == 1
    assert served.client.stream is None
