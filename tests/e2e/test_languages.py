"""Kernels of other languages than Python, installed in the codespace by their own installers."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import run_kernel

from codespace_kernels.target import Target

from .clients import execute, reply_to, running_kernel, text_of, until_idle
from .conftest import WAIT, cli
from .vscode import VSCodeKernel, find_specs

pytestmark = pytest.mark.e2e

BASH = (
    "import subprocess, sys; subprocess.run([sys.executable, '-m', 'bash_kernel.install', '--sys-prefix'], check=True)"
)
R = """
import subprocess, sys
subprocess.run(["R", "--slave", "-e", f"IRkernel::installspec(prefix='{sys.prefix}')"], check=True)
"""
REMOVE = """
import pathlib, shutil, sys
for name in ("bash", "ir"):
    shutil.rmtree(pathlib.Path(sys.prefix, "share", "jupyter", "kernels", name), ignore_errors=True)
"""


def has_r_kernel() -> bool:
    """Whether R's kernel is installed on this machine, which is the codespace's."""
    try:
        return subprocess.run(["R", "--slave", "-e", "loadNamespace('IRkernel')"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def run_inside(kernel_name: str, *programs: str) -> None:
    """Run Python in the codespace, as a person does who has nothing but a notebook."""
    with run_kernel(kernel_name=kernel_name) as client:
        for program in programs:
            reply = client.execute_interactive(program, timeout=WAIT, output_hook=print)
            assert reply["content"]["status"] == "ok"


@pytest.fixture(scope="module")
def specs(account, kernel_name):
    """The codespace's kernelspecs here by their names there, those of other languages among them."""
    installed = {"bash": importlib.util.find_spec("bash_kernel") is not None, "ir": has_r_kernel()}
    run_inside(kernel_name, *[{"bash": BASH, "ir": R}[name] for name, there in installed.items() if there])
    done = cli("connect", account.codespace, "--json")
    assert done.returncode == 0
    yield {spec["kernel"]: spec["name"] for spec in json.loads(done.stdout)["kernelspecs"]}
    run_inside(kernel_name, REMOVE)
    assert cli("connect", account.codespace).returncode == 0


@pytest.fixture
def bash_kernel(specs):
    """Name of the kernelspec of Bash."""
    if "bash" not in specs:
        pytest.skip("bash_kernel is not installed: no kernel of Bash is run.")
    return specs["bash"]


@pytest.fixture
def r_kernel(specs):
    """Name of the kernelspec of R."""
    if "ir" not in specs:
        pytest.skip("R or its package IRkernel is not installed (Debian: r-base-core, r-cran-irkernel): no R is run.")
    return specs["ir"]


async def test_bash(bash_kernel, account):
    spec = KernelSpecManager().get_kernel_spec(bash_kernel)
    assert spec.language == "bash"
    assert spec.display_name == "Bash · octocat/hello-codespaces (codespace)"
    assert Target.from_env(spec.env).kernel == "bash"
    async with running_kernel(bash_kernel) as (_, client):
        info = await reply_to(client, client.kernel_info())
        assert info["content"]["language_info"]["name"] == "bash"
        messages = await execute(client, f"echo {shlex.quote('äöü ✓')}; echo $CODESPACE_NAME; pwd")
    words, name, folder = text_of(messages).split("\n")[:3]
    assert (words, name) == ("äöü ✓", account.codespace)
    assert Path(folder).name == "hello-codespaces"


def test_kernelspec_of_r(r_kernel):
    spec = KernelSpecManager().get_kernel_spec(r_kernel)
    assert (spec.language, spec.display_name) == ("R", "R · octocat/hello-codespaces (codespace)")
    assert Target.from_env(spec.env).kernel == "ir"
    # Its own is a signal's, which cannot be sent from here.
    assert spec.interrupt_mode == "message"
    assert list(Path(spec.resource_dir).glob("logo-*"))


async def test_r(r_kernel, account):
    async with running_kernel(r_kernel) as (manager, client):
        info = await reply_to(client, client.kernel_info())
        assert info["content"]["language_info"]["name"] == "R"
        messages = await execute(client, 'cat("äöü ✓", Sys.getenv("CODESPACE_NAME"), basename(getwd()))')
        assert text_of(messages) == f"äöü ✓ {account.codespace} hello-codespaces"

        messages = await execute(client, 'f <- function(x) stop("on purpose")\nf(1)')
        (error,) = [m["content"] for m in messages if m["msg_type"] == "error"]
        assert "on purpose" in error["evalue"]
        assert any("f(1)" in line for line in error["traceback"])

        reply = await reply_to(client, client.complete("Sys.gete", 8))
        assert reply["content"]["matches"] == ["Sys.getenv"]
        reply = await reply_to(client, client.inspect("mean", 4))
        assert "Arithmetic Mean" in reply["content"]["data"]["text/html"]

        (shown,) = [m for m in await execute(client, "plot(1:3)") if m["msg_type"] == "display_data"]
        assert shown["content"]["data"]["image/png"]

        asked = client.execute('name <- readline("name? "); cat("Hello", name)', allow_stdin=True)
        assert (await client.get_stdin_msg(timeout=WAIT))["content"]["prompt"] == "name? "
        client.input("Mona")
        assert text_of(await until_idle(client, asked)).endswith("Hello Mona")

        busy = client.execute('cat("running")\nSys.sleep(600)\ncat("not reached")')
        while (await client.get_iopub_msg(timeout=WAIT))["msg_type"] != "stream":
            pass
        await manager.interrupt_kernel()
        # IRkernel's own word; it sends no error.
        assert (await reply_to(client, busy))["content"]["status"] == "abort"
        assert text_of(await until_idle(client, busy)) == ""
        assert text_of(await execute(client, "cat(6 * 7)")) == "42"


def test_r_in_vscode(r_kernel, tmp_path):
    """As VS Code runs it: `language` as in the remote spec, and none of the code that it runs for Python."""
    spec = find_specs()[r_kernel]
    assert (spec.content["language"], spec.is_python) == ("R", False)
    kernel = VSCodeKernel(spec, tmp_path / "r.ipynb")
    try:
        kernel.wait_for_ports()
        # R answers on shell only, which is enough.
        info = kernel.wire.reply(kernel.shake_hands()[0])
        assert info.content["language_info"]["name"] == "R"
        assert kernel.execute("cat(6 * 7)").text == "42"
        asked = kernel.wire.send("shell", "complete_request", {"code": "Sys.gete", "cursor_pos": 8})
        assert kernel.wire.reply(asked).content["matches"] == ["Sys.getenv"]
        kernel.stop()
    finally:
        kernel.end()
