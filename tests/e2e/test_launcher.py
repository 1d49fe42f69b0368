"""`codespace-kernel -f FILE`, run as VS Code runs a spec's argv: it wrote the connection file, it owns the ports.

How VS Code goes on from there is in `test_vscode`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.handle import KernelHandle
from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.target import Target
from tests.ports import free_ports

from .clients import execute, text_of
from .conftest import kernels_inside, wait_until

pytestmark = pytest.mark.e2e

NAMES = ("hb_port", "iopub_port", "control_port", "shell_port", "stdin_port")


@pytest.fixture
def connection_file(tmp_path):
    path = tmp_path / "kernel-v3.json"
    info = dict(zip(NAMES, free_ports(5), strict=True))
    info |= {
        "key": "a-uuid",
        "signature_scheme": "hmac-sha256",
        "transport": "tcp",
        "ip": "127.0.0.1",
        "kernel_name": "",
    }
    path.write_text(json.dumps(info))
    return path


@pytest.fixture
def launch(kernel_name, connection_file):
    started = []

    def launch(**env: str) -> subprocess.Popen[str]:
        spec = KernelSpecManager().get_kernel_spec(kernel_name)
        command = [argument.format(connection_file=connection_file) for argument in spec.argv]
        path = spec.env["PATH"].replace("${PATH}", os.environ["PATH"])
        environment = {**os.environ, **spec.env, "PATH": path, **env}
        executable = shutil.which(command[0], path=path)
        process = subprocess.Popen(command, executable=executable, env=environment, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        started.append(process)
        return process

    yield launch
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def no_kernels() -> bool:
    return BrokerClient().call("GET", "kernels")["kernels"] == []


async def test_serves_the_given_ports_until_sigterm(launch, connection_file):
    process = launch()
    info = json.loads(connection_file.read_text())
    wait_until(lambda: accepts(info["shell_port"]) and accepts(info["iopub_port"]), "the ports to accept")
    client = AsyncKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    assert text_of(await execute(client, "print(6 * 7)")) == "42\n"
    client.stop_channels()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    wait_until(no_kernels, "the kernel to end")
    assert not accepts(info["shell_port"])


@pytest.mark.parametrize("patience", [0.0, 0.03, 0.1, 0.3])
def test_a_front_end_that_goes_while_the_kernel_starts_leaves_nothing(account, kernel_name, patience):
    codespace = account.codespace
    target = Target.from_env(KernelSpecManager().get_kernel_spec(kernel_name).env)
    handle = KernelHandle(KernelRequest(target, Access.of(target.account, os.environ), key="k"))
    handle.bound.result(30)
    # Not a wait for something: the moment at which the front end dies.
    time.sleep(patience)
    handle.close()
    wait_until(no_kernels, "the broker to forget the kernel")
    wait_until(lambda: not kernels_inside(codespace), "the codespace's kernel to end")


def last_line(process: subprocess.Popen[str]) -> str:
    process.wait(60)
    return process.stderr.read().strip().splitlines()[-1]


def test_ctrl_c_in_its_terminal_is_not_for_it(launch, connection_file):
    process = launch()
    wait_until(lambda: not no_kernels(), "a kernel")
    process.send_signal(signal.SIGINT)
    wait_until(
        lambda: [k for k in BrokerClient().call("GET", "kernels")["kernels"] if k["state"] == "idle"], "the kernel"
    )
    assert process.poll() is None


@pytest.mark.parametrize(("content", "text"), [("{", "not JSON"), ("{}", "shell_port"), (None, "Cannot read")])
def test_bad_connection_file(launch, connection_file, content, text):
    if content is None:
        connection_file.unlink()
    else:
        connection_file.write_text(content)
    line = last_line(launch())
    assert line.startswith("SettingsError: ")
    assert text in line
