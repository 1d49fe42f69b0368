"""A kernel in the emulated codespace does what a local kernel does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from codespace_kernels.broker.client import BrokerClient

from .clients import execute, reply_to, running_kernel, soon, text_of, until_idle
from .conftest import ended

pytestmark = pytest.mark.e2e


async def test_runs_in_the_codespace(account, kernel_name):
    async with running_kernel(kernel_name) as (_, client):
        messages = await execute(
            client, "import os, sys; print(os.environ['CODESPACE_NAME'], os.getpid(), sys.prefix, os.environ['HOME'])"
        )
    name, pid, prefix, home = text_of(messages).split()
    assert name == account.codespace
    assert int(pid) != os.getpid()
    assert home != os.environ["HOME"]
    assert prefix.startswith(str(Path(home).parent))


async def test_no_secret_of_the_front_end_reaches_the_kernel(kernel_name, monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_THE_LAPTOP", "canary-1")
    async with running_kernel(kernel_name) as (_, client):
        messages = await execute(client, "import os; print('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))")
    assert "canary-1" not in text_of(messages)
    assert os.environ["GH_ENTERPRISE_TOKEN"] not in text_of(messages)


async def test_interrupt(kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        msg_id = client.execute("import time\nprint('running', flush=True)\ntime.sleep(60)")
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        await manager.interrupt_kernel()
        reply = await reply_to(client, msg_id, timeout=30)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        # Until then ipykernel refuses what stands behind a cell that failed.
        await until_idle(client, msg_id)
        assert text_of(await execute(client, "print(1)")) == "1\n"


@pytest.mark.parametrize("policy", ["auto", "required"])
async def test_the_local_ports_are_encrypted_where_the_front_end_wants_it(kernel_name, policy):
    async with running_kernel(kernel_name, transport_encryption=policy) as (manager, client):
        info = manager.get_connection_info()
        assert json.loads(Path(manager.connection_file).read_text())["curve_publickey"] == info["curve_publickey"]
        assert client.curve_publickey == info["curve_publickey"].encode()
        assert text_of(await execute(client, "print(6 * 7)")) == "42\n"
        await manager.restart_kernel()
        await client.wait_for_ready(timeout=30)
        assert manager.get_connection_info() == info
        assert text_of(await execute(client, "print(1)")) == "1\n"


@pytest.mark.parametrize("now", [False, True])
async def test_restart_is_a_fresh_kernel_on_the_same_ports(kernel_name, now):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 1; import os")
        pid = text_of(await execute(client, "print(os.getpid())"))
        ports = manager.get_connection_info()
        await manager.restart_kernel(now=now)
        await client.wait_for_ready(timeout=30)
        assert text_of(await execute(client, "import os; print('x' in globals(), os.getpid())")) not in {
            f"False {pid}",
            "",
        }
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        assert manager.get_connection_info() == ports
        assert await manager.is_alive()


@pytest.mark.parametrize("now", [False, True])
async def test_shutdown_ends_the_remote_process(kernel_name, now):
    async with running_kernel(kernel_name) as (manager, client):
        pid = int(text_of(await execute(client, "import os; print(os.getpid())")))
        await manager.shutdown_kernel(now=now)
        # The emulated codespace's processes are this machine's.
        await soon(lambda: ended(pid), "the process to end")
        assert not await manager.is_alive()
    await soon(lambda: BrokerClient().call("GET", "kernels")["kernels"] == [], "the broker to forget it")


async def test_kernel_that_dies_is_dead(kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        client.execute("import os; os._exit(3)")
        await soon(lambda: not manager.provisioner._handle.alive, "the death to be told")
        assert not await manager.is_alive()


async def test_completion_and_inspection(kernel_name):
    async with running_kernel(kernel_name) as (_, client):
        # By jedi, its cache cold, it may take longer than anybody waits.
        await execute(client, "%config Completer.use_jedi = False\nremarkable_name = 1")
        reply = await reply_to(client, client.complete("remarkable_n", 12))
        assert "remarkable_name" in reply["content"]["matches"]
        reply = await reply_to(client, client.inspect("len", 3))
        assert "number of items" in reply["content"]["data"]["text/plain"]


@pytest.mark.timeout(300)
async def test_burst_of_20000_messages_arrives_whole_and_in_order_three_times(kernel_name):
    code = """
from IPython import get_ipython
kernel = get_ipython().kernel
for i in range(20000):
    content = {'name': 'stdout', 'text': f'{i}\\n'}
    kernel.session.send(kernel.iopub_socket, 'stream', content, parent=kernel.get_parent(), ident=b'stream')
"""
    async with running_kernel(kernel_name) as (_, client):
        for _ in range(3):
            messages = await execute(client, code)
            numbers = [int(m["content"]["text"]) for m in messages if m["msg_type"] == "stream"]
            assert numbers == list(range(20000))


async def test_display_of_50_megabytes_arrives_whole(kernel_name):
    code = """
import base64, hashlib, os
from IPython.display import display
data = os.urandom(37_500_000)
display({'application/octet-stream': base64.b64encode(data).decode()}, raw=True)
print(hashlib.sha256(data).hexdigest())
"""
    import hashlib

    async with running_kernel(kernel_name) as (_, client):
        messages = await execute(client, code)
    (shown,) = [m for m in messages if m["msg_type"] == "display_data"]
    text = shown["content"]["data"]["application/octet-stream"]
    assert len(text) == 50_000_000
    assert hashlib.sha256(base64.b64decode(text)).hexdigest() == text_of(messages).strip()


async def test_eight_kernels_share_one_websocket(account, kernel_name):
    before = account.status()["relay_connections"]
    async with asyncio.TaskGroup() as group:
        done = [group.create_task(_one_of_many(kernel_name, i)) for i in range(8)]
    assert [task.result() for task in done] == [f"{i}\n" for i in range(8)]
    assert account.status()["relay_connections"] == before


async def _one_of_many(kernel_name: str, number: int) -> str:
    async with running_kernel(kernel_name) as (_, client):
        return text_of(await execute(client, f"print({number})"))
