"""What Notebook 7 alone has: the menu of new notebooks, and the list of kernels."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .page import NotebookPage

pytestmark = pytest.mark.e2e

FRONT_END = "notebook"
NAME = "Python 3 · octocat/hello-codespaces (codespace)"


def test_new_menu_offers_the_kernel(page, front_end, account):
    page.goto(front_end.address("tree"))
    page.get_by_text("New", exact=True).click()
    with page.expect_popup() as opened:
        page.locator(".lm-Menu-item").filter(has_text=NAME).click()
    notebook = NotebookPage(opened.value)
    notebook.wait_for_kernel()
    notebook.cell(0).locator(".cm-content").fill("import os; print(os.environ['CODESPACE_NAME'])")
    expect(notebook.run(0)).to_have_text(account.codespace)


def test_kernels_logo_is_shown_beside_the_notebook(open_notebook):
    logo = open_notebook("1").page.locator("#jp-kernel-logo img, .jp-NotebookKernelLogo img").first
    expect(logo).to_be_visible()
    assert logo.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
