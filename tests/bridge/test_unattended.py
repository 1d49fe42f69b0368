"""Kernels that go on without clients: what is kept of their output, and how it is shown."""

from __future__ import annotations

import pytest

from codespace_kernels.bridge import KernelBridge, guessed_kernel_info
from codespace_kernels.bridge.earlier import MAX_JOINED, OutputStore
from codespace_kernels.bridge.notebook_name import notebook_in
from codespace_kernels.messages import Channel, Message
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.conftest import KEY, Owner, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message

INFO = guessed_kernel_info("python", "hello")
RUN = b'{"msg_id": "run-1", "session": "gone", "msg_type": "execute_request"}'
OTHER_RUN = b'{"msg_id": "run-2", "session": "gone", "msg_type": "execute_request"}'


def stream(text: str, parent: bytes = RUN, name: str = "stdout") -> Message:
    return make_message("stream", parent, content={"name": name, "text": text})


def texts(store: OutputStore) -> list[str]:
    return [message.content_dict()["text"] for message in store.take_all()]


class TestOutputStore:
    def test_pieces_of_a_stream_are_joined(self):
        store = OutputStore()
        for message in (stream("a"), stream("b"), stream("c", name="stderr"), stream("d"), stream("e", OTHER_RUN)):
            assert store.put(message)
        assert texts(store) == ["ab", "c", "d", "e"]
        assert (len(store), store.size) == (0, 0)

    def test_joined_text_has_a_bound(self):
        store = OutputStore()
        for _ in range(5):
            store.put(stream("x" * MAX_JOINED))
        assert len(store) > 1
        assert "".join(texts(store)) == "x" * 5 * MAX_JOINED

    def test_the_oldest_goes_first_and_is_counted(self):
        store = OutputStore(max_messages=3)
        for number in range(5):
            store.put(stream(str(number), RUN if number % 2 else OTHER_RUN))
        assert store.dropped == 2
        assert texts(store) == ["2", "3", "4"]

    def test_bytes_have_a_bound_buffers_included(self):
        store = OutputStore(max_bytes=10_000)
        for _ in range(4):
            store.put(make_message("display_data", RUN, content={"data": {}})._replace(buffers=(bytes(4000),)))
        assert (len(store), store.dropped) == (2, 2)

    def test_clear_output_clears_its_own_run_only(self):
        store = OutputStore()
        store.put(stream("old"))
        store.put(stream("other", OTHER_RUN))
        store.put(make_message("clear_output", RUN, content={"wait": True}))
        assert len(store) == 2
        store.put(stream("new"))
        assert texts(store) == ["other", "new"]

    @pytest.mark.parametrize("kind", ["status", "comm_msg", "execute_input"])
    def test_what_is_no_output_is_not_kept(self, kind):
        store = OutputStore()
        assert not store.put(make_message(kind, RUN, content={}))
        assert len(store) == 0


class TestNotebookName:
    @pytest.mark.parametrize(
        ("code", "path"),
        [
            ("__vsc_ipynb_file__ = '/home/me/a b.ipynb'\n%config x", "/home/me/a b.ipynb"),
            ('if "__vsc_ipynb_file__" not in globals():\n    __vsc_ipynb_file__ = "c:\\\\n.ipynb"', "c:\\n.ipynb"),
            ("__vsc_ipynb_file__ = r'c:\\new'", "c:\\new"),
            ("print(__vsc_ipynb_file__)", ""),
            ("__vsc_ipynb_file__ = name", ""),
            ("__vsc_ipynb_file__ = '\\x'", ""),
        ],
    )
    def test_it_is_read_from_the_assignment(self, code, path):
        assert notebook_in(code) == path

    async def test_a_bridge_tells_it(self, bridge, owner):
        async with subscribed(bridge) as client:
            client.execute("__vsc_ipynb_file__ = '/n.ipynb'", silent=True)
            await until(lambda: owner.notebooks == ["/n.ipynb"])


@pytest.fixture
async def left():
    """A kernel in the middle of a run whose bridge is gone."""
    kernel = MemoryKernel()
    bridge = await KernelBridge.bind(key=KEY, owner=Owner())
    bridge.attach(kernel)
    kernel.emit(Channel.IOPUB, make_message("status", RUN, content={"execution_state": "busy"}))
    unattended = bridge.leave()
    await bridge.close()
    assert bridge.leave() is None
    yield unattended
    unattended.close()


async def shown(client, msg_id: str, count: int) -> list[str]:
    """Give the texts that are shown in a cell."""
    found = []
    while len(found) < count:
        message = await client.get_iopub_msg(timeout=20)
        if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
            found.append(message["content"]["text"])
    return found


async def test_a_busy_kernel_answers_what_starts_ask(bridge, left):
    assert left.busy
    bridge.take_back(left, INFO)
    async with subscribed(bridge) as client:
        # Sent as jupyter_client does when it waits for a kernel; this kernel answers nothing.
        client.kernel_info()
        reply = await client.get_shell_msg(timeout=20)
        assert reply["content"]["banner"] == INFO["banner"]
        asked = client.execute("start_up()", silent=True)
        assert (await client.get_shell_msg(timeout=20))["parent_header"]["msg_id"] == asked
        states = []
        while states[-3:] != ["busy", "idle", "busy"]:
            message = await client.get_iopub_msg(timeout=20)
            states += [message["content"]["execution_state"]] if message["msg_type"] == "status" else []
        # The kernel has that one all the same, and its late answer reaches nobody.
        kernel = left.kernel
        await until(lambda: [m for _, m in kernel.received if m.header_dict()["msg_id"] == asked])
        kernel.emit(Channel.IOPUB, make_message("status", RUN, content={"execution_state": "idle"}))
        client.kernel_info()
        await until(lambda: [m for _, m in kernel.received if m.header_dict()["msg_type"] == "kernel_info_request"])


async def test_live_output_goes_to_the_waiting_cell(bridge, left):
    kernel = left.kernel
    kernel.emit(Channel.IOPUB, stream("one\n"))
    assert len(left.output) == 1
    bridge.take_back(left, INFO)
    async with subscribed(bridge) as client:
        # Nobody has run anything yet: it is kept on.
        kernel.emit(Channel.IOPUB, stream("two\n"))
        msg_id = client.execute("mine")
        note, earlier = await shown(client, msg_id, 2)
        assert "An earlier cell still runs" in note
        assert earlier == "one\ntwo\n"
        kernel.emit(Channel.IOPUB, stream("three\n"))
        assert await shown(client, msg_id, 1) == ["three\n"]


async def test_output_of_a_client_that_is_here_is_left_alone(bridge, left):
    bridge.take_back(left, INFO)
    async with subscribed(bridge) as client:
        msg_id = client.execute("mine")
        await shown(client, msg_id, 1)
        request = next(m for _, m in left.kernel.received if m.header_dict()["msg_id"] == msg_id)
        left.kernel.emit(Channel.IOPUB, stream("own\n", request.header))
        assert await shown(client, msg_id, 1) == ["own\n"]


async def test_a_second_leave_keeps_what_was_not_shown(bridge, left):
    left.kernel.emit(Channel.IOPUB, stream("one\n"))
    bridge.take_back(left, INFO)
    again = bridge.leave()
    left.kernel.emit(Channel.IOPUB, stream("two\n"))
    assert again.busy
    assert texts(again.output) == ["one\ntwo\n"]
    again.close()


async def test_a_kernel_that_dies_without_clients_tells_why_later(left):
    left.state_changed(KernelState.RECONNECTING, "")
    assert left.alive
    left.state_changed(KernelState.DEAD, "It was killed.")
    assert (left.alive, left.busy, left.reason) == (False, False, "It was killed.")


async def test_a_kernel_whose_idle_was_lost_without_clients_is_not_busy_for_ever(left):
    left.output_may_be_missing("The process was replaced.")
    assert left.busy
    _, asked = left.kernel.received[-1]
    left.message_received(Channel.SHELL, make_message("kernel_info_reply", asked.header, content={"status": "ok"}))
    await until(lambda: not left.busy)
    assert texts(left.output) == ["[codespace-kernels] Output may be missing: The process was replaced.\n"]


async def test_what_was_asked_before_the_clients_went_is_over_too(bridge):
    kernel = MemoryKernel()
    first = await KernelBridge.bind(key=KEY, owner=Owner())
    first.attach(kernel)
    async with subscribed(first) as client:
        client.execute("first()")
        client.execute("second()")
        await until(lambda: len(kernel.received) == 2)
    kernel.status("busy", kernel.received[0][1])
    unattended = first.leave()
    await first.close()
    unattended.output_may_be_missing("The process was replaced.")
    # The notebook is back before the kernel answers.
    bridge.take_back(unattended, INFO)
    _, asked = kernel.received[2]
    kernel.emit(Channel.SHELL, make_message("kernel_info_reply", asked.header, content={"status": "ok"}))
    await until(lambda: not bridge.busy)
    assert bridge.stats.pending_requests == 0


def question(parent: bytes = RUN) -> Message:
    return make_message("input_request", parent, (b"gone",), {"prompt": "who? ", "password": False})


async def test_a_question_that_nobody_answered_is_asked_again(bridge, owner):
    kernel = MemoryKernel()
    first = await KernelBridge.bind(key=KEY, owner=Owner())
    first.attach(kernel)
    kernel.emit(Channel.IOPUB, make_message("status", RUN, content={"execution_state": "busy"}))
    kernel.emit(Channel.STDIN, question())
    unattended = first.leave()
    await first.close()
    bridge.take_back(unattended, INFO)
    async with subscribed(bridge) as client:
        client.execute("mine", allow_stdin=True)
        assert (await client.get_stdin_msg(timeout=20))["content"]["prompt"] == "who? "


async def test_a_question_whose_run_has_ended_is_not(left):
    left.message_received(Channel.STDIN, question())
    left.message_received(Channel.SHELL, make_message("execute_reply", OTHER_RUN))
    assert left.question is not None
    left.message_received(Channel.SHELL, make_message("execute_reply", RUN))
    assert left.question is None


async def test_what_an_earlier_run_writes_last_is_seen_although_a_reply_overtakes_it(bridge, left):
    bridge.take_back(left, INFO)
    kernel = left.kernel
    async with subscribed(bridge) as client:
        msg_id = client.execute("mine")
        await until(lambda: kernel.received)
        request = kernel.received[-1][1]
        # An interrupt of the earlier run aborts this one; its reply comes by another channel than the error.
        reply = make_message("execute_reply", request.header, request.identities, {"status": "aborted"})
        kernel.emit(Channel.SHELL, reply)
        kernel.emit(Channel.IOPUB, stream("interrupted\n"))
        kernel.status("idle", request)
        assert (await shown(client, msg_id, 2))[1] == "interrupted\n"
        # From here on the cell is finished: what comes now waits for the next one.
        kernel.emit(Channel.IOPUB, stream("later\n"))
        again = client.execute("next")
        assert (await shown(client, again, 1)) == ["later\n"]
