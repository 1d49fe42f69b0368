"""The bridge in the place of a kernel that is not there yet, as a client of it sees it."""

from __future__ import annotations

import asyncio
import json

import pytest

from codespace_kernels.bridge import KernelBridge, WaitingState, guessed_kernel_info
from codespace_kernels.errors import WorkspaceStoppedError
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState
from tests.bridge.conftest import KEY, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message

INFO = guessed_kernel_info("python", "hello")


async def ask(client, msg_id: str) -> tuple[dict, list[str]]:
    """Give the reply's content, and what was published for the request, in short."""
    published = []
    while published[-1:] != ["idle"]:
        message = await client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == msg_id:
            published.append(message["content"].get("execution_state", message["msg_type"]))
    return await reply_to(client, msg_id), published


async def reply_to(client, msg_id: str) -> dict:
    message = await client.get_shell_msg(timeout=60)
    assert message["parent_header"]["msg_id"] == msg_id
    return message["content"]


def text_of(display: dict) -> str:
    """Give what a display shows, which is HTML and nothing else."""
    ((kind, text),) = display["content"]["data"].items()
    assert kind == "text/html"
    return text


def run(client, code: str, **content) -> str:
    """Send an execute_request with exactly these fields besides the code."""
    message = client.session.msg("execute_request", {"code": code, **content})
    client.shell_channel.send(message)
    return message["header"]["msg_id"]


def obedient(kernel: MemoryKernel, channel: Channel, request) -> None:
    """Answer every request; print the code of executions."""
    kind = request.header_dict()["msg_type"]
    kernel.status("busy", request)
    if kind == "execute_request":
        content = {"name": "stdout", "text": request.content_dict()["code"]}
        kernel.emit(Channel.IOPUB, make_message("stream", request.header, content=content))
    if kind.endswith("_request"):
        reply = make_message(
            kind.removesuffix("request") + "reply", request.header, request.identities, {"status": "ok"}
        )
        kernel.emit(channel, reply)
    kernel.status("idle", request)


def codes(kernel: MemoryKernel) -> list[str]:
    return [m.content_dict()["code"] for _, m in kernel.received if m.header_dict()["msg_type"] == "execute_request"]


REQUESTS = [
    (lambda c: c.kernel_info(), {"language_info": INFO["language_info"], "protocol_version": "5.4"}),
    (lambda c: c.complete("impo", 4), {"matches": [], "cursor_start": 4, "cursor_end": 4}),
    (lambda c: c.inspect("print"), {"found": False, "data": {}}),
    (lambda c: c.is_complete("for"), {"status": "unknown"}),
    (lambda c: c.history(), {"history": []}),
    (lambda c: c.comm_info(), {"comms": {}}),
    (lambda c: c.execute("1", silent=True), {"status": "ok", "user_expressions": {}}),
]


@pytest.mark.parametrize(("request_of", "expected"), REQUESTS)
@pytest.mark.parametrize("waited", [False, True])
async def test_what_needs_no_kernel_is_answered_as_a_kernel_does(bridge, owner, request_of, expected, waited):
    async with subscribed(bridge) as client:
        if not waited:
            bridge.stand_in(INFO)
        msg_id = request_of(client)
        if waited:
            await until(lambda: bridge.stats.queued_requests == 1)
            bridge.stand_in(INFO)
        content, published = await ask(client, msg_id)
        assert content.items() >= expected.items()
        assert published == ["busy", "idle"]
    assert owner.runs_waiting == 0
    assert bridge.stats.pending_requests == 0


async def test_200_kernel_infos_are_answered(bridge):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        asked = [client.kernel_info() for _ in range(200)]
        for msg_id in asked:
            assert (await reply_to(client, msg_id))["status"] == "ok"


BACKGROUND = [{"silent": True}, {"silent": False, "store_history": False, "stop_on_error": False}]
RUNS = [{}, {"silent": False, "store_history": False}, {"store_history": True, "stop_on_error": False}]


@pytest.mark.parametrize("content", BACKGROUND)
async def test_start_up_code_is_answered_kept_and_run_first_but_not_answered_twice(bridge, owner, content):
    bridge.stand_in(INFO)
    kernel = MemoryKernel(obedient)
    async with subscribed(bridge) as client:
        for code in ("one", "two"):
            reply, published = await ask(client, run(client, code, allow_stdin=True, **content))
            assert (reply["status"], published) == ("ok", ["busy", "idle"])
        client.shell_channel.send(client.session.msg("comm_open", {"comm_id": "c", "data": {}}))
        last = run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        assert bridge.stats.queued_requests == 4
        bridge.attach(kernel)
        kinds = [m.header_dict()["msg_type"] for _, m in kernel.received]
        assert kinds == ["kernel_info_request", "execute_request", "execute_request", "comm_open", "execute_request"]
        assert codes(kernel) == ["one", "two", "cell"]
        # Nobody is there to answer its questions, and its failure must not take the cell along.
        kept = kernel.received[1][1].content_dict()
        assert (kept["allow_stdin"], kept["stop_on_error"]) == (False, False)
        seen = []
        while seen[-1:] != [(last, "idle")]:
            message = await client.get_iopub_msg(timeout=60)
            shown = message["content"].get("execution_state", message["msg_type"])
            seen.append((message["parent_header"].get("msg_id"), shown))
        statuses = [msg_id for msg_id, shown in seen if shown in ("busy", "idle")]
        # Once from the stand-in; then from the kernel, which said it of the comm, too.
        assert statuses.count(last) == 3
        assert len(set(statuses)) == 2
        assert (await reply_to(client, last))["status"] == "ok"
        assert not await client.shell_channel.msg_ready()
        # From now on, all is as without a stand-in.
        assert (await ask(client, run(client, "more", **content)))[1] == ["busy", "stream", "idle"]


@pytest.mark.parametrize("content", RUNS)
async def test_a_run_waits_and_is_told_of(bridge, owner, content):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        run(client, "cell", **content)
        await until(lambda: owner.runs_waiting == 1)
        assert bridge.has_waiting_runs
        kernel = MemoryKernel(obedient)
        bridge.attach(kernel)
        assert codes(kernel) == ["cell"]
        assert not bridge.has_waiting_runs


async def test_a_run_that_waited_before_the_stand_in_came(bridge, owner):
    async with subscribed(bridge) as client:
        client.kernel_info()
        run(client, "cell")
        run(client, "silent", silent=True)
        await until(lambda: bridge.stats.queued_requests == 3)
        assert owner.runs_waiting == 0
        bridge.stand_in(INFO)
        assert owner.runs_waiting == 1
        assert bridge.stats.queued_requests == 2
        kernel = MemoryKernel(obedient)
        bridge.attach(kernel)
        assert codes(kernel) == ["cell", "silent"]


async def test_the_line_is_replaced_and_gone_before_the_first_output(bridge, owner):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        first, second = run(client, "cell"), run(client, "next")
        await until(lambda: owner.runs_waiting == 2)
        for text in ("Starting <Queued>", "Starting <Queued>", "Connecting"):
            bridge.tell_waiting(WaitingState(text))
        bridge.attach(MemoryKernel(obedient))
        messages = []
        while len([m for m in messages if m["content"].get("execution_state") == "idle"]) < 2:
            messages.append(await client.get_iopub_msg(timeout=60))
        line = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data", "clear_output")]
        assert {m["parent_header"]["msg_id"] for m in line} == {first}
        assert [m["msg_type"] for m in line] == ["display_data", "update_display_data", "clear_output"]
        assert [text_of(m) for m in line[:2]] == [
            "<div>Starting &lt;Queued&gt; · 0 s</div>",
            "<div>Connecting · 0 s</div>",
        ]
        assert len({m["content"]["transient"]["display_id"] for m in line[:2]}) == 1
        # At once: a cell that prints nothing must not keep it.
        assert line[2]["content"] == {"wait": False}
        kinds = [m["msg_type"] for m in messages]
        assert kinds.index("clear_output") < kinds.index("stream")
        assert messages[-1]["parent_header"]["msg_id"] == second


async def test_the_line_counts_seconds(bridge, owner):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        bridge.tell_waiting(WaitingState("Starting", "□□", "next: connecting"))
        texts = []
        while len(texts) < 2:
            message = await client.get_iopub_msg(timeout=60)
            if "data" in message["content"]:
                texts.append(text_of(message))
        assert texts == [f"<div>□□ Starting · {seconds} s · next: connecting</div>" for seconds in (0, 1)]


@pytest.mark.parametrize("comes", [True, False])
async def test_a_terminal_gets_a_line_at_the_start_and_one_at_the_end(owner, comes):
    bridge = await KernelBridge.bind(key=KEY, owner=owner, in_terminal=True)
    try:
        bridge.stand_in(INFO)
        async with subscribed(bridge) as client:
            msg_id = run(client, "cell")
            await until(lambda: owner.runs_waiting == 1)
            for doing, outlook in (("Waiting", ""), ("Starting", "step 1/5"), ("Connecting", "step 2/5")):
                bridge.tell_waiting(WaitingState(doing, "□□", outlook))
            if comes:
                bridge.attach(MemoryKernel(obedient))
            else:
                await bridge.interrupt()
            published = []
            while len(published) < 2 or published[-1]["content"].get("execution_state") != "idle":
                message = await client.get_iopub_msg(timeout=10)
                if message["parent_header"].get("msg_id") == msg_id and message["content"] != {
                    "execution_state": "busy"
                }:
                    published.append(message)
    finally:
        await bridge.close()
    texts = [message["content"].get("text", message["msg_type"]) for message in published]
    first = "[codespace-kernels] Starting …\n"
    came = ["[codespace-kernels] The kernel is there after 0 s.\n", "cell"]
    assert texts == [first, *(came if comes else ["error"]), "status"]
    assert {m["content"]["name"] for m in published if m["content"].get("text") in (first, came[0])} == {"stderr"}


@pytest.mark.parametrize("stop_on_error", [True, False])
async def test_interrupt_ends_the_wait(bridge, owner, stop_on_error):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        kept = run(client, "import this", silent=True)
        assert (await reply_to(client, kept))["status"] == "ok"
        cells = [run(client, str(number), stop_on_error=stop_on_error) for number in range(3)]
        await until(lambda: owner.runs_waiting == 3)
        bridge.tell_waiting(WaitingState("Starting"))
        client.session.send(client.control_channel.socket, client.session.msg("interrupt_request", {}))
        assert (await client.get_control_msg(timeout=60))["content"] == {"status": "ok"}
        replies = [await reply_to(client, msg_id) for msg_id in cells]
        assert [reply["status"] for reply in replies] == ["error", "aborted", "aborted"]
        assert replies[0]["ename"] == "KeyboardInterrupt"
        published = []
        while published[-1:] != [(cells[2], "idle")]:
            message = await client.get_iopub_msg(timeout=60)
            shown = message["content"].get("execution_state", message["msg_type"])
            published.append((message["parent_header"].get("msg_id"), shown))
        of_first = [shown for msg_id, shown in published if msg_id == cells[0]]
        assert of_first == ["busy", "display_data", "clear_output", "busy", "error", "idle"]
        assert (owner.interrupted, bridge.has_waiting_runs) == (1, False)
        # The start-up code still waits for the kernel.
        assert bridge.stats.queued_requests == 1
        assert bridge.stats.pending_requests == 0


async def test_interrupt_of_nothing_is_answered_as_an_idle_kernel_does(bridge, owner):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        client.session.send(client.control_channel.socket, client.session.msg("interrupt_request", {}))
        assert (await client.get_control_msg(timeout=60))["content"] == {"status": "ok"}
    assert owner.interrupted == 0


@pytest.mark.parametrize(("stop_on_error", "statuses"), [(True, ["error", "aborted"]), (False, ["error", "error"])])
async def test_a_failure_is_told_in_the_cell_and_the_next_run_waits_again(bridge, owner, stop_on_error, statuses):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        cells = [run(client, str(number), stop_on_error=stop_on_error) for number in range(2)]
        await until(lambda: owner.runs_waiting == 2)
        assert bridge.fail_waiting(WorkspaceStoppedError("It is stopped. Start it."))
        assert not bridge.fail_waiting(WorkspaceStoppedError("It is stopped. Start it."))
        replies = [await reply_to(client, msg_id) for msg_id in cells]
        assert [reply["status"] for reply in replies] == statuses
        assert (replies[0]["ename"], replies[0]["evalue"]) == ("WorkspaceStoppedError", "It is stopped. Start it.")
        while (message := await client.get_iopub_msg(timeout=60))["msg_type"] != "error":
            pass
        assert message["content"]["traceback"] == ["WorkspaceStoppedError: It is stopped. Start it."]
        run(client, "again")
        await until(lambda: owner.runs_waiting == 3)


async def test_what_waits_is_dropped_for_a_restart(bridge, owner):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        run(client, "silent", silent=True)
        run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        bridge.forget_waiting()
        kernel = MemoryKernel(obedient)
        bridge.attach(kernel)
        assert kernel.received == []
        assert bridge.stats.pending_requests == 0


async def test_a_cell_is_given_to_a_kernel_that_is_up(bridge, owner):
    """What a kernel says while it comes up is no output of the first cell."""
    kernel = MemoryKernel()
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        cell = run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        bridge.tell_waiting(WaitingState("Starting"))
        bridge.attach(kernel)
        ((channel, request),) = kernel.received
        assert (channel, request.header_dict()["msg_type"]) == (Channel.SHELL, "kernel_info_request")
        kernel.emit(Channel.IOPUB, make_message("stream", content={"name": "stderr", "text": "Warning"}))
        assert (await ask(client, client.kernel_info()))[0]["status"] == "ok"
        obedient(kernel, *kernel.received[0])
        assert codes(kernel) == ["cell"]
        obedient(kernel, *kernel.received[1])
        of_cell = []
        while of_cell[-1:] != ["idle"]:
            message = await client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == cell:
                of_cell.append(message["content"].get("execution_state", message["msg_type"]))
        assert of_cell == ["clear_output", "busy", "stream", "idle"]


async def test_a_kernel_that_dies_before_it_answers_is_told_in_the_cell(bridge, owner):
    kernel = MemoryKernel()
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        cell = run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        bridge.attach(kernel)
        kernel.change(KernelState.DEAD, "It ended with exit code 1.")
        reply = await reply_to(client, cell)
        assert (reply["ename"], reply["evalue"]) == ("KernelStartError", "It ended with exit code 1.")


async def test_background_code_cannot_fill_the_queue(bridge, owner, caplog):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        for number in range(1100):
            run(client, str(number), silent=True)
            if number % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: bridge.stats.to_clients["shell"] == 1100)
        run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        kernel = MemoryKernel(obedient)
        bridge.attach(kernel)
        assert codes(kernel) == [*map(str, range(1000)), "cell"]
        assert caplog.text.count("newer ones are lost") == 1


@pytest.mark.parametrize("stood_in", [True, False])
async def test_what_the_kernel_says_of_itself_is_learnt(bridge, owner, stood_in):
    """From a client's request; where the stand-in answered that one, from a request of the bridge's own."""

    def answer(kernel: MemoryKernel, channel: Channel, request) -> None:
        kernel.status("busy", request)
        content = {"status": "ok", "language_info": {"name": "python", "version": "3.12.1"}}
        kernel.emit(channel, make_message("kernel_info_reply", request.header, request.identities, content))
        kernel.status("idle", request)

    kernel = MemoryKernel(answer)
    async with subscribed(bridge) as client:
        if stood_in:
            bridge.stand_in(INFO)
            await reply_to(client, client.kernel_info())
        bridge.attach(kernel)
        if not stood_in:
            await reply_to(client, client.kernel_info())
        assert [info["language_info"]["version"] for info in owner.kernel_infos] == ["3.12.1"]
        assert len(kernel.received) == 1
        assert not await client.shell_channel.msg_ready()
        assert bridge.stats.pending_requests == 0


async def test_input_is_not_asked_for_by_the_stand_in(bridge):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        client.input("nobody asked")
        await until(lambda: bridge.stats.queued_requests == 1)


@pytest.mark.parametrize("content", [b"not json", b"[]"])
async def test_a_request_whose_content_is_no_object_ends_nothing(bridge, content):
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        documents = [
            json.dumps(client.session.msg_header("execute_request"), default=str).encode(),
            b"{}",
            b"{}",
            content,
        ]
        client.shell_channel.socket.send_multipart([b"<IDS|MSG>", client.session.sign(documents), *documents])
        await until(lambda: bridge.stats.queued_requests == 1)
        assert (await reply_to(client, client.kernel_info()))["status"] == "ok"


async def test_the_cause_of_a_death_is_told_in_the_cell_that_runs(bridge):
    kernel = MemoryKernel()
    bridge.attach(kernel)
    async with subscribed(bridge) as client:
        cell, waiting = run(client, "1"), run(client, "2")
        await until(lambda: len(kernel.received) == 2)
        kernel.status("busy", kernel.received[0][1])
        kernel.change(KernelState.DEAD, "It was killed: out of memory.")
        told = []
        while not told:
            message = await client.get_iopub_msg(timeout=60)
            told = [message] if message["msg_type"] == "stream" else []
        assert told[0]["parent_header"]["msg_id"] == cell
        assert told[0]["content"] == {"name": "stderr", "text": "[codespace-kernels] It was killed: out of memory.\n"}
        kernel.change(KernelState.DEAD, "again")
        assert waiting
        assert not await client.iopub_channel.msg_ready()


@pytest.mark.parametrize("language", ["python", "R", "julia", "brainfuck", ""])
def test_a_guess_is_sound(language):
    info = guessed_kernel_info(language, "hello")
    assert info["language_info"]["name"] == (language or "python")
    json.dumps(info, allow_nan=False)


def test_a_guess_has_the_versions_that_are_known():
    info = guessed_kernel_info("python", "hello", {"python": "3.12.1", "ipython": "8.20"})
    assert info["language_info"]["version"] == "3.12.1"
    assert (info["implementation"], info["implementation_version"]) == ("ipython", "8.20")
    assert info["banner"] == "python 3.12.1 in hello"


async def test_a_kernel_that_is_started_again_before_it_answers_is_asked_again(bridge, owner):
    kernel = MemoryKernel()
    bridge.stand_in(INFO)
    async with subscribed(bridge) as client:
        kept = run(client, "kept", silent=True)
        await reply_to(client, kept)
        cell = run(client, "cell")
        await until(lambda: owner.runs_waiting == 1)
        bridge.attach(kernel)
        kernel.change(KernelState.RESTARTING)
        kernel.change(KernelState.ALIVE)
        assert [m.header_dict()["msg_type"] for _, m in kernel.received] == ["kernel_info_request"] * 2
        for channel, message in list(kernel.received):
            obedient(kernel, channel, message)
        assert codes(kernel) == ["kept", "cell"]
        for channel, message in kernel.received[2:]:
            obedient(kernel, channel, message)
        assert (await reply_to(client, cell))["status"] == "ok"
