"""JupyterLab and Notebook 7 as people see them: a real server, a headless Chromium, and the emulated codespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.homes import write_jupyter_config

from ..conftest import SCREENSHOTS, end_server, wait_until
from .page import STEP, NotebookPage

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "t" * 16

NOTEBOOKS = {"jupyterlab": "lab/tree/", "notebook": "notebooks/"}
"""Where each front end shows a notebook."""

# What asks the person something at the first start.
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def address_in(info: Path) -> str:
    """Give the address in a server's file; empty until it is written wholly."""
    try:
        return json.loads(info.read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError):
        return ""


class FrontEnd:
    """A front end's server, started as a person starts it."""

    def __init__(self, module: str, folder: Path, *options: str) -> None:
        self.module = module
        self._options = options
        self._folder = folder
        self.root = folder / "root"
        self.root.mkdir()
        settings = folder / "config" / "labconfig" / "default_setting_overrides.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
        write_jupyter_config(folder / "config")
        self._start()

    def _start(self) -> None:
        module, folder = self.module, self._folder
        # The page then has `jupyterapp`: what the front end knows of its kernel.
        expose = {"jupyterlab": "LabApp", "notebook": "JupyterNotebookApp"}[module]
        command = [sys.executable, "-m", module, "--no-browser", "--allow-root", "--ServerApp.port=0",
                   f"--{expose}.expose_app_in_browser=True", f"--ServerApp.root_dir={self.root}",
                   *self._options]  # fmt: skip
        env = {**os.environ, "JUPYTER_TOKEN": TOKEN, "JUPYTER_CONFIG_DIR": str(folder / "config")}
        self._log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(command, env=env, stderr=self._log)
        info = Path(os.environ["JUPYTER_DATA_DIR"]) / "runtime" / f"jpserver-{self._process.pid}.json"
        self.url: str = wait_until(lambda: address_in(info), f"{module} to write its address")

    def address(self, path: str = "") -> str:
        """Give the address of a page; JupyterLab forgets what other pages had open."""
        return f"{self.url}{path}?reset&token={TOKEN}"

    def write(self, name: str, cells: tuple[str, ...], kernel: str) -> None:
        """Write a notebook that names a kernel."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(cells)],
            metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
        )
        nbformat.write(notebook, self.root / name)

    def restart(self) -> None:
        """End the server and start it again in the same folder."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the server, and with it its kernels."""
        end_server(self._process)
        self._log.close()


@pytest.fixture(scope="package")
def browser():
    """The system's Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser is driven")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("There is no Chromium on this machine: JupyterLab and Notebook 7 are not looked at.")
    with sync_api.sync_playwright() as playwright:
        # A container has neither the rights for Chromium's sandbox nor a large /dev/shm.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=executable, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def front_end(request, kernel_name, browser, tmp_path_factory) -> Iterator[FrontEnd]:
    """The server of the front end that the module, or the parameter, names."""
    module = getattr(request, "param", None) or request.module.FRONT_END
    pytest.importorskip(module, reason=f"{module} is not installed")
    started = FrontEnd(module, tmp_path_factory.mktemp(module))
    yield started
    started.close()


@pytest.fixture
def page(request, browser, front_end):
    """A page of its own; what it shows at the end is kept as a picture."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(STEP * 1000)
    page = context.new_page()
    yield page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    page.screenshot(path=SCREENSHOTS / f"{front_end.module}-{name}.png")
    context.close()


@pytest.fixture
def open_notebook(request, page, front_end, kernel_name):
    """Write a notebook of some cells and open it: `open_notebook("print(1)", …)`."""

    def open_(*cells: str) -> NotebookPage:
        name = f"{request.node.originalname}.ipynb"
        front_end.write(name, cells, kernel_name)
        page.goto(front_end.address(NOTEBOOKS[front_end.module] + name))
        notebook = NotebookPage(page)
        notebook.wait_for_kernel()
        return notebook

    return open_
