"""What a person does with an open notebook; JupyterLab 4 and Notebook 7 are built of the same parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

STEP = 45.0
"""Seconds that one step may take on a busy machine."""

expect.set_options(timeout=STEP * 1000)

_KERNEL_IS = """state => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === state;
}"""


class NotebookPage:
    """An open notebook in a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def cell(self, index: int) -> Locator:
        """The cell of that number, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """All that a cell shows below its code."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def wait_for_kernel(self, state: str = "idle") -> None:
        """Wait until the notebook has a connection to its kernel, which is in a state."""
        # What is drawn says "Idle" before there is any kernel, and the front ends drop a cell that is run then.
        self.page.wait_for_function(_KERNEL_IS, arg=state, timeout=STEP * 1000)

    def press(self, command: str) -> None:
        """Press a button of the notebook's toolbar."""
        self.page.locator(f".jp-NotebookPanel-toolbar [data-command='notebook:{command}']").click()

    def start(self, index: int) -> Locator:
        """Run a cell without waiting for its end; give its output."""
        self.cell(index).locator(".cm-content").click()
        self.press("run-cell-and-select-next")
        return self.output(index)

    def wait_for_end(self, index: int) -> None:
        """Wait until a cell has run, which its number shows."""
        expect(self.cell(index).locator(".jp-InputPrompt")).to_have_text(re.compile(r"^\[\d+\]:$"))

    def run(self, index: int) -> Locator:
        """Run a cell that has not run yet to its end; give its output."""
        output = self.start(index)
        self.wait_for_end(index)
        return output

    def restart(self) -> None:
        """Restart the kernel, and say that it is meant."""
        self.press("restart-kernel")
        with self.page.expect_response(lambda response: "/restart" in response.url):
            self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.wait_for_kernel()
