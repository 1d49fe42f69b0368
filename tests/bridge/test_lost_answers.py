"""What was asked before a gap is answered, if not by the kernel then by us."""

from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.bridge.activity import Activity
from codespace_kernels.bridge.local_messages import LocalMessages
from codespace_kernels.bridge.lost_answers import NOT_KNOWN, LostAnswers
from codespace_kernels.messages import Channel, Message
from tests.bridge.conftest import subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message


class Scene:
    """A kernel that never answers but when the test does it."""

    def __init__(self) -> None:
        self.sent: list[tuple[Channel, str, dict]] = []
        self.questions: list[Message] = []
        self.kernel = LocalMessages()
        self.receiving = False
        self.activity = Activity(lambda _: None, lambda _: None, lambda: self.receiving)
        self.lost = LostAnswers(self.activity, LocalMessages(), self.send, self.ask, grace=0.05)

    def send(self, channel: Channel, message: Message) -> None:
        self.sent.append((channel, message.header_dict()["msg_type"], message.content_dict()))

    def ask(self) -> str:
        self.questions.append(self.kernel.request("kernel_info_request"))
        return self.questions[-1].header_dict()["msg_id"]

    def request(self, kind: str = "execute_request") -> Message:
        request = self.kernel.request(kind)
        self.activity.requested(request.header_dict()["msg_id"], kind, request.header)
        self.lost.requested(Channel.SHELL, request)
        return request

    def reply(self, request: Message) -> None:
        reply = self.kernel.reply(request, request.header_dict()["msg_type"], {"status": "ok"})
        self.activity.replied(reply)
        self.lost.replied(reply)

    def status(self, state: str, request: Message) -> None:
        status = self.kernel.status(state, request.header)
        self.activity.published(status)
        self.lost.published(status)

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.sent]


ERROR = ["error", "execute_reply"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def asked_again(scene: Scene, times: int) -> None:
    await until(lambda: len(scene.questions) == times)


async def test_a_request_that_was_lost_is_ended_once_the_kernel_answers(scene: Scene) -> None:
    answered, request, completion = scene.request(), scene.request(), scene.request("complete_request")
    scene.status("idle", answered)
    scene.reply(answered)
    scene.lost.output_is_missing()
    await asyncio.sleep(0.2)
    assert scene.sent == []
    scene.reply(scene.questions[0])
    await until(lambda: len(scene.sent) == 5)
    assert scene.kinds() == [*ERROR, "status", "complete_reply", "status"]
    _, _, content = scene.sent[1]
    assert (content["status"], content["evalue"]) == ("error", NOT_KNOWN)
    assert scene.activity.open_requests == []
    scene.reply(request)
    scene.reply(completion)
    assert len(scene.questions) == 1


async def test_what_runs_still_is_waited_for_and_what_stands_behind_it(scene: Scene) -> None:
    running, waiting = scene.request(), scene.request()
    scene.lost.output_is_missing()
    scene.status("busy", running)
    scene.reply(scene.questions[0])
    await asked_again(scene, 2)
    assert scene.sent == []
    scene.status("idle", running)
    scene.status("busy", waiting)
    scene.reply(scene.questions[1])
    await asked_again(scene, 3)
    # Its idle has come already.
    assert scene.kinds() == ERROR
    scene.status("idle", waiting)
    scene.reply(waiting)
    scene.reply(scene.questions[2])
    await asyncio.sleep(0.2)
    assert scene.kinds() == ERROR
    assert len(scene.questions) == 3


async def test_what_was_busy_before_the_gap_and_is_silent_since_is_over(scene: Scene) -> None:
    request = scene.request()
    scene.status("busy", request)
    scene.lost.output_is_missing()
    scene.reply(scene.questions[0])
    await until(lambda: scene.sent)
    assert scene.kinds() == [*ERROR, "status"]
    assert scene.activity.state == "idle"


async def test_a_reply_that_overtook_what_was_published_leaves_the_cell_open(scene: Scene) -> None:
    """The outputs were still to be read of another socket when the process was killed, and nobody else has them."""
    request = scene.request()
    scene.reply(request)
    assert scene.activity.open_requests == [request.header]
    scene.lost.output_is_missing()
    scene.reply(scene.questions[0])
    await until(lambda: scene.sent)
    assert scene.kinds() == ["status"]
    assert scene.activity.open_requests == []


async def test_a_reply_that_overtook_what_was_published_is_followed_by_it(scene: Scene) -> None:
    request = scene.request()
    scene.reply(request)
    scene.status("busy", request)
    assert scene.activity.at_work
    scene.status("idle", request)
    assert scene.activity.open_requests == []
    scene.lost.output_is_missing()
    assert scene.questions == []


async def test_nothing_is_ended_while_a_large_message_comes(scene: Scene) -> None:
    request = scene.request()
    scene.status("busy", request)
    scene.receiving = True
    scene.lost.output_is_missing()
    scene.reply(scene.questions[0])
    await asyncio.sleep(0.3)
    assert scene.sent == []
    scene.status("idle", request)
    scene.receiving = False
    await until(lambda: scene.sent)
    assert scene.kinds() == ERROR


async def test_a_kernel_is_not_busy_for_ever_with_a_message_that_has_no_reply(scene: Scene) -> None:
    message = scene.request("comm_msg")
    scene.status("busy", message)
    assert scene.activity.at_work
    scene.lost.output_is_missing()
    scene.reply(scene.questions[0])
    await until(lambda: scene.sent)
    assert scene.kinds() == ["status"]
    assert scene.activity.state == "idle"
    assert not scene.activity.at_work


async def test_without_a_gap_and_without_a_kernel_nothing_is_ended(scene: Scene) -> None:
    scene.lost.output_is_missing()
    assert scene.questions == []
    scene.request()
    scene.lost.output_is_missing()
    scene.lost.forget()
    scene.reply(scene.questions[0])
    await asyncio.sleep(0.2)
    assert scene.sent == []


async def test_the_cell_of_a_lost_answer_ends(bridge) -> None:
    """Through a bridge: what it asks the kernel in its own name is never seen by clients."""
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        msg_id = client.execute("pay()")
        await until(lambda: kernel.received)
        kernel.listener.output_may_be_missing("the process was replaced")
        (_, question) = kernel.received[1]
        assert question.header_dict()["msg_type"] == "kernel_info_request"
        kernel.status("busy", question)
        reply = make_message("kernel_info_reply", question.header, question.identities, {"status": "ok"})
        kernel.emit(Channel.SHELL, reply)
        kernel.status("idle", question)
        reply = await client.get_shell_msg(timeout=60)
        assert (reply["parent_header"]["msg_id"], reply["content"]["status"]) == (msg_id, "error")
        seen = [await client.get_iopub_msg(timeout=60) for _ in range(3)]
        assert [message["msg_type"] for message in seen] == ["stream", "error", "status"]
        assert {message["parent_header"]["msg_id"] for message in seen} == {msg_id}
    assert bridge.stats.pending_requests == 0
