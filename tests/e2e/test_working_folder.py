"""A kernel starts where its notebook stands, in the codespace's clone of the same repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .clients import execute, running_kernel, text_of
from .test_front_ends import start_jupyter_server
from .vscode import VSCodeKernel, find_specs

pytestmark = pytest.mark.e2e

WHERE = "import os; print(os.getcwd(), os.environ['CODESPACE_VSCODE_FOLDER'])"


@pytest.fixture
def clone(tmp_path):
    """A local clone of the codespace's repository, with a folder that the codespace has, and one that it has not."""
    address = "https://github.com/octocat/hello-codespaces.git"
    for arguments in (["init", "-q", "."], ["remote", "add", "origin", address]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    for name in ("data", "drafts"):
        (tmp_path / name).mkdir()
    return tmp_path


async def folder_of_kernel(kernel_name, **kwargs) -> str:
    """Where a kernel runs, relative to the codespace's clone."""
    async with running_kernel(kernel_name, **kwargs) as (_, client):
        here, root = text_of(await execute(client, WHERE)).split()
    return str(Path(here).relative_to(root))


async def test_same_folder_of_the_same_repository(kernel_name, clone):
    assert await folder_of_kernel(kernel_name, cwd=str(clone / "data")) == "data"


async def test_notebooks_path_goes_before_the_front_ends_folder(kernel_name, clone, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(clone / "data" / "n.ipynb"))
    assert await folder_of_kernel(kernel_name, cwd=str(clone)) == "data"


async def test_root_where_the_codespace_lacks_the_folder(kernel_name, clone):
    assert await folder_of_kernel(kernel_name, cwd=str(clone / "drafts")) == "."


@pytest.mark.parametrize("address", ["git@github.com:octocat/other.git", "git@gitlab.com:octocat/hello-codespaces.git"])
async def test_root_where_the_repository_is_another_one(kernel_name, clone, address):
    subprocess.run(["git", "remote", "set-url", "origin", address], cwd=clone, check=True)
    assert await folder_of_kernel(kernel_name, cwd=str(clone / "data")) == "."


async def test_same_folder_in_the_clone_of_a_fork(kernel_name, clone):
    for arguments in (["rename", "origin", "upstream"], ["add", "origin", "git@github.com:mona/hello-codespaces.git"]):
        subprocess.run(["git", "remote", *arguments], cwd=clone, check=True)
    assert await folder_of_kernel(kernel_name, cwd=str(clone / "data")) == "data"


@pytest.fixture
def server(kernel_name, clone):
    """JupyterLab's back end; its folder is the clone."""
    started = start_jupyter_server(clone)
    yield started
    started.close()


def test_jupyterlabs_notebook_starts_where_it_stands(server, kernel_name):
    body = {"name": "n.ipynb", "path": "data/n.ipynb", "type": "notebook", "kernel": {"name": kernel_name}}
    status, session = server.request("POST", "api/sessions", body)
    assert status == 201, session
    (said,) = [m for m in server.execute(session["kernel"]["id"], WHERE) if m["kind"] == "stream"]
    here, root = said["content"]["text"].split()
    assert str(Path(here).relative_to(root)) == "data"
    assert server.request("DELETE", f"api/sessions/{session['id']}")[0] == 204


def test_vscodes_notebook_starts_where_it_stands(kernel_name, clone):
    kernel = VSCodeKernel(find_specs()[kernel_name], clone / "data" / "n.ipynb")
    try:
        here, root = kernel.start().execute(WHERE).text.split()
        kernel.stop()
    finally:
        kernel.end()
    assert str(Path(here).relative_to(root)) == "data"


async def test_it_stays_after_a_restart(kernel_name, clone):
    async with running_kernel(kernel_name, cwd=str(clone / "data")) as (manager, client):
        await manager.restart_kernel()
        await client.wait_for_ready(timeout=30)
        here, root = text_of(await execute(client, WHERE)).split()
    assert str(Path(here).relative_to(root)) == "data"
