"""Programs that people start kernels with give the same results on the codespace's kernel as on the local one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from codespace_kernels.broker.client import BrokerClient

from .conftest import run, wait_until

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
    return [[dict(o) for o in cell.outputs if "Wall time" not in str(o)] for cell in cells]


def nothing_is_left() -> bool:
    return BrokerClient().call("GET", "kernels")["kernels"] == []


def nbconvert(notebook: Path, kernel: str, target: Path) -> None:
    options = ["--to", "notebook", "--execute", f"--ExecutePreprocessor.kernel_name={kernel}", "--output", str(target)]
    done = run(sys.executable, "-m", "nbconvert", *options, str(notebook))
    assert done.returncode == 0


def papermill(notebook: Path, kernel: str, target: Path) -> None:
    done = run(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", kernel, str(notebook), str(target))
    assert done.returncode == 0


@pytest.mark.parametrize("program", [nbconvert, papermill])
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
    """A Jupyter server as JupyterLab's back end, used by REST and websocket as JupyterLab's page uses it."""

    def __init__(self, folder: Path) -> None:
        self.token = "t" * 16
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--ServerApp.port=0", "--allow-root",
                   f"--ServerApp.root_dir={folder}"]  # fmt: skip
        self.process = subprocess.Popen(
            command, env={**os.environ, "JUPYTER_TOKEN": self.token}, stderr=subprocess.DEVNULL
        )
        runtime = Path(os.environ["JUPYTER_DATA_DIR"]) / "runtime"
        info = runtime / f"jpserver-{self.process.pid}.json"
        wait_until(info.exists, "the server to write its address")
        self.url = json.loads(info.read_text())["url"]
        wait_until(self._answers, "the server to answer")

    def _answers(self) -> bool:
        try:
            return self.request("GET", "api/status") is not None
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

    def execute(self, kernel_id: str, code: str, *, on_busy=None) -> list[dict]:
        """Run code over the kernel's websocket; give what iopub and shell said of it."""
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
                if state == "busy" and on_busy:
                    on_busy()
        return seen

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(kernel_name, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("root"))
    yield server
    server.close()


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

    said = server.execute(kernel_id, "import time; time.sleep(50)", on_busy=interrupt)
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
