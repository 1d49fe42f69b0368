"""The sockets of one kernel, against ROUTER and XPUB sockets that are slow in the ways kernels are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from codespace_kernels.messages import Signer
from codespace_kernels.remote import probe
from codespace_kernels.remote.channels import CONTROL, IOPUB, SHELL, KernelChannels
from codespace_kernels.remote.probe import Probe
from codespace_kernels.remote.reactor import Reactor
from tests.ports import free_ports

from .recorder import execute

KEY = b"secret"


class SlowKernel:
    """Binds its sockets when told to, and answers `kernel_info_request` on the channels that it is told."""

    def __init__(self, answers: tuple[int, ...], implementation: str = "other") -> None:
        self.context = zmq.Context()
        self.signer = Signer(KEY)
        self.answers = answers
        self.implementation = implementation
        self.sockets: dict[int, zmq.Socket[bytes]] = {}
        self.executed: list[dict[str, object]] = []
        self.subscribed_at_execute: list[bool] = []
        self.subscribed = False
        names = [f"{name}_port" for name in ("shell", "iopub", "stdin", "control")]
        self.ports = dict(zip(names, free_ports(4), strict=True))

    @property
    def info(self) -> dict[str, object]:
        return {**self.ports, "transport": "tcp", "ip": "127.0.0.1", "key": "secret", "signature_scheme": "hmac-sha256"}

    def bind(self, name: str, channel: int) -> None:
        bound = self.context.socket(zmq.XPUB if channel == IOPUB else zmq.ROUTER)
        bound.linger = 0
        bound.bind(f"tcp://127.0.0.1:{self.ports[f'{name}_port']}")
        self.sockets[channel] = bound

    def work(self) -> None:
        for channel, bound in self.sockets.items():
            while bound.poll(0):
                frames = bound.recv_multipart()
                if channel == IOPUB:
                    self.subscribed = frames[0] == b"\1"
                else:
                    self.answer(channel, bound, frames)

    def answer(self, channel: int, bound: zmq.Socket[bytes], frames: list[bytes]) -> None:
        message = self.signer.unpack(frames)
        if message.header_dict()["msg_type"] == "execute_request":
            self.executed.append(message.content_dict())
            self.subscribed_at_execute.append(self.subscribed)
        elif channel in self.answers:
            reply = message._replace(
                header=json.dumps({"msg_type": "kernel_info_reply"}).encode(),
                parent=message.header,
                content=json.dumps({"implementation": self.implementation}).encode(),
            )
            bound.send_multipart(self.signer.pack(reply))
            if IOPUB in self.sockets:
                status = reply._replace(identities=(b"status",), header=b'{"msg_type": "status"}', content=b"{}")
                self.sockets[IOPUB].send_multipart(self.signer.pack(status))

    def close(self) -> None:
        self.context.destroy(linger=0)


class Rig:
    def __init__(self, kernel: SlowKernel) -> None:
        self.kernel = kernel
        self.reactor = Reactor()
        self.delivered: list[tuple[int, list[bytes]]] = []
        self.channels = KernelChannels(
            self.reactor,
            kernel.info,
            lambda channel, parts: self.delivered.append((channel, parts)),
            lambda header, parent, content: None,
            lambda: None,
        )

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "did not happen"
            self.turn()

    def turn(self) -> None:
        self.reactor.turn(time.monotonic() + 0.005)
        self.kernel.work()

    def execute(self, code: str) -> None:
        self.channels.send(SHELL, Signer(KEY).pack(execute(code)))

    def close(self) -> None:
        self.channels.close()
        self.kernel.close()


@pytest.fixture
def make_rig() -> Iterator[Callable[[SlowKernel], Rig]]:
    made: list[Rig] = []

    def make(kernel: SlowKernel) -> Rig:
        made.append(Rig(kernel))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.mark.parametrize("answers", [(CONTROL, SHELL), (SHELL,), (CONTROL,)])
def test_a_request_waits_for_the_subscription(make_rig: Callable[[SlowKernel], Rig], answers: tuple[int, ...]) -> None:
    kernel = SlowKernel(answers)
    rig = make_rig(kernel)
    rig.execute("first")
    kernel.bind("shell", SHELL)
    kernel.bind("control", CONTROL)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        rig.turn()
    assert kernel.executed == []
    kernel.bind("iopub", IOPUB)
    rig.until(lambda: kernel.executed)
    assert [content["code"] for content in kernel.executed] == ["first"]
    assert kernel.subscribed_at_execute == [True]
    assert rig.delivered == []  # our own questions' answers are nobody's business


def test_a_kernel_that_answers_nothing_gets_its_request_all_the_same(make_rig: Callable[[SlowKernel], Rig]) -> None:
    kernel = SlowKernel(())
    rig = make_rig(kernel)
    for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
        kernel.bind(name, channel)
    rig.execute("first")
    rig.until(lambda: kernel.executed)
    assert kernel.subscribed_at_execute == [True]


def test_an_ipython_kernel_lifts_its_publishers_limit_before_the_first_request(
    make_rig: Callable[[SlowKernel], Rig],
) -> None:
    kernel = SlowKernel((CONTROL,), "ipython")
    rig = make_rig(kernel)
    for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
        kernel.bind(name, channel)
    rig.execute("first")
    rig.until(lambda: len(kernel.executed) == 2)
    assert "sndhwm" in str(kernel.executed[0]["code"])
    assert kernel.executed[0]["silent"] is True
    assert kernel.executed[1]["code"] == "first"


def test_what_was_meant_for_a_dead_process_does_not_reach_the_next(make_rig: Callable[[SlowKernel], Rig]) -> None:
    kernel = SlowKernel((CONTROL,))
    rig = make_rig(kernel)
    rig.execute("held")
    rig.channels.forget()
    rig.execute("dropped")
    for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
        kernel.bind(name, channel)
    rig.channels.hold()
    rig.execute("while it restarts")
    rig.channels.open(kernel.info)
    rig.until(lambda: kernel.executed)
    assert [content["code"] for content in kernel.executed] == ["while it restarts"]


def test_what_waits_for_the_next_process_does_not_go_to_one_that_has_not_answered(
    make_rig: Callable[[SlowKernel], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "LIMIT", 0.05)
    kernel = SlowKernel(())
    rig = make_rig(kernel)
    for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
        kernel.bind(name, channel)
    rig.until(lambda: kernel.subscribed)
    rig.channels.hold()
    rig.execute("for the next")
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        rig.turn()
    assert (kernel.executed, rig.channels.is_ready) == ([], False)


def test_a_kernel_without_handover_hears_the_new_connections(make_rig: Callable[[SlowKernel], Rig]) -> None:
    kernel = SlowKernel((CONTROL,))
    rig = make_rig(kernel)
    for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
        kernel.bind(name, channel)
    for count in range(1, 30):
        rig.execute(str(count))
        rig.until(lambda count=count: len(kernel.executed) == count)  # type: ignore[misc]
        rig.channels.open(kernel.info)


def test_what_a_busy_kernel_answers_to_the_probe_of_a_process_that_is_gone_is_known() -> None:
    info = {"key": "secret", "signature_scheme": "hmac-sha256"}
    earlier, later = Probe(info), Probe(info)
    header = earlier.question()[3]
    assert json.loads(header)["msg_type"] == "kernel_info_request"
    assert later.is_answer_to_us(b'{"msg_type": "status"}', header)
    assert not later.is_answer_to_us(b'{"msg_type": "status"}', b'{"session": "a-client", "msg_id": "1"}')


def make_ready(make_rig: Callable[[SlowKernel], Rig]) -> Rig:
    """Give a rig whose kernel has been given something."""
    rig = make_rig(SlowKernel((CONTROL, SHELL)))
    for name, channel in (("shell", SHELL), ("control", CONTROL), ("iopub", IOPUB)):
        rig.kernel.bind(name, channel)
    rig.execute("first")
    rig.until(lambda: rig.kernel.executed)
    return rig


def test_a_flood_is_read_in_intervals_and_arrives_whole_and_in_order(make_rig: Callable[[SlowKernel], Rig]) -> None:
    rig = make_ready(make_rig)
    published = rig.kernel.sockets[IOPUB]
    published.sndhwm = 0
    for number in range(5000):
        published.send_multipart([b"stream", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"%d" % number])

    def numbers() -> list[int]:
        return [int(parts[-1]) for channel, parts in rig.delivered if channel == IOPUB]

    pauses = 0

    def count_and_look() -> bool:
        nonlocal pauses
        pauses += rig.channels.is_paused
        return len(numbers()) == 5000

    rig.until(count_and_look)
    assert numbers() == list(range(5000))
    assert pauses > 10
    published.send_multipart([b"stream", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"5000"])
    rig.until(lambda: len(numbers()) == 5001)


def test_a_kernel_that_is_replaced_while_it_is_not_read_is_read_again(make_rig: Callable[[SlowKernel], Rig]) -> None:
    rig = make_ready(make_rig)
    published = rig.kernel.sockets[IOPUB]
    for _ in range(500):
        published.send_multipart([b"stream", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"old"])
    rig.until(lambda: rig.channels.is_paused)
    rig.channels.open(rig.kernel.info)
    rig.execute("second")
    rig.until(lambda: len(rig.kernel.executed) == 2)
    rig.delivered.clear()
    published.send_multipart([b"stream", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"new"])
    rig.until(lambda: [parts[-1] for channel, parts in rig.delivered if channel == IOPUB] == [b"new"])
