"""The panel in JupyterLab and Notebook 7: connecting and creating from a page, what goes on and what it costs."""

from __future__ import annotations

import os
import re
import time
import urllib.request

import pytest
from playwright.sync_api import expect

from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record

from ..conftest import EmulatedAccount, broker_kernels, cli, end_broker, wait_until
from . import labextension
from .conftest import NOTEBOOKS, SCREENSHOTS, FrontEnd
from .page import STEP, NotebookPage

pytestmark = pytest.mark.e2e

FRONT_END = "jupyterlab"
REPOSITORY, OTHER = "octocat/hello", "octocat/fresh"
SPEC = "Python 3 · octocat/hello (codespace)"
KERNEL = "cs-octocat-hello-python3"
WHERE = "import os; print('in', os.environ['CODESPACE_NAME'])"


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account of these tests alone: they make and stop codespaces, and write kernelspecs."""
    folder = tmp_path_factory.mktemp("c")
    share = folder / "share" / "jupyter"
    (share / "labextensions").mkdir(parents=True)
    (share / "labextensions" / "codespace-kernels").symlink_to(labextension.build())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODESPACE_KERNELS_HOME", str(folder / "h"))
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
        patch.setenv("JUPYTER_PATH", str(share))
        account = EmulatedAccount("--repository", OTHER, repository=REPOSITORY)
        for name, value in account.environment.items():
            patch.setenv(name, value)
        yield account
        end_broker()
        assert cli("emulator", "stop", env={**os.environ, **account.environment}).returncode == 0


@pytest.fixture(scope="module")
def front_end(account, browser, tmp_path_factory):
    """One server for both front ends: JupyterLab's serves Notebook 7, too."""
    pytest.importorskip(FRONT_END, reason="jupyterlab is not installed")
    started = FrontEnd(FRONT_END, tmp_path_factory.mktemp("lab"), "--JupyterNotebookApp.expose_app_in_browser=True")
    yield started
    started.close()


@pytest.fixture
def control(account):
    """The emulator, asked in this process; its faults are gone at the end."""
    control = ControlClient(find_record(account.environment["GITHUB_API_URL"]))
    yield control
    control.clear_faults(None, None)


@pytest.fixture
def connected(account):
    """The account's first codespace, which runs and is connected; no kernel of it is left at the end."""
    assert cli("connect", account.codespace).returncode == 0
    yield account.codespace
    cli("kernels", "end", "--all")


def picture(page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"codespaces-{name}.png")


def open_notebook(page, front_end, name: str, *cells: str, kernel: str = "python3", way: str = FRONT_END):
    """Open a notebook, by default with a kernel of this machine."""
    front_end.write(name, cells, kernel)
    page.goto(front_end.address(NOTEBOOKS[way] + name))
    notebook = NotebookPage(page)
    notebook.wait_for_kernel()
    return notebook


def open_lab(page, front_end) -> None:
    """Open JupyterLab with its launcher."""
    page.goto(front_end.address("lab"))
    page.locator(".jp-LauncherCard").first.wait_for()


def open_dialog(page):
    """Open the dialog as who knows the palette does; give it."""
    field = page.locator(".lm-CommandPalette-input")
    give_up = time.monotonic() + STEP
    # Keys are for JupyterLab only once something of it has the focus.
    while not field.is_visible():
        assert time.monotonic() < give_up, "the palette does not open"
        page.keyboard.press("Control+Shift+c")
        page.wait_for_timeout(500)
    field.fill("Connect to Codespace")
    page.locator(".lm-CommandPalette-item.lm-mod-active").get_by_text("Connect to Codespace…").wait_for()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Connect to Codespace")
    dialog.wait_for()
    return dialog


def choose(dialog, action: str) -> None:
    """Take the kernel that is offered first."""
    expect(dialog.get_by_role("radio", name="Python 3 (ipykernel)")).to_be_checked()
    dialog.get_by_role("button", name=action).click()
    expect(dialog).to_have_count(0)


def stop_all(account, control) -> None:
    """Stop the account's codespaces as their web pages do."""
    for codespace in control.status()["codespaces"]:
        request(account, "POST", f"/user/codespaces/{codespace['name']}/stop")
    wait_until(
        lambda: all(codespace["state"] == "Shutdown" for codespace in control.status()["codespaces"]), "them to stop"
    )


def request(account, method: str, path: str) -> None:
    """Do something behind everybody's back, as a web page of GitHub does."""
    headers = {"Authorization": f"token {account.environment['GH_ENTERPRISE_TOKEN']}"}
    url = account.environment["GITHUB_API_URL"] + path
    with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers), timeout=30):
        pass


def test_palette_connects_and_switches_the_notebook(page, front_end, account, control):
    stop_all(account, control)
    notebook = open_notebook(page, front_end, "palette.ipynb", WHERE)
    dialog = open_dialog(page)
    codespace = dialog.get_by_role("radio", name=REPOSITORY)
    expect(codespace).to_be_checked()
    expect(dialog.get_by_text(re.compile("Connecting starts it"))).to_be_visible()
    picture(page, "list")
    dialog.get_by_role("button", name="Connect", exact=True).click()
    expect(dialog.get_by_role("heading", name="Connected to")).to_be_visible()
    picture(page, "kernels")
    choose(dialog, "Use it in palette.ipynb")
    expect(page.locator(".jp-Toolbar-kernelName")).to_have_text(SPEC)
    notebook.wait_for_kernel()
    expect(notebook.run(0)).to_have_text(f"in {account.codespace}")


def test_launcher_creates_and_opens_a_notebook(page, front_end, account):
    open_lab(page, front_end)
    page.locator(".jp-LauncherCard").get_by_text("Codespace…", exact=True).click()
    dialog = page.get_by_role("dialog", name="Connect to Codespace")
    dialog.get_by_role("button", name="Create new…").click()
    create = dialog.get_by_role("button", name="Create and connect")
    expect(create).to_be_disabled()
    dialog.get_by_label("Repository").fill(OTHER)
    expect(create).to_be_disabled()
    expect(dialog.get_by_text(f"octocat pays for a codespace of {OTHER}.")).to_be_visible()
    expect(create).to_be_enabled()
    expect(dialog.get_by_label("Dev container configuration")).to_have_count(0)
    dialog.get_by_role("radio", name=re.compile(r"^4 cores.*\$0.36 an hour")).check()
    dialog.get_by_text("More", exact=True).click()
    dialog.get_by_label("Name").fill("Made in a dialog")
    dialog.get_by_label("Stops after idle minutes").fill("20")
    picture(page, "create")
    create.click()
    choose(dialog, "Open a new notebook")
    notebook = NotebookPage(page)
    notebook.wait_for_kernel()
    notebook.cell(0).locator(".cm-content").fill(WHERE)
    (made,) = [one for one in account.status()["codespaces"] if one["display_name"] == "Made in a dialog"]
    expect(notebook.run(0)).to_have_text(f"in {made['name']}")
    assert made["idle_timeout_minutes"] == 20
    request(account, "DELETE", f"/user/codespaces/{made['name']}")


def test_panel_and_status_bar_follow_the_codespace(page, front_end, account, connected):
    notebook = open_notebook(page, front_end, "panel.ipynb", "input()", kernel=KERNEL)
    status = page.get_by_role("button", name=re.compile(f"^Codespace {connected}: Connected · [0-9.]+ ms"))
    status.click()
    panel = page.get_by_role("region", name="Codespaces", exact=True)
    card = panel.get_by_role("region", name=connected)
    expect(card.get_by_text(re.compile(r"^Connected · [0-9.]+ ms$"))).to_be_visible()
    kernel = card.get_by_role("listitem").filter(has_text="panel.ipynb")
    expect(kernel).to_contain_text("idle")
    expect(card).to_contain_text(re.compile(r"Stops in\d+ min"))
    cost = r"(about|under) \$0\.0\d"
    expect(card).to_contain_text(re.compile(rf"This session{cost}This month{cost} .*prices of 20\d\d-"))
    notebook.start(0)
    expect(kernel).to_contain_text("busy")
    expect(card).to_contain_text("not while a kernel is busy")
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    picture(page, "panel-dark")
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    page.locator("body[data-jp-theme-light='true']").wait_for(state="attached")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    picture(page, "panel")
    card.get_by_role("button", name="End kernel python3 of panel.ipynb").click()
    expect(kernel).to_have_count(0)
    assert not [kernel for kernel in broker_kernels() if kernel["session"].endswith("panel.ipynb")]


def test_stop_says_which_kernels_end(page, front_end, account, connected):
    open_notebook(page, front_end, "stop.ipynb", "1", kernel=KERNEL)
    page.get_by_role("button", name=f"Codespace {connected}").click()
    card = page.get_by_role("region", name="Codespaces", exact=True).get_by_role("region", name=connected)
    stop = card.get_by_role("button", name="Stop codespace…")
    stop.click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(re.compile(r"/stop\.ipynb \(\w+\)"))
    question.get_by_role("button", name="Cancel").click()
    stop.click()
    question.get_by_role("button", name="Stop codespace").click()
    expect(page.get_by_role("heading", name=f"Stopped {connected}")).to_be_visible()
    assert account.status()["codespaces"][0]["state"] in {"ShuttingDown", "Shutdown"}


def test_keys_alone_do_and_focus_stays_in_the_dialog(page, front_end, account, connected):
    notebook = open_notebook(page, front_end, "keys.ipynb", WHERE)
    dialog = open_dialog(page)
    expect(dialog.get_by_role("radio", name=REPOSITORY)).to_be_focused()
    names = []
    for _ in range(4):
        page.keyboard.press("Tab")
        names.append(page.evaluate("() => document.activeElement.textContent"))
    assert names[:3] == ["Create new…", "Cancel", "Connect"]
    expect(dialog.get_by_role("radio", name=REPOSITORY)).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("radio", name="Python 3 (ipykernel)")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.locator(".jp-Toolbar-kernelName")).to_have_text(SPEC)
    notebook.wait_for_kernel()
    expect(notebook.run(0)).to_have_text(f"in {connected}")
    open_dialog(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_notebook_7_connects_by_its_menu(page, front_end, connected):
    notebook = open_notebook(page, front_end, "seven.ipynb", WHERE, way="notebook")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Connect to Codespace…").click()
    dialog = page.get_by_role("dialog", name="Connect to Codespace")
    dialog.get_by_role("button", name="Connect", exact=True).click()
    choose(dialog, "Use it in seven.ipynb")
    expect(page.locator(".jp-Toolbar-kernelName")).to_have_text(SPEC)
    notebook.wait_for_kernel()
    expect(notebook.run(0)).to_have_text(f"in {connected}")
    # It has no status bar, and its sidebar is shut until somebody wants it.
    page.evaluate("() => jupyterapp.commands.execute('codespace-kernels:show-panel')")
    card = page.get_by_role("region", name="Codespaces", exact=True).get_by_role("region", name=connected)
    expect(card.get_by_role("listitem").filter(has_text="seven.ipynb")).to_be_visible()
    picture(page, "notebook")


def test_a_reloaded_page_finds_the_start_and_cancels_it(page, front_end, account, control):
    stop_all(account, control)
    control.set_fault("state", None, {"state": "Queued"})
    open_lab(page, front_end)
    dialog = open_dialog(page)
    dialog.get_by_role("button", name="Connect", exact=True).click()
    expect(dialog.get_by_role("listitem").filter(has_text="Queued")).to_be_visible()
    picture(page, "progress")
    page.reload()
    page.locator(".jp-LauncherCard").first.wait_for()
    dialog = open_dialog(page)
    expect(dialog.get_by_role("listitem").filter(has_text="Queued")).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.get_by_text(f"The codespace {account.codespace} is kept")).to_be_visible()
    dialog.get_by_role("button", name="Back").click()
    expect(dialog.get_by_role("radio", name=REPOSITORY)).to_be_checked()


def test_what_goes_wrong_is_told_with_the_next_step(page, front_end, account, control):
    open_lab(page, front_end)
    dialog = open_dialog(page)
    dialog.get_by_role("button", name="Create new…").click()
    control.set_fault("server-error", None, {"status": 502})
    dialog.get_by_label("Repository").fill(OTHER)
    alert = dialog.get_by_role("alert")
    expect(alert).to_contain_text("502")
    expect(dialog.get_by_role("button", name="Create and connect")).to_be_disabled()
    picture(page, "network-gone")
    control.clear_faults(None, None)
    dialog.get_by_role("button", name="Try again").click()
    expect(dialog.get_by_role("button", name="Create and connect")).to_be_enabled()
    control.set_fault("permissions", None, {})
    dialog.get_by_label("Branch").fill("main")
    asked = dialog.get_by_role("group", name="Further permissions")
    asked.get_by_label("Go on without them").check()
    asked.get_by_label("Go on without them").uncheck()
    picture(page, "permissions")
    dialog.get_by_role("button", name="Create and connect").click()
    expect(alert.get_by_role("link", name="Open the page")).to_have_attribute("href", re.compile("^http.*permissions"))
    dialog.get_by_role("button", name="Back").click()
    granted = asked.get_by_role("button", name="I granted them")
    granted.wait_for()
    control.clear_faults(None, None)
    granted.click()
    expect(asked).to_have_count(0)
    expect(dialog.get_by_role("button", name="Create and connect")).to_be_enabled()
    dialog.get_by_label("Repository").fill("octocat/nowhere")
    expect(alert).to_contain_text("octocat/nowhere")

    dialog.get_by_role("button", name="Back").click()
    expect(dialog.get_by_role("radio", name=REPOSITORY)).to_be_checked()
    request(account, "DELETE", f"/user/codespaces/{account.codespace}")
    dialog.get_by_role("button", name="Connect", exact=True).click()
    expect(alert).to_contain_text("There is no codespace")
    picture(page, "deleted")
    dialog.get_by_role("button", name="Back").click()
    expect(dialog.get_by_text("This account has no codespaces yet.")).to_be_visible()
