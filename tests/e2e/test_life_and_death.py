"""Restart and death of a kernel end as with a local kernel, and the notebook is told why."""

from __future__ import annotations

import asyncio

import pytest

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record

from .clients import execute, running_kernel, soon, text_of
from .conftest import kernels_inside

pytestmark = pytest.mark.e2e


def state_of_the_kernel() -> str:
    (kernel,) = BrokerClient().call("GET", "kernels")["kernels"]
    return kernel["state"]


@pytest.fixture(scope="module")
def codespace(account):
    return account.codespace


@pytest.fixture
def control(account):
    """The emulator, asked in this process; it is well again afterwards."""
    client = ControlClient(find_record(account.environment["GITHUB_API_URL"]))
    yield client
    client.clear_faults(None, None)


@pytest.mark.parametrize("now", [False, True])
async def test_a_dead_kernel_is_restarted(codespace, kernel_name, now):
    async with running_kernel(kernel_name) as (manager, client):
        assert text_of(await execute(client, "x = 1; print(x)")) == "1\n"
        client.execute("import os; os._exit(3)")
        await soon(lambda: not manager.provisioner._handle.alive, "the death to be told")
        await manager.restart_kernel(now=now)
        assert await manager.is_alive()
        await client.wait_for_ready(timeout=60)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        assert len(kernels_inside(codespace)) == 1
    await soon(lambda: kernels_inside(codespace) == [], "the kernel to end")


async def test_a_restart_while_the_connection_is_lost_is_a_fresh_kernel_once_it_is_back(
    codespace, control, kernel_name
):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 1")
        (old,) = kernels_inside(codespace)
        control.set_fault("server-error", None, {})
        control.set_fault("relay-drop", None, {})
        await soon(lambda: state_of_the_kernel() == "reconnecting", "the loss to be seen")
        await asyncio.wait_for(manager.restart_kernel(), 60)
        assert state_of_the_kernel() == "waiting"
        assert await manager.is_alive()
        await client.wait_for_ready(timeout=60)
        control.clear_faults(None, None)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        await soon(lambda: old not in kernels_inside(codespace), "the old kernel to end")
        assert len(kernels_inside(codespace)) == 1


async def test_a_restart_that_the_connection_breaks_under(codespace, control, kernel_name):
    async with running_kernel(kernel_name) as (manager, client):
        await execute(client, "x = 1")
        control.set_fault("server-error", None, {})
        control.set_fault("relay-blackhole", None, {})
        restart = asyncio.create_task(manager.restart_kernel(now=True))
        done, _ = await asyncio.wait({restart}, timeout=1)
        assert not done
        control.set_fault("relay-drop", None, {})
        await asyncio.wait_for(restart, 60)
        assert state_of_the_kernel() == "waiting"
        control.clear_faults(None, None)
        assert text_of(await execute(client, "print('x' in globals())")) == "False\n"
        await soon(lambda: len(kernels_inside(codespace)) == 1, "the old kernel to end")
