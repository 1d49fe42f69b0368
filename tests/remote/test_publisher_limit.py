"""The limit of a kernel's publisher is lifted while subscribers come and go, and the kernel lives."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator

import pytest
import zmq

from codespace_kernels.remote import publisher_limit
from codespace_kernels.remote.probe import PUBLISHER_LIMIT
from codespace_kernels.remote.publisher_limit import (
    AGAIN,
    MOST_LOOKS,
    MOST_TRIES,
    QUIET_LOOKS,
    QUIET_LOOKS_AFTER_LOSS,
    lift,
)
from tests.remote.recorder import Recorder

KERNEL = """
import os, sys, time, zmq
from ipykernel.iostream import IOPubThread
from jupyter_client.session import Session
from codespace_kernels.remote.publisher_limit import lift
socket = zmq.Context().socket(zmq.XPUB)
thread = IOPubThread(socket, session=Session(key=b""))
print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
thread.start()
for line in sys.stdin:
    if line.startswith("end"):
        thread.schedule(lambda: lift(thread, 5000))
        thread.stop()
        thread.close()
        socket.context.term()
        break
    most = int(line)
    lift(thread, most)
    while socket.sndhwm != most:
        time.sleep(0.001)
    print(most, flush=True)
os._exit(0)
"""


class Publisher:
    """What publishes in an IPython kernel, in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", KERNEL]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.address = f"tcp://127.0.0.1:{int(self.read())}"

    def read(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def begin(self, most: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % most)
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        return self.process.returncode


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    assert publisher.end() == 0


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    with zmq.Context() as context:
        yield context


def subscriber(context: zmq.Context, publisher: Publisher) -> zmq.Socket:
    socket = context.socket(zmq.SUB)
    socket.linger = 0
    socket.subscribe(b"")
    with socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
        socket.connect(publisher.address)
        assert monitor.poll(60_000)
        socket.disable_monitor()
    return socket


def test_subscribers_may_go_while_the_limit_is_lifted(publisher: Publisher, context: zmq.Context) -> None:
    """Each goes at another moment of the looks; setting the option at once ends a kernel after 4 to 77 of them."""
    for count in range(30):
        leaving = [subscriber(context, publisher) for _ in range(4)]
        publisher.begin(2000 + count)
        for one in leaving:
            time.sleep(0.0003 * (count % 30))
            one.close()
        assert publisher.read() == b"%d\n" % (2000 + count)


class Pretended:
    """A kernel's thread, its socket, the socket's monitor and the loop in one; the loop runs what it is given at once.

    Args:
        losses: Looks at which a connection has been closed.
        incoming: Looks at which something came, and waits from then on.
    """

    def __init__(self, losses: Container[int] = (), incoming: int = 0) -> None:
        self.looks = 0
        self.flushed = 0
        self.sndhwm = 1000
        self.closed = self.is_monitored = False
        self.socket = self.io_loop = self._xpub_stream = self
        self._losses, self._incoming = losses, incoming
        self._has_lost = False
        self._addresses: set[str] = set()

    def schedule(self, call: Callable[[], object]) -> None:
        call()

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: object) -> None:
        assert not self.is_monitored
        assert seconds == AGAIN
        call(*arguments)

    def add_callback(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)

    def get_monitor_socket(self, events: int, address: str) -> Pretended:
        assert events == zmq.EVENT_DISCONNECTED
        # Else a second one may be refused.
        assert address not in self._addresses
        self._addresses.add(address)
        self.is_monitored = True
        return self

    @property
    def events(self) -> int:
        self.looks += 1
        self._has_lost = self.looks in self._losses
        return zmq.POLLIN if 0 < self._incoming <= self.looks else 0

    def poll(self, _milliseconds: int) -> bool:
        return self._has_lost

    def recv_multipart(self) -> None:
        self._has_lost = False

    def flush(self, events: int) -> None:
        assert events == zmq.POLLIN
        self.flushed += 1

    def disable_monitor(self) -> None:
        self.is_monitored = False

    def close(self, linger: int) -> None:
        assert linger == 0


@pytest.mark.parametrize(
    ("losses", "looks"),
    [
        ((), 1 + QUIET_LOOKS),
        ((4,), 4 + QUIET_LOOKS_AFTER_LOSS),
        ((4, 30), 30 + QUIET_LOOKS_AFTER_LOSS),
        (range(4, 90), MOST_LOOKS + 1 + QUIET_LOOKS),
    ],
)
def test_it_is_lifted_when_no_subscriber_has_gone_for_a_while(losses: Container[int], looks: int) -> None:
    kernel = Pretended(losses)
    lift(kernel, 5000)
    assert (kernel.sndhwm, kernel.looks, kernel.is_monitored) == (5000, looks, False)
    lift(kernel, 5000)
    assert kernel.looks == looks


def test_it_stays_where_subscribers_come_and_go_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_limit, "PAUSE", 0)
    kernel = Pretended(range(MOST_LOOKS * MOST_TRIES + 2))
    lift(kernel, 5000)
    assert (kernel.sndhwm, kernel.looks, kernel.is_monitored) == (1000, MOST_LOOKS * MOST_TRIES, False)


def test_who_waits_for_what_comes_is_woken() -> None:
    kernel = Pretended(incoming=3)
    lift(kernel, 5000)
    assert kernel.flushed == 1


def test_a_kernel_of_another_kind_keeps_its_limit() -> None:
    kernel = Pretended()
    del kernel.sndhwm
    lift(kernel, 5000)
    assert not hasattr(kernel, "sndhwm")


def test_a_kernel_that_ends_meanwhile_ends(publisher: Publisher) -> None:
    """An open monitor would keep its context, and so the kernel, from ending."""
    assert publisher.process.stdin is not None
    publisher.process.stdin.write(b"end 5000\n")
    publisher.process.stdin.close()
    assert publisher.process.wait(timeout=60) == 0


async def test_it_is_lifted_in_a_kernel_and_leaves_no_name(recorder: Recorder) -> None:
    code = (
        "import time\nsocket = get_ipython().kernel.iopub_socket.io_thread.socket\n"
        "while socket.sndhwm == 1000: time.sleep(0.01)\n"
        "print(socket.sndhwm, 'names' in globals(), 'lift' in globals(), In[-1] == In[1])"
    )
    assert recorder.text(await recorder.run(code)) == f"{PUBLISHER_LIMIT} False False True\n"
