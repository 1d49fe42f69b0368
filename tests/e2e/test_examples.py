"""What stands in `examples/` does what it says."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
import pytest

from .conftest import run, wait_until

pytestmark = pytest.mark.e2e

TOKEN = "t" * 16
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_notebook_tells_where_it_runs(kernel_name, account, tmp_path):
    target = tmp_path / "output.ipynb"
    notebook = EXAMPLES / "hello-codespace.ipynb"
    done = run(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", kernel_name, str(notebook), str(target))
    assert done.returncode == 0
    text = "".join(output.text for cell in nbformat.read(target, 4).cells for output in cell.get("outputs", []))
    assert f"Codespace       {account.codespace}\n" in text
    assert "Host name       codespaces-" in text
    assert "Sum of squares  332,833,500\n" in text


def test_notebook_is_kept_without_outputs():
    for path in EXAMPLES.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
        assert notebook.metadata.kernelspec.name == "python3"


@pytest.fixture
def server(kernel_name, tmp_path):
    """A Jupyter server with the example's configuration: its address."""
    config = EXAMPLES / "jupyter_server_config.py"
    command = [sys.executable, "-m", "jupyter_server", "--config", str(config), "--no-browser", "--allow-root",
               "--ServerApp.port=0", f"--ServerApp.root_dir={tmp_path}"]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "JUPYTER_TOKEN": TOKEN}, stderr=subprocess.DEVNULL)
    with process:
        info = Path(os.environ["JUPYTER_DATA_DIR"], "runtime", f"jpserver-{process.pid}.json")
        wait_until(lambda: answers(info), "the server to answer")
        yield json.loads(info.read_text())["url"]
        process.terminate()


def answers(info: Path) -> bool:
    try:
        return bool(request(json.loads(info.read_text())["url"] + "api/status"))
    except (OSError, ValueError):
        return False


def request(address: str, method: str = "GET", body: object = None):
    data = None if body is None else json.dumps(body).encode()
    wanted = urllib.request.Request(address, data, {"Authorization": f"token {TOKEN}"}, method=method)
    with urllib.request.urlopen(wanted, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def test_server_configuration(server, kernel_name, account):
    assert request(f"{server}api/kernelspecs")["default"] == kernel_name
    kernel = request(f"{server}api/kernels", "POST", {})
    assert kernel["name"] == kernel_name
    held = run(sys.executable, "-m", "codespace_kernels.cli", "status", "--json")
    assert [entry["workspace"] for entry in json.loads(held.stdout)["kernels"]] == [account.codespace]
    request(f"{server}api/kernels/{kernel['id']}", "DELETE")
    wait_until(lambda: request(f"{server}api/kernels") == [], "the kernel to end")
