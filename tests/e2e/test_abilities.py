"""What a kernel can do beyond running cells, by jupyter_client: the browser is not needed to see it."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import connected, execute, reply_to, running_kernel, text_of, until_idle

pytestmark = pytest.mark.e2e

LARGE = 100_000_000


async def test_input_and_getpass_of_two_front_ends_reach_the_one_that_asked(kernel_name):
    async with running_kernel(kernel_name) as (manager, first), connected(manager) as second:
        one = first.execute("print('name', input('name: '))", allow_stdin=True)
        request = await first.get_stdin_msg(timeout=30)
        assert (request["content"]["prompt"], request["content"]["password"]) == ("name: ", False)
        # Its cell waits behind the question of the other one.
        two = second.execute("import getpass; print(getpass.getpass())", allow_stdin=True)
        assert not await second.stdin_channel.msg_ready()
        first.input("Mona")
        request = await second.get_stdin_msg(timeout=30)
        assert request["content"]["password"] is True
        assert not await first.stdin_channel.msg_ready()
        second.input("swordfish")
        assert "name Mona\n" in text_of(await until_idle(first, one))
        assert "swordfish\n" in text_of(await until_idle(second, two))


async def control_reply(client, msg_type: str) -> dict:
    """Send a request on the control channel and give its reply."""
    message = client.session.msg(msg_type, {})
    client.control_channel.send(message)
    while (reply := await client.get_control_msg(timeout=30))["parent_header"]["msg_id"] != message["header"]["msg_id"]:
        pass
    return reply


async def test_completion_and_inspection_while_busy(kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "remarkable_name = 1")
        info = await reply_to(client, client.kernel_info())
        if "kernel subshells" not in info["content"].get("supported_features", []):
            pytest.skip("This ipykernel has no subshells: a busy kernel completes nothing, on this machine neither.")
        subshell = (await control_reply(client, "create_subshell_request"))["content"]["subshell_id"]
        assert subshell in (await control_reply(client, "list_subshell_request"))["content"]["subshell_id"]

        busy = client.execute("import time\nprint('running', flush=True)\ntime.sleep(600)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        for msg_type, content, key, expected in (
            ("complete_request", {"code": "remarkable_n", "cursor_pos": 12}, "matches", "remarkable_name"),
            ("inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0}, "data", "number of items"),
        ):
            message = client.session.msg(msg_type, content)
            message["header"]["subshell_id"] = subshell
            client.shell_channel.send(message)
            reply = await reply_to(client, message["header"]["msg_id"], timeout=30)
            assert expected in str(reply["content"][key])
        await manager.interrupt_kernel()
        assert (await reply_to(client, busy))["content"]["ename"] == "KeyboardInterrupt"


async def test_widget_with_binary_buffers_both_ways(kernel_name):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    code = """
import ipywidgets
picture = ipywidgets.Image(value=b'\\x00\\xff' * 500)
picture.on_msg(lambda widget, content, buffers: widget.send({}, [bytes(buffers[0])[::-1], bytes(picture.value)]))
picture
"""
    async with running_kernel(kernel_name) as (_, client):
        messages = await execute(client, code)
        (opened,) = [m for m in messages if m["msg_type"] == "comm_open" and m["buffers"]]
        assert bytes(opened["buffers"][0]) == b"\x00\xff" * 500
        comm_id = opened["content"]["comm_id"]
        # As the page does it: a changed value, then a message of the widget's own.
        changed = {"method": "update", "state": {}, "buffer_paths": [["value"]]}
        await send_to_comm(client, comm_id, changed, b"new value")
        answers = await send_to_comm(client, comm_id, {"method": "custom", "content": {}}, b"abc" * 1000)
    assert [bytes(buffer) for buffer in answers[-1]["buffers"]] == [b"cba" * 1000, b"new value"]


async def send_to_comm(client, comm_id: str, data: dict, buffer: bytes) -> list[dict]:
    """Send a message with a buffer to a comm in the kernel; give what its other end sends meanwhile."""
    message = client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
    client.session.send(client.shell_channel.socket, message, buffers=[buffer])
    return [m for m in await until_idle(client, message["header"]["msg_id"]) if m["msg_type"] == "comm_msg"]


async def test_message_of_100_megabytes_each_way(kernel_name):
    code = """
from comm import get_comm_manager
def target(comm, message):
    comm.on_msg(lambda msg: comm.send({}, buffers=[bytes(msg['buffers'][0])[::-1]]))
get_comm_manager().register_target('mirror', target)
"""
    data = os.urandom(LARGE)
    async with running_kernel(kernel_name) as (_, client):
        await execute(client, code)
        opened = client.session.msg("comm_open", {"comm_id": "large", "target_name": "mirror", "data": {}})
        client.shell_channel.send(opened)
        (answer,) = await send_to_comm(client, "large", {}, data)
    assert bytes(answer["buffers"][0]) == data[::-1]


class PeakMemory:
    """How many bytes a process takes at most beyond what it has now; Linux only."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))
        # Begins the count of the highest use anew.
        (self._folder / "clear_refs").write_text("5")
        self._before = self._of("VmRSS")

    def growth(self) -> int:
        """Give it for the time since this was made."""
        return self._of("VmHWM") - self._before

    def _of(self, name: str) -> int:
        return 1024 * int(re.search(rf"{name}:\s*(\d+)", (self._folder / "status").read_text())[1])


def digest(text: str) -> str:
    """What two long texts are compared by: pytest would show their difference for minutes."""
    return hashlib.sha256(text.encode()).hexdigest()


async def printed(client):
    """A thousand messages."""
    lines = "chr(97 + i % 26) * 99_999 + '\\n'"
    messages = await execute(client, f"for i in range(1000): print({lines}, end='', flush=True)")
    assert digest(text_of(messages)) == digest("".join(chr(97 + i % 26) * 99_999 + "\n" for i in range(1000)))


async def shown(client):
    """One message."""
    messages = await execute(client, "display({'text/plain': 'ü' * 50_000_000}, raw=True)")
    (display,) = [m["content"] for m in messages if m["msg_type"] == "display_data"]
    assert digest(display["data"]["text/plain"]) == digest("ü" * 50_000_000)


async def answered(client):
    """One message to the kernel."""
    asked = client.execute("import hashlib\nprint(hashlib.sha256(input().encode()).hexdigest())", allow_stdin=True)
    await client.get_stdin_msg(timeout=30)
    answer = "ü" * 50_000_000
    client.input(answer)
    assert text_of(await until_idle(client, asked)) == digest(answer) + "\n"


async def run(client):
    """Code of a tenth of that: IPython alone takes a second to compile 5 MB, the way there next to nothing."""
    messages = await execute(client, f"text = {'x' * 10_000_000!r}\nprint(len(text))")
    assert text_of(messages) == "10000000\n"


async def test_text_of_100_megabytes_comes_whole_with_bounded_memory(kernel_name):
    async with running_kernel(kernel_name) as (_, client):
        broker = PeakMemory(BrokerClient().call("GET", "")["pid"]) if sys.platform == "linux" else None
        for carried in (printed, shown, answered, run):
            await carried(client)
    if broker is not None:
        # A message is held while it is cut into frames, and its parts until they are acknowledged.
        assert broker.growth() < 6 * LARGE


async def test_traceback_has_the_lines_of_the_cell_and_colours(kernel_name):
    async with running_kernel(kernel_name) as (_, client):
        messages = await execute(client, "def f(n):\n    return 1 / n\n\nf(0)")
    (error,) = [m["content"] for m in messages if m["msg_type"] == "error"]
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    text = "\n".join(error["traceback"])
    assert "\x1b[" in text
    assert "Cell" in text
    assert "return" in text
