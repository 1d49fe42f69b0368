"""What a kernel can do, seen in both front ends: with a codespace's kernel it is as with a local one."""

from __future__ import annotations

import importlib.util
import re
import time

import pytest
from playwright.sync_api import expect

from ..conftest import wait_until
from .page import STEP

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("front_end", ["jupyterlab", "notebook"], indirect=True)]


def test_output_is_computed_in_the_codespace(open_notebook, account):
    notebook = open_notebook("import os\nprint('in', os.environ['CODESPACE_NAME'])")
    expect(notebook.run(0)).to_have_text(f"in {account.codespace}")
    expect(notebook.page.locator(".jp-Toolbar-kernelName")).to_have_text(
        "Python 3 · octocat/hello-codespaces (codespace)"
    )


def test_interrupt_and_restart(open_notebook):
    notebook = open_notebook(
        "x = 1\nimport time\nprint('running')\ntime.sleep(600)", "print(x)", "print('x' in globals())"
    )
    expect(notebook.start(0)).to_contain_text("running")
    notebook.wait_for_kernel("busy")
    notebook.press("interrupt-kernel")
    expect(notebook.output(0)).to_contain_text("KeyboardInterrupt")
    expect(notebook.run(1)).to_have_text("1")
    notebook.restart()
    expect(notebook.run(2)).to_have_text("False")


def test_input_and_password(open_notebook):
    notebook = open_notebook(
        "name = input('Who? ')\nprint('Hello', name)",
        "import getpass\nsecret = getpass.getpass('Password: ')\nprint(len(secret))",
    )
    for index, answer in enumerate(("Mona", "swordfish")):
        asked = notebook.start(index).locator(".jp-Stdin-input")
        assert (asked.get_attribute("type") == "password") is bool(index)
        asked.fill(answer)
        asked.press("Enter")
        notebook.wait_for_end(index)
    expect(notebook.output(0)).to_contain_text("Hello Mona")
    expect(notebook.output(1)).to_contain_text("9")
    expect(notebook.output(1)).not_to_contain_text("swordfish")


def test_slider_moves_a_remote_value_and_the_other_way(open_notebook):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: no slider is moved")
    notebook = open_notebook(
        "from ipywidgets import IntSlider\nslider = IntSlider(value=7, description='speed')\n"
        "slider.observe(lambda change: setattr(slider, 'description', f'seen {change.new}'), 'value')\nslider",
        "print(slider.value)",
        "slider.value = 99",
    )
    widget = notebook.run(0)
    shown = widget.locator(".widget-readout")
    expect(shown).to_have_text("7")
    widget.locator(".noUi-target").click()  # in the middle
    # The kernel's own answer to the change.
    expect(widget.locator(".widget-label")).to_have_text(re.compile(r"seen (4|5)\d"))
    expect(notebook.run(1)).to_have_text(shown.inner_text())
    notebook.run(2)
    expect(shown).to_have_text("99")
    expect(widget.locator(".noUi-handle")).to_have_attribute("aria-valuetext", "99")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed: no plot")
def test_plot_appears_inline(open_notebook):
    notebook = open_notebook("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 4, 9]);")
    picture = notebook.run(0).locator("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200


# How many pixels of the figure are neither white nor transparent.
_INK = """canvas => {
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let ink = 0;
    for (let i = 0; i < data.length; i += 4) ink += data[i + 3] > 0 && data[i] + data[i + 1] + data[i + 2] < 600;
    return ink;
}"""


@pytest.mark.skipif(importlib.util.find_spec("ipympl") is None, reason="ipympl is not installed: no plot is clicked")
def test_plot_as_a_widget_is_drawn_and_clicked(open_notebook):
    """The figure comes as pictures in binary buffers of a comm, mouse events go the other way."""
    notebook = open_notebook(
        "%matplotlib widget\nimport matplotlib.pyplot as plt\n"
        "figure, axes = plt.subplots()\naxes.plot([0, 1], [0, 1])\n"
        "def clicked(event):\n    axes.set_title(f'x is {event.xdata:.1f}')\n    axes.fill_between([0, 1], [1, 1])\n"
        "    figure.canvas.draw()\n"
        "figure.canvas.mpl_connect('button_press_event', clicked)\nplt.show()",
        "print(axes.get_title())",
    )
    canvas = notebook.run(0).locator("canvas").first
    expect(canvas).to_be_visible()
    wait_until(lambda: canvas.evaluate(_INK) > 1000, "the figure")
    before = canvas.evaluate(_INK)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    notebook.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wait_until(lambda: canvas.evaluate(_INK) > 5 * before, "the filled figure")
    expect(notebook.run(1)).to_have_text(re.compile(r"^x is 0\.[456]\s*$"))


def test_cleared_output_is_replaced_and_a_traceback_is_coloured(open_notebook):
    notebook = open_notebook(
        "from IPython.display import clear_output\n"
        "for i in range(30):\n    clear_output(wait=True)\n    print('step', i)",
        "def f(n):\n    return 1 / n\n\nf(0)",
    )
    expect(notebook.run(0)).to_have_text(re.compile(r"^step 29\s*$"))
    output = notebook.run(1)
    expect(output).to_contain_text("ZeroDivisionError")
    expect(output).to_contain_text("return 1 / n")
    assert output.locator("span[class^='ansi-']").count() > 5


def switch_debugger_on(page, shown) -> None:
    """Press the button until what the debugger brings is shown.

    JupyterLab offers it while it still asks the kernel for the debugger's state; the answer then undoes the press.
    """
    button = page.locator(".jp-NotebookPanel-toolbar .jp-DebuggerBugButton")
    give_up = time.monotonic() + STEP
    while not shown.is_visible():
        assert time.monotonic() < give_up, "the debugger was not switched on"
        if button.get_attribute("aria-pressed") != "true":
            button.click()
        page.wait_for_timeout(250)


def show_debugger(page) -> None:
    """Open the panel beside the notebook, which Notebook 7 keeps shut."""
    page.evaluate("() => window.jupyterapp.shell.activateById('jp-debugger-sidebar')")
    page.locator(".jp-DebuggerCallstack").wait_for()


def test_debugger_stops_at_a_breakpoint(open_notebook):
    notebook = open_notebook("def double(n):\n    total = n * 2\n    return total\n\nprint('got', double(21))")
    page = notebook.page
    gutter = notebook.cell(0).locator("div.cm-breakpoint-gutter .cm-gutterElement")
    switch_debugger_on(page, gutter.nth(3))
    show_debugger(page)
    # The first one is the column's hidden measure; so this is line 3.
    gutter.nth(3).click()
    expect(page.locator(".jp-DebuggerBreakpoint")).to_contain_text("3")
    notebook.start(0)
    stack = page.locator(".jp-DebuggerCallstack")
    expect(stack).to_contain_text("double")
    expect(notebook.cell(0).locator(".jp-DebuggerEditor-highlight")).to_have_text("    return total")
    expect(page.locator(".jp-DebuggerVariables").get_by_text("42")).to_be_visible()
    expect(notebook.output(0)).not_to_contain_text("got")
    page.locator("[data-command='debugger:continue']").click()
    notebook.wait_for_end(0)
    expect(notebook.output(0)).to_have_text("got 42")
