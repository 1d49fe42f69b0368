"""What JupyterLab 4 alone has: its launcher and its debugger."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import expect

from .page import STEP, NotebookPage

pytestmark = pytest.mark.e2e

FRONT_END = "jupyterlab"
NAME = "Python 3 · octocat/hello-codespaces (codespace)"


def test_launcher_shows_the_kernel_with_its_logo_and_starts_it(page, front_end, account):
    page.goto(front_end.address("lab"))
    cards = page.locator(f".jp-LauncherCard[title^='{NAME}']")
    expect(cards).to_have_count(2)  # notebook and console
    logo = cards.first.locator("img")
    expect(logo).to_be_visible()
    assert logo.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    cards.first.click()
    notebook = NotebookPage(page)
    notebook.wait_for_kernel()
    notebook.cell(0).locator(".cm-content").fill("import os; print(os.environ['CODESPACE_NAME'])")
    expect(notebook.run(0)).to_have_text(account.codespace)


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


def test_debugger_stops_at_a_breakpoint(open_notebook):
    notebook = open_notebook("def double(n):\n    total = n * 2\n    return total\n\nprint('got', double(21))")
    page = notebook.page
    gutter = notebook.cell(0).locator("div.cm-breakpoint-gutter .cm-gutterElement")
    switch_debugger_on(page, gutter.nth(3))
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
