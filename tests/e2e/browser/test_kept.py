"""JupyterLab's server ends while a cell runs, and starts again: the page shows what the kernel did meanwhile."""

from __future__ import annotations

import textwrap

import pytest

from ..conftest import broker_kernels, cli, wait_until
from .conftest import NOTEBOOKS, FrontEnd
from .page import NotebookPage

pytestmark = pytest.mark.e2e

FRONT_END = "jupyterlab"


@pytest.fixture
def front_end(kernel_name, browser, tmp_path, monkeypatch):
    """A server whose kernels are kept; `again()` ends it and starts it anew in the same folder."""
    pytest.importorskip(FRONT_END, reason="jupyterlab is not installed")
    monkeypatch.setenv("CODESPACE_KERNELS_ON_CLOSE", "keep")
    started = FrontEnd(FRONT_END, tmp_path)
    yield started
    started.close()
    assert cli("kernels", "end", "--all").returncode == 0


def test_a_cell_that_ran_on_is_seen_after_the_servers_restart(page, front_end, kernel_name, tmp_path):
    go = tmp_path / "go"
    training = f"""
        import os, time
        print("epoch 1", flush=True)
        while not os.path.exists({str(go)!r}):
            time.sleep(0.02)
        print("epoch 2", flush=True)
        while not os.path.exists({str(go) + "2"!r}):
            time.sleep(0.02)
        weights = 17
    """
    front_end.write("training.ipynb", (textwrap.dedent(training), "print(weights + 25)"), kernel_name)
    page.goto(front_end.address(NOTEBOOKS[FRONT_END] + "training.ipynb"))
    notebook = NotebookPage(page)
    notebook.wait_for_kernel()
    notebook.start(0)
    notebook.output(0).get_by_text("epoch 1").wait_for()
    front_end.restart()
    wait_until(lambda: [(k["kept"], k["state"]) for k in broker_kernels()] == [(True, "busy")], "the kernel to be kept")
    go.touch()
    page.goto(front_end.address(NOTEBOOKS[FRONT_END] + "training.ipynb"))
    notebook = NotebookPage(page)
    # The page knows that the kernel is at work, although nobody has run anything on it.
    notebook.wait_for_kernel("busy")
    notebook.start(1)
    notebook.output(1).get_by_text("An earlier cell still runs").wait_for()
    notebook.output(1).get_by_text("epoch 2").wait_for()
    go.with_name("go2").touch()
    notebook.output(1).get_by_text("42").wait_for()
