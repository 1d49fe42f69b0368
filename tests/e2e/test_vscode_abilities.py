"""What VS Code's features need of a kernel, played message for message (see `vscode`), on one kernel for all tests."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

from .vscode import VSCodeKernel, find_specs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def kernel(kernel_name, tmp_path_factory) -> Iterator[VSCodeKernel]:
    """A started kernel."""
    kernel = VSCodeKernel(find_specs()[kernel_name], tmp_path_factory.mktemp("folder") / "note book.ipynb")
    try:
        yield kernel.start()
        kernel.stop()
    finally:
        kernel.end()


COMPLETION = """
import builtins as _VSCODE_builtins
def _VSCODE_complete():
    from threading import Thread
    from IPython import get_ipython
    from IPython.display import display, update_display
    mime = "application/vnd.vscode.bg.execution"
    def work():
        matches = get_ipython().kernel.do_complete("remarkable_n", 12)["matches"]
        update_display({mime: {"matches": matches}}, raw=True, display_id="completion")
    display({mime: {}}, raw=True, display_id="completion")
    Thread(target=work).start()
_VSCODE_complete()
"""


def test_completion_by_hidden_code_in_a_thread(kernel):
    """The answer is an update of a display, and may come after the idle of the request."""
    kernel.execute("remarkable_name = 1")
    asked = kernel.send_cell(COMPLETION, silent=True)
    kernel.finish_cell(asked)
    update = kernel.wire.first(
        lambda m: m.kind == "update_display_data" and m.parent_id == asked, "the names that the kernel found"
    )
    assert update.content["transient"] == {"display_id": "completion"}
    assert update.content["data"]["application/vnd.vscode.bg.execution"] == {"matches": ["remarkable_name"]}


@pytest.mark.parametrize(
    ("kind", "content", "key", "expected"),
    [
        ("complete_request", {"code": "len.__na", "cursor_pos": 8}, "matches", "__name__"),
        ("inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0}, "data", "number of items"),
    ],
)
def test_completion_and_inspection_by_requests(kernel, kind, content, key, expected):
    asked = kernel.wire.send("shell", kind, content)
    assert expected in str(kernel.wire.reply(asked).content[key])
    kernel.wire.idle(asked)


def test_questions_while_a_cell_runs_are_answered_after_it(kernel):
    """As with a local kernel: the extension uses no subshells, and gives up after two seconds without harm."""
    cell = kernel.send_cell("import time\nprint('running', flush=True)\ntime.sleep(600)")
    kernel.wait_for_output(cell, "running")
    asked = kernel.wire.send("shell", "inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0})
    kernel.interrupt()
    assert kernel.finish_cell(cell).reply.content["ename"] == "KeyboardInterrupt"
    assert kernel.wire.reply(asked).content["found"] is True
    replies = [m.parent_id for m in kernel.wire.received if m.channel == "shell"]
    assert replies.index(cell) < replies.index(asked)


ECHO = """
from comm import get_comm_manager
def target(comm, message):
    @comm.on_msg
    def answer(msg):
        comm.send({'n': len(msg['buffers'][0])}, buffers=[bytes(msg['buffers'][0])[::-1], b'\\x00'])
get_comm_manager().register_target('echo', target)
"""


@pytest.mark.parametrize("size", [1000, 100_000_000])
def test_widgets_carry_their_buffers_both_ways(kernel, size):
    kernel.execute(ECHO)
    data = os.urandom(size)
    kernel.wire.send("shell", "comm_open", {"comm_id": f"c{size}", "target_name": "echo", "data": {}})
    asked = kernel.wire.send("shell", "comm_msg", {"comm_id": f"c{size}", "data": {}}, buffers=[data])
    kernel.wire.idle(asked)
    (answer,) = kernel.wire.published(asked)
    assert (answer.kind, answer.content["data"]) == ("comm_msg", {"n": size})
    # No list of bytes: their difference would be shown for minutes.
    assert len(answer.buffers) == 2
    assert (answer.buffers[0] == data[::-1], answer.buffers[1]) == (True, b"\x00")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed: no plot")
def test_plot_comes_as_a_picture(kernel):
    ran = kernel.execute("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 4, 9]);")
    (shown,) = [m for m in ran.outputs if m.kind == "display_data"]
    assert shown.content["data"]["image/png"].startswith("iVBOR")


def test_cleared_output_and_coloured_traceback(kernel):
    ran = kernel.execute(
        "from IPython.display import clear_output\n"
        "for i in range(3):\n    clear_output(wait=True)\n    print('step', i, flush=True)\n1 / 0"
    )
    assert [m.kind for m in ran.outputs] == ["execute_input", *["clear_output", "stream"] * 3, "error"]
    assert [m.content for m in ran.outputs if m.kind == "clear_output"] == [{"wait": True}] * 3
    error = ran.outputs[-1].content
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "\x1b[" in "\n".join(error["traceback"])


def test_the_debugger_stops_at_a_breakpoint(kernel):
    code = "def double(n):\n    total = n * 2\n    return total\n\nprint('got', double(21))"
    # The last test: a kernel that was debugged is slower.
    client = {"clientID": "vscode", "adapterID": "", "pathFormat": "path", "linesStartAt1": True}
    assert kernel.debug("initialize", **client)["success"]
    assert kernel.debug("attach", justMyCode=True)["success"]
    kernel.debug_event("initialized")
    path = kernel.debug("dumpCell", code=code)["body"]["sourcePath"]
    assert path.endswith(".py")
    answer = kernel.debug("setBreakpoints", source={"path": path}, breakpoints=[{"line": 3}], sourceModified=False)
    assert answer["body"]["breakpoints"][0]["verified"] is True
    assert kernel.debug("configurationDone")["success"]

    cell = kernel.send_cell(code)
    thread = kernel.debug_event("stopped")["body"]["threadId"]
    frame = kernel.debug("stackTrace", threadId=thread)["body"]["stackFrames"][0]
    assert (frame["name"], frame["line"], frame["source"]["path"]) == ("double", 3, path)
    scope = kernel.debug("scopes", frameId=frame["id"])["body"]["scopes"][0]
    variables = kernel.debug("variables", variablesReference=scope["variablesReference"])["body"]["variables"]
    assert {"n": "21", "total": "42"}.items() <= {one["name"]: one["value"] for one in variables}.items()
    assert kernel.debug("continue", threadId=thread)["success"]
    assert kernel.finish_cell(cell).text == "got 42\n"
    assert kernel.debug("disconnect", restart=False)["success"]
