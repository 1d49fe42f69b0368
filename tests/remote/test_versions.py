"""Both ends of the range of versions that the remote part promises to run on, and images that cannot be written to."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

from codespace_kernels.bootstrap import ensure_server, install_ipykernel
from codespace_kernels.link.client import LinkClient
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.remote_kernel import KernelState

from .conftest import environment
from .local_connection import LocalConnection
from .recorder import Recorder
from .test_kernels import delete_over_rest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

OLD = [
    "jupyter_server==2.0.6",
    "jupyter_client==7.4.9",
    "jupyter_core==5.1.0",
    "jupyter_events==0.5.0",
    "pyzmq==24.0.1",
    "tornado==6.2",
    "traitlets==5.7.1",
    "ipykernel==6.19.4",
    "ipython==8.7.0",
    "nbconvert==7.2.7",
]


def find_python38() -> str:
    # HOME is the tests' own; pyenv's interpreters are in that of the user.
    pyenv = Path(pwd.getpwuid(os.getuid()).pw_dir, ".pyenv", "versions")
    for candidate in (shutil.which("python3.8"), *map(str, pyenv.glob("3.8*/bin/python3.8"))):
        if candidate and os.access(candidate, os.X_OK):
            done = subprocess.run([candidate, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True)
            if done.stdout == b"(3, 8)\n":
                return candidate
    pytest.skip("no Python 3.8 on this machine")


@pytest.fixture(scope="module")
def old_python() -> str:
    """Python 3.8 with jupyter_server 2.0; made once a machine, as it takes a minute."""
    base = find_python38()
    folder = Path(tempfile.gettempdir()) / f"codespace-kernels-tests-{os.getuid()}" / "jupyter-server-2.0"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([base, "-m", "venv", folder], check=True)
        # The pip of Python 3.8's own days searches for half an hour.
        for packages in (["pip<25.1"], OLD):
            done = subprocess.run(
                [python, "-m", "pip", "install", "-q", "-U", *packages], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"pip cannot install {packages[0]}: {done.stderr[-300:]}")
        (folder / "complete").touch()
    return str(python)


async def check_everything(client: LinkClient) -> None:
    """One kernel's life."""
    recorder = Recorder(await client.start_kernel("python3", env={"A": "b"}))
    request = await recorder.run("import os; print(os.environ['A'])")
    assert recorder.text(request) == "b\n"
    burst = await recorder.run("for i in range(5000): print(i, flush=True)", 60)
    assert recorder.text(burst) == "".join(f"{i}\n" for i in range(5000))
    busy = recorder.request("print('go', flush=True)\nimport time; time.sleep(60)")
    await recorder.until(lambda: recorder.text(busy))
    await recorder.kernel.interrupt()
    await recorder.until(lambda: recorder.is_idle(busy))
    await recorder.kernel.restart()
    assert recorder.text(await recorder.run("print('A' in os.environ if 'os' in globals() else 'new')")) == "new\n"
    recorder.request("import os; os._exit(7)")
    assert "exit code 7" in await recorder.state(KernelState.DEAD)
    await recorder.kernel.restart()
    await recorder.run("pass")
    async with asyncio.timeout(60):
        while (await client.kernels())[0]["execution_state"] != "idle":
            await asyncio.sleep(0.05)
    await delete_over_rest(client, "DELETE", f"api/kernels/{recorder.kernel.kernel_id}")
    await recorder.until(lambda: "somebody else" in recorder.states[-1][1])
    assert await client.kernels() == []


async def test_python_3_8_and_jupyter_server_2_0(fresh_home: Path, old_python: str) -> None:
    connection = LocalConnection(fresh_home, environment(fresh_home, old_python))
    server = await ensure_server(connection, install=False)
    assert server.versions["python_version"].startswith("3.8.")
    assert server.versions["jupyter_server"] == "2.0.6"
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    await check_everything(client)
    await client.close()


async def test_site_packages_that_cannot_be_written(fresh_home: Path) -> None:
    """The newest versions, in a mount namespace in which the whole environment is read-only."""
    folder = sys.prefix
    probe = ["unshare", "--mount", "sh", "-c", f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no read-only mounts for this user")

    class ReadOnly(LocalConnection):
        async def open_command(self, command: str, *, timeout: float = 30.0) -> object:
            script = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && ! touch {folder}/x && "
            inner = f"{script} exec {command}" if command.startswith("sh ") else command
            import shlex

            return await super().open_command(f"unshare --mount sh -c {shlex.quote(inner)} 2>/dev/null")

    connection = ReadOnly(fresh_home, environment(fresh_home))
    server = await ensure_server(connection, install=False)
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    assert server.versions["python"].startswith(folder)
    await check_everything(client)
    await client.close()


async def test_kernels_behind_curve(fresh_home: Path) -> None:
    """A server that encrypts its kernels' sockets: the keys of the connection file are used."""
    workspace = environment(fresh_home)
    (fresh_home / "config" / "jupyter_config.json").write_text(
        '{"MappingKernelManager": {"transport_encryption": "auto"}}'
    )
    connection = LocalConnection(fresh_home, workspace)
    server = await ensure_server(connection, install=False)
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    files = list((fresh_home / "jupyter").rglob("kernel-*.json")) + list(fresh_home.rglob("kernel-*.json"))
    if not any("curve_publickey" in file.read_text() for file in files):
        pytest.skip("this jupyter_client or ipykernel does not encrypt")
    assert recorder.text(await recorder.run("print('sealed')")) == "sealed\n"
    await client.close()


def need_pip_and_registry(folder: Path) -> str:
    """A Python without Jupyter and with pip that reaches a registry."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    done = subprocess.run(
        [python, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "comm"], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"pip reaches no registry: {done.stderr.decode()[-200:]}")
    return python


async def test_a_server_is_installed_where_there_is_none(fresh_home: Path, tmp_path: Path) -> None:
    python = need_pip_and_registry(tmp_path / "bare")
    cache = os.environ.get("PIP_CACHE_DIR")
    connection = LocalConnection(fresh_home, {**environment(fresh_home, python), "PIP_CACHE_DIR": cache})
    events: list[ProgressEvent] = []
    server = await ensure_server(connection, events.append, timeout=600)
    assert "install" in [event.stage for event in events]
    assert server.python.startswith(str(fresh_home))
    client = LinkClient()
    await client.attach(await server.open_link(connection))
    recorder = Recorder(await client.start_kernel("python3"))
    prefix = recorder.text(await recorder.run("import sys; print(sys.prefix)")).strip()
    assert prefix == str(fresh_home / ".local/share/codespace-kernels/env")
    # The user's own environment was only offered, not touched, and becomes a kernel when somebody says so.
    assert str(tmp_path / "bare") in [offer["prefix"] for offer in server.offers]
    assert subprocess.run([python, "-c", "import ipykernel"], capture_output=True).returncode
    await install_ipykernel(connection, python)
    specs = await client.kernelspecs()
    assert specs["bare"].display_name == "Python (bare)"
    recorder = Recorder(await client.start_kernel("bare"))
    prefix = recorder.text(await recorder.run("import sys; print(sys.prefix)")).strip()
    assert prefix == str(tmp_path / "bare")
    await client.close()
