"""What a cell of JupyterLab shows while it waits: for a stopped codespace, and for a connection that is lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat
import pytest
from playwright.sync_api import expect

from ..conftest import cli, wait_until
from ..sleepy import CodespaceControl, not_connected
from .conftest import SCREENSHOTS

if TYPE_CHECKING:
    from pathlib import Path

    from .page import NotebookPage

pytestmark = pytest.mark.e2e

FRONT_END = "jupyterlab"


@pytest.fixture
def asleep(account, kernel_name):
    """The codespace, stopped; it runs again at the end."""
    codespace = CodespaceControl(account.environment)
    codespace.stop()
    wait_until(not_connected, "the broker to notice")
    yield codespace
    codespace.clear()
    assert cli("connect", codespace.codespace).returncode == 0


def saved_outputs(notebook: NotebookPage, file: Path) -> list:
    """Save, and give what the file then has of the first cell's outputs."""
    # A save ends with its checkpoint: until then JupyterLab takes no other.
    checkpoint = re.compile(rf"/api/contents/{re.escape(file.name)}/checkpoints\b")
    with notebook.page.expect_response(lambda r: r.request.method == "POST" and bool(checkpoint.search(r.url))):
        notebook.page.keyboard.press("Control+s")
    return nbformat.read(file, 4).cells[0].outputs


def test_a_waiting_cell_tells_of_it_and_keeps_nothing(asleep, open_notebook, front_end):
    notebook = open_notebook("print('up')")
    file = next(front_end.root.glob("test_a_waiting_cell*.ipynb"))
    assert asleep.state == "Shutdown"

    asleep.set("state", state="Queued")
    output = notebook.start(0)
    expect(output).to_have_text(re.compile(r"□ Starting codespace \S+ \(Queued\) · .* s · step 1/5, next: starting"))
    asleep.set("state", state="Provisioning")
    expect(output).to_have_text(re.compile(r"^\s*■□+ Preparing codespace .* · [1-9]\d* s · step 2/6, next: starting"))
    # One that is replaced, in one line.
    line = output.locator(".jp-OutputArea-output")
    expect(line).to_have_count(1)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    notebook.page.screenshot(path=SCREENSHOTS / "jupyterlab-waiting-cell.png")
    assert saved_outputs(notebook, file) == []
    # Saving takes it from the file, not from the page.
    expect(line).to_have_count(1)

    notebook.press("interrupt-kernel")
    expect(output).to_contain_text("KeyboardInterrupt: The wait for the kernel was interrupted.")
    expect(line).to_have_count(1)
    assert [saved.ename for saved in saved_outputs(notebook, file)] == ["KeyboardInterrupt"]

    asleep.clear()
    asleep.set("payment", count=1)
    notebook.start(0)
    expect(output).to_contain_text("PaymentRequiredError: ")
    expect(line).to_have_count(1)
    assert [saved.ename for saved in saved_outputs(notebook, file)] == ["PaymentRequiredError"]

    notebook.start(0)
    expect(output).to_have_text("up")
    notebook.wait_for_end(0)
    assert [saved.text for saved in saved_outputs(notebook, file)] == ["up\n"]
    assert asleep.state == "Available"


def test_a_running_cell_shows_a_lost_connection_and_keeps_its_own_outputs(account, open_notebook, front_end, tmp_path):
    codespace, flag = CodespaceControl(account.environment), tmp_path / "flag"
    code = "import os, time\nprint('before', flush=True)\n"
    notebook = open_notebook(code + f"while not os.path.exists({str(flag)!r}): time.sleep(0.1)\nprint('after')")
    file = next(front_end.root.glob("test_a_running_cell*.ipynb"))
    output = notebook.start(0)
    expect(output).to_have_text("before")
    for fault in ("api-down", "relay-refusal", "relay-drop"):
        codespace.set(fault)
    expect(output).to_have_text(
        re.compile(r"^before\s+Reconnecting to octocat/hello-codespaces · [1-9]\d* s · try \d+: ")
    )
    notebook.page.screenshot(path=SCREENSHOTS / "jupyterlab-lost-connection.png")
    assert [saved.text for saved in saved_outputs(notebook, file)] == ["before\n"]
    codespace.clear()
    flag.touch()
    expect(output).to_have_text(re.compile(r"^before\s+after\s*$"))
    notebook.wait_for_end(0)
    before, after = (line.bounding_box() for line in output.locator(".jp-OutputArea-child").all())
    assert after["y"] - before["y"] - before["height"] < 5
    assert [saved.text for saved in saved_outputs(notebook, file)] == ["before\nafter\n"]
