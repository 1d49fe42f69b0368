"""What JupyterLab 4 alone has: its launcher."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .page import NotebookPage

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
