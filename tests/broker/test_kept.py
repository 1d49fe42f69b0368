"""What a kept kernel is to its workspace, and what is left of it when that is stopped."""

from __future__ import annotations

import pytest

from codespace_kernels.bridge import UnattendedKernel
from codespace_kernels.bridge.activity import Activity
from codespace_kernels.bridge.earlier import OutputStore
from codespace_kernels.broker.awake import Presence
from codespace_kernels.broker.care import Care
from codespace_kernels.broker.kept import KeptKernel
from codespace_kernels.broker.ledger import Ledger
from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.broker.workspaces import WorkspaceSession
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState
from codespace_kernels.target import Account, Target
from tests.bridge.memory_kernel import MemoryKernel, make_message

RUN = b'{"msg_id": "run-1", "session": "gone", "msg_type": "execute_request"}'


class Process(MemoryKernel):
    ended = 0

    async def shutdown(self) -> None:
        self.ended += 1
        if self.listener is not None:
            self.change(KernelState.DEAD, "The kernel was shut down.")


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def kept(tmp_path, process) -> KeptKernel:
    meter = UsageMeter(Ledger(tmp_path / "usage.json"), "hello")
    session = WorkspaceSession(Account(), "hello", meter, care=Care("hello", meter), lost=lambda reason: None)
    target = Target(Account(), "hello", "python3", on_close="keep", stop_when_idle=30)
    unattended = UnattendedKernel(process, Activity(lambda _: None, lambda _: None), OutputStore(), None)
    process.listen(unattended)
    return KeptKernel("1", KernelRequest(target, Access(target.account)), session, "a.ipynb", unattended)


def publish(process: Process, state: str) -> None:
    process.emit(Channel.IOPUB, make_message("status", RUN, content={"execution_state": state}))


def test_what_is_not_known_of_it_is_not_idle(kept, process):
    assert kept.presence is Presence.UNKNOWN
    publish(process, "busy")
    assert kept.presence is Presence.BUSY
    publish(process, "idle")
    assert kept.presence is Presence.IDLE
    process.change(KernelState.RECONNECTING)
    assert kept.presence is Presence.UNKNOWN
    process.change(KernelState.ALIVE)
    assert kept.presence is Presence.IDLE
    process.change(KernelState.DEAD, "It died.")
    assert kept.presence is Presence.ABSENT


async def test_a_stop_ends_it_and_leaves_what_it_wrote_and_why(kept, process):
    process.emit(Channel.IOPUB, make_message("stream", RUN, content={"name": "stdout", "text": "epoch 90\n"}))
    await kept.suspend("Codespace hello was stopped.")
    assert process.ended == 1
    assert kept.presence is Presence.ABSENT
    told = kept.to_json()
    assert (told["state"], told["reason"], told["unseen_outputs"]) == ("dead", "Codespace hello was stopped.", 1)
    await kept.end()
    assert process.ended == 1
