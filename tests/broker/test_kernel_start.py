"""When a kernel is started, and when the one that is there is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codespace_kernels.bridge import KernelBridge
from codespace_kernels.broker.kernel_place import May
from codespace_kernels.broker.kernel_start import KernelStart
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState
from codespace_kernels.target import ON_RUN
from tests.bridge.conftest import KEY, Owner, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from codespace_kernels.messages import Message

INFO = {"status": "ok", "implementation": "test", "language_info": {"name": "python"}}


class Scene(Owner):
    """A kernel that has been started behind the stand-in, and has not answered yet."""

    def __init__(self, bridge: KernelBridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.kernel = MemoryKernel()
        self.begun: list[May] = []
        self.start = KernelStart(
            bridge, self._start_remote, lambda: INFO, wake=ON_RUN, workspace=lambda: "box", failed=lambda error: None
        )

    async def _start_remote(self, may: May) -> None:
        self.begun.append(may)
        self.bridge.attach(self.kernel)

    def run_waits(self) -> None:
        self.start.run_waits()

    def asked(self, msg_type: str) -> list[Message]:
        return [message for _, message in self.kernel.received if message.header_dict()["msg_type"] == msg_type]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    bridge = await KernelBridge.bind(key=KEY)
    scene = Scene(bridge)
    bridge._owner = scene
    scene.start.wait_for_run()
    await scene.start.launch(May.CONNECT)
    yield scene
    await bridge.close()


async def test_a_run_starts_no_other_kernel_than_the_one_that_is_about_to_answer(scene: Scene) -> None:
    async with subscribed(scene.bridge) as client:
        client.execute("6 * 7")
        await until(lambda: scene.bridge.has_waiting_runs)
        assert scene.begun == [May.CONNECT]
        (question,) = scene.asked("kernel_info_request")
        reply = make_message("kernel_info_reply", question.header, question.identities, INFO)
        scene.kernel.emit(Channel.SHELL, reply)
        assert len(scene.asked("execute_request")) == 1


async def test_a_run_after_the_kernel_died_before_its_first_answer_starts_another_one(scene: Scene) -> None:
    async with subscribed(scene.bridge) as client:
        client.execute("1")
        await until(lambda: scene.bridge.has_waiting_runs)
        scene.kernel.change(KernelState.DEAD, "It ended at once.")
        assert (await client.get_shell_msg(timeout=60))["content"]["evalue"] == "It ended at once."
        client.execute("2")
        await until(lambda: scene.begun == [May.CONNECT, May.CREATE])
