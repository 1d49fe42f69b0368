"""Programs that people start kernels with give the same results on the codespace's kernel as on the local one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from codespace_kernels.broker.client import BrokerClient
from tests.ports import free_port

from .conftest import REPOSITORY, SCREENSHOTS, end_server, run, wait_until

pytestmark = pytest.mark.e2e

CELLS = [
    "import sys\nprint(6 * 7)",
    "x = [i ** 2 for i in range(5)]\nx",
    "from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b>'))",
    "print('to stderr', file=sys.stderr)",
    "%time 1 + 1;\nsum(x)",
    "{'key': 'äöü ✓'}",
]


@pytest.fixture
def notebook(tmp_path) -> Path:
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(CELLS)]
    path = tmp_path / "in.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def outputs_of(path: Path) -> list[list[dict]]:
    """Outputs without what differs from run to run."""
    cells = nbformat.read(path, 4).cells
    return [[output for output in joined(cell.outputs) if "Wall time" not in str(output)] for cell in cells]


def joined(outputs: list[dict]) -> list[dict]:
    """Outputs in which a text is one that a kernel, local or not, happened to flush in the middle."""
    whole: list[dict] = []
    for output in map(dict, outputs):
        if whole and "name" in output and whole[-1].get("name") == output["name"]:
            whole[-1]["text"] += output["text"]
        else:
            whole.append(output)
    return whole


def nothing_is_left() -> bool:
    return BrokerClient().call("GET", "kernels")["kernels"] == []


def nbconvert(notebook: Path, kernel: str, target: Path) -> None:
    options = ["--to", "notebook", "--execute", f"--ExecutePreprocessor.kernel_name={kernel}", "--output", str(target)]
    done = run(sys.executable, "-m", "nbconvert", *options, str(notebook))
    assert done.returncode == 0


def nbclient(notebook: Path, kernel: str, target: Path) -> None:
    from nbclient import NotebookClient

    content = nbformat.read(notebook, 4)
    NotebookClient(content, kernel_name=kernel, timeout=60).execute()
    nbformat.write(content, target)


def nbmake(notebook: Path, kernel: str, target: Path) -> None:
    pytest.importorskip("nbmake", reason="nbmake is not installed")
    shutil.copyfile(notebook, target)
    done = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "--overwrite",
               f"--nbmake-kernel={kernel}", str(target), cwd=target.parent)  # fmt: skip
    assert done.returncode == 0


def papermill(notebook: Path, kernel: str, target: Path) -> None:
    done = run(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", kernel, str(notebook), str(target))
    assert done.returncode == 0


@pytest.mark.parametrize("program", [nbconvert, nbclient, papermill, nbmake])
def test_same_results_as_the_local_kernel(program, notebook, kernel_name, tmp_path):
    local, remote = tmp_path / "local.ipynb", tmp_path / "remote.ipynb"
    program(notebook, "python3", local)
    program(notebook, kernel_name, remote)
    assert outputs_of(remote) == outputs_of(local)
    assert any(outputs_of(remote))
    wait_until(nothing_is_left, "the kernel to end")


def test_jupyter_console(kernel_name):
    done = run(sys.executable, "-m", "jupyter_console", "--kernel", kernel_name, "--simple-prompt",
               "--ZMQTerminalInteractiveShell.include_other_output=False", input="print(6 * 7)\nexit\n")  # fmt: skip
    assert "42" in done.stdout
    wait_until(nothing_is_left, "the kernel to end")


def test_qtconsole(kernel_name, account):
    needed = run(sys.executable, "-c", "import qtconsole, PySide6.QtWidgets, PySide6.QtTest")
    if needed.returncode != 0:
        pytest.skip(f"qtconsole is not run: {needed.stderr.strip().splitlines()[-1]}")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    done = run(sys.executable, "-m", "tests.e2e.qtconsole_session", kernel_name, str(SCREENSHOTS / "qtconsole.png"),
               cwd=REPOSITORY, env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "QT_API": "pyside6"})  # fmt: skip
    assert done.returncode == 0
    shown = json.loads(done.stdout.splitlines()[-1])
    assert f"\nin {account.codespace}\n" in shown["output"]
    assert "Hello Mona" in shown["answer"]
    assert "remarkable" in shown["completion"]
    assert "KeyboardInterrupt" in shown["interrupt"]
    assert "\ufffc" in shown["plot"]  # stands for the picture
    assert "here: False" in shown["restart"]
    wait_until(nothing_is_left, "the kernel to end")


def test_jupyter_run(kernel_name, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print(6 * 7)")
    done = run(sys.executable, "-m", "jupyter", "run", "--kernel", kernel_name, str(script))
    assert done.stdout.strip().endswith("42")
    wait_until(nothing_is_left, "the kernel to end")


def test_ctrl_c_in_the_front_ends_terminal_leaves_the_broker(kernel_name, tmp_path):
    pid = BrokerClient().call("GET", "")["pid"]
    script = "import time; print('up', flush=True); time.sleep(60)"
    code = f"from jupyter_client.manager import start_new_kernel as s; m, c = s(kernel_name={kernel_name!r}); {script}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    process.stdout.close()
    wait_until(nothing_is_left, "the kernel to end with its front end")
    assert BrokerClient().call("GET", "")["pid"] == pid


class Server:
    """A server with Jupyter's REST and websockets, used as JupyterLab's page uses it."""

    def __init__(self, url: str, *command: str, **env: str) -> None:
        self.token = "t" * 16
        self.url = url
        command = (sys.executable, "-m", *command)
        self.process = subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, "the server to answer")

    def _answers(self) -> bool:
        try:
            return self.request("GET", "api") is not None
        except OSError:
            return False

    def request(self, method: str, path: str, body: object = None):
        """Make a request; give status and JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Authorization": f"token {self.token}"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def execute(self, kernel_id: str, code: str, *, on_output=None) -> list[dict]:
        """Run code over the kernel's websocket; give what iopub and shell said of it.

        `on_output` is called when the code prints: only then it is known to run, and not still to be prepared.
        """
        from websockets.sync.client import connect

        url = self.url.replace("http", "ws", 1) + f"api/kernels/{kernel_id}/channels?session_id=s1"
        header = {
            "msg_id": "m1",
            "msg_type": "execute_request",
            "username": "",
            "session": "s1",
            "date": "",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        seen: list[dict] = []
        with connect(url, additional_headers={"Authorization": f"token {self.token}"}, max_size=None) as socket:
            socket.send(json.dumps(request))
            deadline = time.monotonic() + 60
            while not {"reply", "idle"} <= {m["kind"] for m in seen}:
                message = json.loads(socket.recv(timeout=max(0.1, deadline - time.monotonic())))
                if message["parent_header"].get("msg_id") != "m1":
                    continue
                state = message["content"].get("execution_state") if message["msg_type"] == "status" else None
                message["kind"] = "reply" if message["msg_type"] == "execute_reply" else state or message["msg_type"]
                seen.append(message)
                if message["kind"] == "stream" and on_output:
                    on_output()
        return seen

    def close(self) -> None:
        end_server(self.process)


def start_jupyter_server(root: Path, *more: str) -> Server:
    """Start JupyterLab's back end, with notebooks in this folder and these options."""
    port = free_port()
    options = ("--no-browser", "--allow-root", f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}", *more)
    started = Server(f"http://127.0.0.1:{port}/", "jupyter_server", *options, JUPYTER_TOKEN="t" * 16)
    started.wait()
    return started


@pytest.fixture(scope="module")
def server(kernel_name, tmp_path_factory):
    """JupyterLab's back end."""
    started = start_jupyter_server(tmp_path_factory.mktemp("root"))
    yield started
    started.close()


@pytest.fixture
def gateway(kernel_name):
    """`jupyter kernelgateway`, whose only kernel is the codespace's."""
    pytest.importorskip("kernel_gateway", reason="jupyter_kernel_gateway is not installed")
    port = free_port()
    options = (f"--KernelGatewayApp.port={port}", "--KernelGatewayApp.port_retries=0",
               f"--KernelGatewayApp.force_kernel_name={kernel_name}")  # fmt: skip
    started = Server(f"http://127.0.0.1:{port}/", "kernel_gateway", *options, KG_AUTH_TOKEN="t" * 16)
    started.wait()
    yield started
    started.close()


def test_kernel_gateway_serves_the_kernel_to_a_remote_client(gateway, account):
    status, kernel = gateway.request("POST", "api/kernels", {})
    assert status == 201, kernel
    said = gateway.execute(kernel["id"], "import os; print(os.environ['CODESPACE_NAME'])")
    assert [m["content"]["text"] for m in said if m["kind"] == "stream"] == [f"{account.codespace}\n"]
    assert gateway.request("DELETE", f"api/kernels/{kernel['id']}")[0] == 204
    wait_until(nothing_is_left, "the kernel to end")


def test_jupyterlabs_own_requests(server, kernel_name):
    _, specs = server.request("GET", "api/kernelspecs")
    assert (
        specs["kernelspecs"][kernel_name]["spec"]["display_name"] == "Python 3 · octocat/hello-codespaces (codespace)"
    )

    body = {"name": "n.ipynb", "path": "n.ipynb", "type": "notebook", "kernel": {"name": kernel_name}}
    status, session = server.request("POST", "api/sessions", body)
    assert status == 201, session
    kernel_id = session["kernel"]["id"]

    said = server.execute(kernel_id, "import os; print(os.environ['JPY_SESSION_NAME']); x = 1")
    assert any("n.ipynb" in m["content"].get("text", "") for m in said)

    def interrupt():
        assert server.request("POST", f"api/kernels/{kernel_id}/interrupt")[0] == 204

    said = server.execute(kernel_id, "import time; print('up', flush=True); time.sleep(50)", on_output=interrupt)
    (reply,) = [m for m in said if m["kind"] == "reply"]
    assert reply["content"]["ename"] == "KeyboardInterrupt"

    assert server.request("POST", f"api/kernels/{kernel_id}/restart")[0] == 200
    said = server.execute(kernel_id, "print('x' in globals())")
    assert [m["content"]["text"] for m in said if m["kind"] == "stream"] == ["False\n"]

    assert server.request("DELETE", f"api/sessions/{session['id']}")[0] == 204
    wait_until(nothing_is_left, "the kernel to end")


def test_a_kernel_that_cannot_start_says_why_in_one_sentence(server, account, kernel_name):
    from codespace_kernels import kernelspecs

    folder = kernelspecs.kernels_dir() / kernel_name
    other = folder.with_name("cs-gone")
    spec = json.loads((folder / "kernel.json").read_text())
    spec["env"]["CODESPACE_KERNELS_KERNEL"] = "julia"
    other.mkdir()
    (other / "kernel.json").write_text(json.dumps(spec))
    try:
        body = {"name": "g.ipynb", "path": "g.ipynb", "type": "notebook", "kernel": {"name": "cs-gone"}}
        status, answer = server.request("POST", "api/sessions", body)
    finally:
        (other / "kernel.json").unlink()
        other.rmdir()
    assert status == 500
    assert "julia" in answer["message"]
    assert "python3" in answer["message"]
    assert nothing_is_left()
