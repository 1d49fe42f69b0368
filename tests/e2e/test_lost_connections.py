"""Connections that break in each way, under a cell that prints numbers: nothing is lost, and what is amiss is told."""

from __future__ import annotations

import asyncio
import json
import queue
import time

import nbformat
import pytest
from jupyter_client.multikernelmanager import AsyncMultiKernelManager
from nbclient import NotebookClient

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record

from .clients import WAIT, connected, soon
from .conftest import broker_kernels, cli

pytestmark = pytest.mark.e2e


@pytest.fixture
def control(account):
    """The emulator; it is well again afterwards."""
    client = ControlClient(find_record(account.environment["GITHUB_API_URL"]))
    yield client
    client.clear_faults(None, None)


class CountingCell:
    """A cell that prints numbers until a file is there.

    Attributes:
        numbers: What it printed so far.
        shown: What its display of ours showed, one state after the other.
        told: What was written to its stderr.
    """

    def __init__(self, client, flag) -> None:
        self.numbers: list[int] = []
        self.shown: list[str] = []
        self.told: list[str] = []
        self._client = client
        self._flag = flag
        self._ended = False
        self._request = client.execute(counting_until(flag))

    async def until(self, condition, what: str) -> None:
        """Take what comes until a condition holds."""
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}: {self.numbers[-3:]}, {self.shown}, {self.told}"
            try:
                self._take(await self._client.get_iopub_msg(timeout=0.2))
            except queue.Empty:
                continue

    def _take(self, message: dict) -> None:
        content, kind = message["content"], message["msg_type"]
        if message["parent_header"].get("msg_id") != self._request:
            return
        if kind == "stream" and content["name"] == "stdout":
            self.numbers += map(int, content["text"].split())
        elif kind == "stream":
            self.told.append(content["text"])
        elif "display" in kind:
            self.shown.append(content["data"].get("text/html", ""))
        self._ended |= content.get("execution_state") == "idle"

    async def goes_on(self) -> None:
        """Wait until more comes than was there."""
        before = len(self.numbers)
        await self.until(lambda: len(self.numbers) > before + 3, "more numbers")

    async def end(self) -> None:
        """Have it end; nothing may be missing, doubled or out of order."""
        self._flag.touch()
        await self.until(lambda: self._ended, "the end")
        assert self.numbers == list(range(len(self.numbers)))


def counting_until(flag) -> str:
    code = f"import os, time\ni = 0\nwhile not os.path.exists({str(flag)!r}):\n"
    return code + "    print(i, flush=True)\n    i += 1\n    time.sleep(0.05)"


@pytest.fixture
async def cell(kernel_name, tmp_path):
    """As JupyterLab runs it: its kernels belong to a manager of many."""
    manager = AsyncMultiKernelManager()
    kernel_id = await manager.start_kernel(kernel_name=kernel_name)
    async with connected(manager.get_kernel(kernel_id)) as client:
        cell = CountingCell(client, tmp_path / "flag")
        await cell.goes_on()
        yield cell
    # A kernel that died is restarted, and a manager that is told to end it meanwhile raises an error.
    await soon(lambda: manager.get_kernel(kernel_id).ready.done(), "the kernel's restart")
    await manager.shutdown_kernel(kernel_id, now=True)


def connection() -> dict:
    """What `status` says of the codespace."""
    sessions = json.loads(cli("status", "--json").stdout)["workspaces"]
    (session,) = [session for session in sessions if session["state"] != "not connected"]
    return session


async def test_a_long_loss_is_shown_where_it_can_be_taken_away_and_nowhere_else(cell, control, kernel_name, tmp_path):
    flag = tmp_path / "flag of nbclient"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(counting_until(flag))])
    executed = asyncio.create_task(NotebookClient(notebook, kernel_name=kernel_name, timeout=WAIT).async_execute())
    (code,) = notebook.cells
    await soon(lambda: code.get("outputs"), "nbclient's first output")
    control.set_fault("api-down", None, {})
    control.set_fault("relay-refusal", None, {})
    control.set_fault("relay-drop", None, {})
    await cell.until(lambda: len(cell.shown) > 1, "the line")
    assert "Reconnecting to octocat/hello-codespaces · " in cell.shown[0]
    now = await asyncio.to_thread(connection)
    assert now["state"] == "reconnecting"
    assert now["reconnecting"]["tries"] > 0
    control.clear_faults(None, None)
    await cell.goes_on()
    assert cell.shown[-1] == ""
    await cell.end()
    flag.touch()
    await asyncio.wait_for(executed, WAIT)
    assert {output.get("name") for output in code["outputs"]} == {"stdout"}
    numbers = [int(line) for output in code["outputs"] for line in output["text"].split()]
    assert numbers == list(range(len(numbers)))


async def test_a_black_hole_that_is_short_is_sat_out(cell, control, account):
    before = account.status()["relay_connections"]
    control.set_fault("relay-blackhole", None, {"seconds": 2})
    await cell.goes_on()
    await cell.end()
    assert cell.shown == []
    assert account.status()["relay_connections"] == before


@pytest.mark.parametrize("fault", ["relay-half-open", "sshd-down"])
async def test_a_way_that_dies_is_replaced_and_nothing_is_lost(cell, control, account, fault):
    before = account.status()["relay_connections"]
    control.set_fault(fault, None, {})
    if fault == "sshd-down":
        await soon(lambda: broker_kernels()[0]["state"] == "reconnecting", "the loss to be seen")
        control.clear_faults(fault, None)
    await soon(lambda: account.status()["relay_connections"] > before, "another way")
    await cell.goes_on()
    await cell.end()
    assert cell.told == []


async def test_a_live_connection_does_not_care_for_the_api_and_its_tokens(cell, control, account):
    before = account.status()["relay_connections"]
    control.set_fault("api-down", None, {"how": "hang", "tunnels": 1})
    control.set_fault("token-expired", None, {"which": "old"})
    await cell.goes_on()
    assert account.status()["relay_connections"] == before
    control.clear_faults("api-down", None)
    control.set_fault("relay-drop", None, {})
    await soon(lambda: account.status()["relay_connections"] > before, "a connection by fresh tokens")
    await cell.goes_on()
    await cell.end()


async def test_kernels_that_ended_with_their_server_say_so(cell, control):
    control.set_fault("signal", None, {"which": "server"})
    await cell.until(lambda: cell.told, "the reason")
    assert "The workspace's Jupyter server was started anew, and the kernel ended" in cell.told[0]
    assert BrokerClient().call("GET", "kernels")["kernels"][0]["state"] == "dead"
