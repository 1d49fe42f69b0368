"""What a kernel has not answered yet is known to the process after this one, and told or ended by it."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespace_kernels.bridge import KernelBridge, RequestLog
from codespace_kernels.bridge.lost_answers import NOT_KNOWN
from codespace_kernels.bridge.request_log import HEAD, MAX_HEADER, REWRITE_BYTES
from codespace_kernels.messages import Channel, Message
from codespace_kernels.remote_kernel import KernelState
from codespace_kernels.strict_data import UnsoundDataError
from tests.bridge.conftest import KEY, Owner, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECRET = "s3cret-c0de"


def request(number: int, kind: str = "execute_request") -> tuple[str, Message]:
    header = {"msg_id": f"request-{number}", "msg_type": kind, "session": "client", "username": "me"}
    content = json.dumps({"code": SECRET}).encode()
    return header["msg_id"], Message((b"\x00client",), json.dumps(header).encode(), b"{}", b"{}", content)


def known(path: Path) -> dict[str, bool]:
    """What the next process knows: ids, and whether they are answered."""
    copy = path.with_name("copy.log")  # Who goes on with a file puts another one in its place.
    if path.exists():
        copy.write_bytes(path.read_bytes())
    log = RequestLog(copy)
    requests = log.restore()
    log.remove()
    return {one.request.header_dict()["msg_id"]: one.is_answered for one in requests}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kernel.log"


def test_a_request_is_known_until_it_is_answered_and_idle(path: Path) -> None:
    log = RequestLog(path)
    assert known(path) == {}
    ids = []
    for number in range(4):
        msg_id, message = request(number)
        log.asked(msg_id, Channel.CONTROL if number else Channel.SHELL, message)
        ids.append(msg_id)
    log.answered(ids[0], is_busy=True)
    log.answered(ids[1], is_busy=False)
    log.idle(ids[2])  # Its reply is still to come.
    log.answered("of nobody", is_busy=True)
    assert not log.idle("of nobody")
    assert known(path) == {ids[0]: True, ids[2]: False, ids[3]: False}
    log.leave()
    first, second, third = (next_log := RequestLog(path)).restore()
    _, message = request(0)
    assert first == (Channel.SHELL, message._replace(content=b"{}"), True, False)
    assert (second.is_idle, third.is_idle) == (False, True)
    next_log.idle(ids[0])
    next_log.delivered(ids[0])
    next_log.answered(ids[2], is_busy=False)
    assert known(path) == {ids[3]: False}
    next_log.clear()
    assert known(path) == {}
    next_log.remove()
    assert list(path.parent.iterdir()) == []


def test_a_request_is_known_until_clients_have_been_told_of_its_end(path: Path) -> None:
    log = RequestLog(path)
    for number in range(3):
        log.asked(*_asked(number))
    for number in (0, 2, 1):
        log.idle(f"request-{number}")
        if number:
            log.answered(f"request-{number}", is_busy=False)
    log.leave()
    log = RequestLog(path)
    assert [(one.is_answered, one.is_idle) for one in log.restore()] == [(False, True), (True, True), (True, True)]
    # What goes to clients goes in order: the first two have gone, too.
    log.delivered("request-2")
    log.delivered("request-2")
    assert known(path) == {"request-0": False, "request-1": True}
    log.answered("request-0", is_busy=False)
    log.delivered("request-1")
    assert known(path) == {}
    log.remove()


def _asked(number: int) -> tuple[str, Channel, Message]:
    msg_id, message = request(number)
    return msg_id, Channel.SHELL, message


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_the_file_is_private_and_has_no_code(path: Path) -> None:
    log = RequestLog(path)
    msg_id, message = request(1)
    log.asked(msg_id, Channel.SHELL, message)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET not in path.read_text()
    log.remove()


def test_a_torn_end_counts_as_not_written_and_what_is_foreign_is_refused(path: Path) -> None:
    log = RequestLog(path)
    for number in range(2):
        msg_id, message = request(number)
        log.asked(msg_id, Channel.SHELL, message)
    log.leave()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert known(path) == {"request-0": False}
    for foreign in (b"", b"[]\n", b"\x00" * 20 + b"\n", whole.replace(b"1]", b"2]", 1), whole + b'["over", "x"]\n'):
        path.write_bytes(foreign)
        with pytest.raises(UnsoundDataError):
            RequestLog(path).restore()


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b'["asked", 1, "e30="]', b'["over", []]', b"[" * 9000])))
def test_nothing_else_comes_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("any") / "kernel.log"
    path.write_bytes(b"".join(line + b"\n" for line in (json.dumps(HEAD).encode(), *lines)))
    try:
        known(path)
    except UnsoundDataError:
        return
    assert lines == []


def test_the_file_stays_small_and_forgets_nothing(path: Path) -> None:
    log = RequestLog(path)
    log.asked("request-0", Channel.SHELL, request(0)[1])
    for number in range(1, 4000):
        msg_id, message = request(number)
        log.asked(msg_id, Channel.SHELL, message)
        log.answered(msg_id, is_busy=True)
        log.idle(msg_id)
        log.delivered(msg_id)
    assert path.stat().st_size < 2 * REWRITE_BYTES
    assert known(path) == {"request-0": False}
    log.remove()


def test_a_request_with_a_large_header_is_left_out(path: Path) -> None:
    log = RequestLog(path)
    _, message = request(1)
    log.asked("large", Channel.SHELL, message._replace(identities=(bytes(MAX_HEADER),)))
    log.answered("large", is_busy=False)
    assert not path.exists()


def test_a_disk_that_fails_ends_the_log_and_nothing_else(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog(path.parent / "missing" / "kernel.log")
    for number in range(3):
        msg_id, message = request(number)
        log.asked(msg_id, Channel.SHELL, message)
        log.answered(msg_id, is_busy=False)
    assert len(caplog.records) == 1


class Scene:
    """A bridge that was killed in the middle of a request, and the one after it."""

    def __init__(self, kernel: MemoryKernel, bridge: KernelBridge, client, msg_id: str) -> None:
        self.kernel = kernel
        self.bridge = bridge
        self.client = client
        self.msg_id = msg_id

    async def outputs(self, count: int) -> list[dict]:
        found = []
        while len(found) < count:
            message = await self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == self.msg_id:
                found.append(message)
        return found

    def answer_last(self) -> None:
        """Answer what the bridge asked in its own name."""
        _, question = self.kernel.received[-1]
        reply = make_message("kernel_info_reply", question.header, question.identities, {"status": "ok"})
        self.kernel.emit(Channel.SHELL, reply)


@pytest.fixture
async def scene(path: Path) -> AsyncIterator[Scene]:
    """The cell that was asked of the first bridge is open at the second, to which its client comes back."""
    first_kernel, kernel = MemoryKernel(), MemoryKernel()
    log = RequestLog(path)
    first = await KernelBridge.bind(key=KEY, owner=Owner(), requests=log)
    first.attach(first_kernel)
    async with subscribed(first) as client:
        msg_id = client.execute("train()")
        await until(lambda: first_kernel.received)
        log.leave()
        ports = first._sockets.ports
        await first.close()
        bridge = await KernelBridge.bind(key=KEY, owner=Owner(), requests=(new := RequestLog(path)), ports=ports)
        bridge.resume(kernel, new.restore())
        yield Scene(kernel, bridge, client, msg_id)
        await bridge.close()
        new.remove()


async def test_the_cause_of_a_death_is_told_in_the_cell_that_another_process_ran(scene: Scene) -> None:
    scene.kernel.change(KernelState.DEAD, "It was killed.")
    (told,) = await scene.outputs(1)
    assert told["content"]["text"] == "[codespace-kernels] It was killed.\n"
    assert scene.bridge.stats.pending_requests == 0


async def test_a_cell_whose_answer_another_process_lost_is_ended(scene: Scene) -> None:
    scene.kernel.listener.output_may_be_missing("The process was replaced.")
    scene.answer_last()
    told, error, status = await scene.outputs(3)
    assert told["content"]["text"] == "[codespace-kernels] Output may be missing: The process was replaced.\n"
    assert (error["msg_type"], status["content"]) == ("error", {"execution_state": "idle"})
    assert (await scene.client.get_shell_msg(timeout=60))["content"]["evalue"] == NOT_KNOWN


async def test_a_cell_that_was_written_down_and_never_sent_is_ended(scene: Scene) -> None:
    scene.kernel.change(KernelState.ALIVE)
    scene.answer_last()
    error, status = await scene.outputs(2)
    assert (error["msg_type"], status["content"]) == ("error", {"execution_state": "idle"})
    assert not scene.bridge.busy


async def test_a_reply_that_overtakes_what_was_published_does_not_end_a_cell(path: Path) -> None:
    kernel, log = MemoryKernel(), RequestLog(path)
    bridge = await KernelBridge.bind(key=KEY, owner=Owner(), requests=log)
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        msg_id = client.execute("1")
        await until(lambda: kernel.received)
        (_, cell) = kernel.received[0]
        kernel.emit(Channel.SHELL, make_message("execute_reply", cell.header, cell.identities, {"status": "ok"}))
        assert known(path) == {msg_id: True}
        kernel.status("busy", cell)
        kernel.status("idle", cell)
        await until(lambda: known(path) == {})
    await bridge.close()
    log.remove()


@pytest.fixture
async def widget(path: Path) -> AsyncIterator[tuple[Scene, Message]]:
    """The first bridge was killed while the kernel worked on what a widget had sent."""
    first_kernel, kernel, log = MemoryKernel(), MemoryKernel(), RequestLog(path)
    first = await KernelBridge.bind(key=KEY, owner=Owner(), requests=log)
    first.attach(first_kernel)
    message = make_message("comm_msg", b"{}", (b"client",), {"comm_id": "slider", "data": {}})
    msg_id = message.header_dict()["msg_id"]
    async with subscribed(first) as client:
        first_kernel.status("busy", message)
        assert known(path) == {msg_id: True}
        scene = Scene(kernel, first, client, msg_id)
        assert (await scene.outputs(1))[0]["content"] == {"execution_state": "busy"}
        log.leave()
        ports = first._sockets.ports
        await first.close()
        bridge = await KernelBridge.bind(key=KEY, owner=Owner(), requests=(new := RequestLog(path)), ports=ports)
        bridge.resume(kernel, new.restore())
        kernel.change(KernelState.ALIVE)
        assert bridge.busy
        yield Scene(kernel, bridge, client, msg_id), message
        await bridge.close()
        new.remove()


async def test_what_a_widget_sent_and_another_process_lost_is_ended(widget: tuple[Scene, Message], path: Path) -> None:
    scene, _ = widget
    scene.answer_last()
    assert (await scene.outputs(1))[0]["content"] == {"execution_state": "idle"}
    assert not scene.bridge.busy
    await until(lambda: known(path) == {})


async def test_what_a_widget_sent_ends_once(widget: tuple[Scene, Message], path: Path) -> None:
    scene, message = widget
    scene.kernel.status("idle", message)
    scene.answer_last()
    await until(lambda: not scene.bridge._lost_answers._doubtful)
    scene.kernel.status("busy", message)
    states = [one["content"]["execution_state"] for one in await scene.outputs(2)]
    assert states == ["idle", "busy"]


async def test_a_cell_that_goes_on_is_left_alone(scene: Scene, path: Path) -> None:
    scene.kernel.change(KernelState.ALIVE)
    header = json.dumps({"msg_id": scene.msg_id, "msg_type": "execute_request", "session": "x"}).encode()
    cell = Message((scene.client.session.bsession,), header, b"{}", b"{}", b"{}")
    scene.kernel.emit(Channel.SHELL, make_message("execute_reply", cell.header, cell.identities, {"status": "ok"}))
    assert known(path) == {scene.msg_id: True}
    scene.kernel.status("idle", cell)
    scene.answer_last()
    (status,) = await scene.outputs(1)
    assert status["content"] == {"execution_state": "idle"}
    assert known(path) == {}
    assert (await scene.client.get_shell_msg(timeout=60))["content"] == {"status": "ok"}
    await until(lambda: not scene.bridge.busy)
    assert scene.bridge.stats.pending_requests == 0


async def test_a_gap_is_told_in_a_cell_whose_end_was_not_delivered(path: Path) -> None:
    first_kernel, kernel, log = MemoryKernel(), MemoryKernel(), RequestLog(path)
    first = await KernelBridge.bind(key=KEY, owner=Owner(), requests=log)
    first.resume(first_kernel)  # Nothing is delivered until a client is there.
    cell = make_message("execute_request", b"{}", (b"client",), {"code": "big()"})
    first.repeat([(Channel.SHELL, cell)])
    first_kernel.status("busy", cell)
    first_kernel.emit(Channel.SHELL, make_message("execute_reply", cell.header, cell.identities, {"status": "ok"}))
    first_kernel.status("idle", cell)
    assert first.stats.pending_requests == 0
    log.leave()
    await first.close()
    bridge = await KernelBridge.bind(key=KEY, owner=Owner(), requests=(new := RequestLog(path)))
    async with subscribed(bridge) as client:
        bridge.resume(kernel, new.restore())
        scene = Scene(kernel, bridge, client, cell.header_dict()["msg_id"])
        kernel.listener.output_may_be_missing("It was killed.")
        kernel.change(KernelState.ALIVE)
        assert bridge.stats.pending_requests == 0
        scene.answer_last()
        assert not bridge.busy
        # By now it is known what of that cell will come.
        kernel.listener.output_may_be_missing("This is of other cells.")
        kernel.status("idle", cell)
        told, status = await scene.outputs(2)
        assert told["content"]["text"] == "[codespace-kernels] Output may be missing: It was killed.\n"
        assert status["content"] == {"execution_state": "idle"}
        await until(lambda: known(path) == {})
    await bridge.close()
    new.remove()
