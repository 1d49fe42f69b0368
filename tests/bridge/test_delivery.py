"""A question of the kernel reaches a client whose stdin channel connects after its request was taken."""

from __future__ import annotations

import contextlib

import pytest
import zmq
from jupyter_client.session import Session

from codespace_kernels.bridge import router
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.conftest import KEY, connect, subscribed, until
from tests.bridge.local_kernel import LocalKernel
from tests.bridge.memory_kernel import MemoryKernel, make_message

CLIENT = b"comes late"


def question(text: str, client: bytes = CLIENT):
    return make_message("input_request", b"{}", (client,), {"prompt": text, "password": False})


class Stdin:
    """The stdin channel of a client."""

    def __init__(self, bridge, identity: bytes = CLIENT) -> None:
        self._session = Session(key=KEY)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.identity = identity
        self._socket.connect(f"tcp://127.0.0.1:{bridge.connection_info['stdin_port']}")

    async def prompts(self, count: int) -> list[str]:
        """Wait for some questions and give their texts."""
        texts = []
        for _ in range(count):
            await until(lambda: self._socket.poll(0))
            _, message = self._session.recv(self._socket, mode=zmq.NOBLOCK)
            texts.append(message["content"]["prompt"])
        return texts

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@contextlib.asynccontextmanager
async def stdin_of(bridge, identity: bytes = CLIENT):
    stdin = Stdin(bridge, identity)
    try:
        yield stdin
    finally:
        stdin.close()


async def test_questions_for_a_client_that_connects_late_come_in_order(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    for number in range(20):
        kernel.emit(Channel.STDIN, question(str(number)))
    async with stdin_of(bridge) as stdin:
        assert await stdin.prompts(20) == [str(number) for number in range(20)]
        kernel.emit(Channel.STDIN, question("at once"))
        assert await stdin.prompts(1) == ["at once"]


async def test_another_client_does_not_wait_for_the_late_one(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with stdin_of(bridge, b"prompt") as there:
        kernel.emit(Channel.STDIN, question("late"))
        kernel.emit(Channel.STDIN, question("now", b"prompt"))
        assert await there.prompts(1) == ["now"]
        async with stdin_of(bridge) as late:
            assert await late.prompts(1) == ["late"]


async def test_input_of_a_client_whose_stdin_connects_after_the_question(bridge):
    """With ipykernel itself the question would be lost, and the cell would wait for good."""
    kernel = LocalKernel()
    await kernel.start()
    try:
        bridge.attach(kernel)
        client = connect(bridge)
        client.start_channels(stdin=False, hb=False)
        client.execute("print(input('name: '))", allow_stdin=True)
        await until(lambda: bridge.stats.to_clients["stdin"] == 1)
        client.start_channels(shell=False, iopub=False, control=False, hb=False)
        assert (await client.get_stdin_msg(timeout=20))["content"]["prompt"] == "name: "
        client.input("Mona")
        assert (await client.get_shell_msg(timeout=20))["content"]["status"] == "ok"
        client.stop_channels()
    finally:
        await kernel.shutdown()
        await kernel.close()


FORGOTTEN = {
    "detached": lambda bridge, kernel: bridge.detach(),
    "died": lambda bridge, kernel: kernel.change(KernelState.DEAD),
    "restarts": lambda bridge, kernel: kernel.change(KernelState.RESTARTING),
}


@pytest.mark.parametrize("event", FORGOTTEN)
async def test_questions_of_a_kernel_that_is_gone_are_not_asked(bridge, event):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    kernel.emit(Channel.STDIN, question("old"))
    FORGOTTEN[event](bridge, kernel)
    kernel = MemoryKernel()
    bridge.attach(kernel)
    kernel.emit(Channel.STDIN, question("new"))
    async with stdin_of(bridge) as stdin:
        assert await stdin.prompts(1) == ["new"]


async def test_a_question_of_an_interrupted_cell_is_not_asked(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    kernel.emit(Channel.STDIN, question("old"))
    await bridge.interrupt()
    kernel.emit(Channel.STDIN, question("new"))
    async with stdin_of(bridge) as stdin:
        assert await stdin.prompts(1) == ["new"]


async def test_a_client_that_never_comes_is_given_up(bridge, monkeypatch, caplog):
    monkeypatch.setattr(router, "PATIENCE", 0.1)
    kernel = MemoryKernel()
    bridge.attach(kernel)
    kernel.emit(Channel.STDIN, question("nobody"))
    await until(lambda: "its stdin channel did not connect" in caplog.text)
    async with subscribed(bridge) as client:
        kernel.emit(Channel.STDIN, question("somebody", client.session.bsession))
        assert (await client.get_stdin_msg(timeout=10))["content"]["prompt"] == "somebody"
