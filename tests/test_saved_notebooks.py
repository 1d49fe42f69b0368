"""What a waiting cell shows is no part of a saved notebook."""

from __future__ import annotations

import asyncio
import json

import pytest
from jupyter_core.paths import jupyter_config_path
from jupyter_server.extension.config import ExtensionConfigManager
from jupyter_server.extension.manager import ExtensionPackage
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager, LargeFileManager

from codespace_kernels import saved_notebooks
from codespace_kernels.saved_notebooks import MARK

LINE = {"output_type": "display_data", "data": {"text/html": "<pre>Starting</pre>"}, "metadata": {MARK: True}}
STREAM = {"output_type": "stream", "name": "stdout", "text": "done"}
SHOWN = {"output_type": "display_data", "data": {"text/html": "<pre>mine</pre>"}, "metadata": {"isolated": True}}


class Server:
    """What the extension needs of one."""

    def __init__(self, contents_manager) -> None:
        self.contents_manager = contents_manager


@pytest.fixture(params=[LargeFileManager, AsyncLargeFileManager])
def contents(request, tmp_path):
    manager = request.param(root_dir=str(tmp_path))
    saved_notebooks._load_jupyter_server_extension(Server(manager))
    return manager


async def save(manager, path: str, **model) -> None:
    saved = manager.save(model, path)
    if asyncio.iscoroutine(saved):
        await saved


def notebook(*outputs: list[dict]) -> dict:
    cells = [
        {"cell_type": "code", "id": f"c{i}", "source": "", "metadata": {}, "execution_count": None, "outputs": shown}
        for i, shown in enumerate(outputs)
    ]
    cells.append({"cell_type": "markdown", "id": "text", "source": "", "metadata": {}})
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


async def test_the_line_is_left_out_and_nothing_else(contents, tmp_path):
    content = notebook([LINE], [STREAM, SHOWN], [], [SHOWN, LINE, STREAM])
    await save(contents, "n.ipynb", type="notebook", content=content)
    cells = json.loads((tmp_path / "n.ipynb").read_text())["cells"]
    kept = [[output["output_type"] for output in cell["outputs"]] for cell in cells[:-1]]
    assert kept == [[], ["stream", "display_data"], [], ["display_data", "stream"]]


async def test_text_that_a_line_came_between_is_one_stream_again(contents, tmp_path):
    def text(name: str, *lines: str) -> dict:
        return {"output_type": "stream", "name": name, "text": list(lines)}

    bar = [text("stdout", "10 %\r"), LINE, {**text("stdout"), "text": "20 %\r"}, LINE, text("stderr", "a\n", "b\n")]
    content = notebook(bar, [text("stdout", "1\n"), text("stdout", "2\n")])
    await save(contents, "n.ipynb", type="notebook", content=content)
    cells = json.loads((tmp_path / "n.ipynb").read_text())["cells"]
    kept = [[(output["name"], "".join(output["text"])) for output in cell["outputs"]] for cell in cells[:2]]
    assert kept == [
        [("stdout", "10 %\r20 %\r"), ("stderr", "a\nb\n")],
        [("stdout", "1\n"), ("stdout", "2\n")],
    ]


async def test_other_files_are_saved_as_they_are(contents, tmp_path, caplog):
    text = json.dumps(notebook([LINE]))
    await save(contents, "n.txt", type="file", format="text", content=text)
    assert (tmp_path / "n.txt").read_text() == text
    assert "failed" not in caplog.text


def test_it_is_enabled_where_the_package_is_installed():
    enabled = ExtensionConfigManager(read_config_path=jupyter_config_path()).get_jpserver_extensions()
    assert enabled.get(saved_notebooks.__name__), "Older than the server extension: `pip install -e .` once more."
    assert ExtensionPackage(name=saved_notebooks.__name__, enabled=True).validate()
