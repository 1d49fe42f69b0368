"""What the running cell shows while the way to its kernel is lost, as a client sees it."""

from __future__ import annotations

import asyncio

import nbformat
import pytest

from codespace_kernels.bridge import KernelBridge, lost_way
from codespace_kernels.messages import Channel
from codespace_kernels.remote_kernel import KernelState
from codespace_kernels.saved_notebooks import MARK
from tests.bridge.conftest import KEY, subscribed, until
from tests.bridge.memory_kernel import MemoryKernel, make_message


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(lost_way, "SHOW_AFTER", 0.2)
    monkeypatch.setattr(lost_way, "TICK", 0.05)


class Cell:
    """A cell that runs on a kernel of the test's own, and what its client collects of it."""

    def __init__(self, bridge: KernelBridge, client) -> None:
        self.kernel = MemoryKernel()
        self.messages: list[dict] = []
        self._client = client
        bridge.attach(self.kernel)

    async def run(self) -> None:
        before = len(self.kernel.received)
        self._client.execute("work()")
        await until(lambda: len(self.kernel.received) > before)
        self.request = self.kernel.received[-1][1]
        self.kernel.status("busy", self.request)

    def print(self, text: str) -> None:
        content = {"name": "stdout", "text": text}
        self.kernel.emit(Channel.IOPUB, make_message("stream", self.request.header, content=content))

    async def finish(self) -> list[str]:
        """End it; give all that was published for it, in short."""
        self.kernel.status("idle", self.request)
        while (message := await self._client.get_iopub_msg(timeout=60))["content"] != {"execution_state": "idle"}:
            if message["parent_header"].get("msg_id") == self.request.header_dict()["msg_id"]:
                self.messages.append(message)
        return [short(message) for message in self.messages if message["msg_type"] != "status"]

    def lose(self) -> None:
        self.kernel.change(KernelState.RECONNECTING, "The relay was cut.")

    def find(self) -> None:
        self.kernel.change(KernelState.ALIVE)


def short(message: dict) -> str:
    content = message["content"]
    shown = content["text"] if message["msg_type"] == "stream" else content.get("data", {}).get("text/html", "nothing")
    return f"{message['msg_type']}: {shown}"


LINE = "<div>Reconnecting to octocat/ml · 0 s · try 3: no relay</div>"


async def test_the_line_comes_late_is_replaced_in_place_and_leaves_the_cells_outputs_alone(bridge, owner):
    async with subscribed(bridge) as client:
        cell = Cell(bridge, client)
        await cell.run()
        cell.print("before\n")
        cell.lose()
        await until(lambda: owner.told)
        owner.way = owner.way._replace(outlook="try 4: no network")
        await asyncio.sleep(0.3)
        cell.find()
        cell.print("after\n")
        published = await cell.finish()
    assert published == [
        "stream: before\n",
        f"display_data: {LINE}",
        f"update_display_data: {LINE.replace('try 3: no relay', 'try 4: no network')}",
        "update_display_data: nothing",
        "stream: after\n",
    ]
    assert owner.told == [
        "Reconnecting to octocat/ml (try 3: no relay)",
        "The connection is back after 0 s.",
    ]
    displays = [message["content"] for message in cell.messages if "display" in message["msg_type"]]
    assert len({content["transient"]["display_id"] for content in displays}) == 1
    assert all(content["metadata"][MARK] for content in displays)
    assert displays[-1]["data"] == {}
    # What is left of it in a front end's model may stand in a file.
    rest = nbformat.v4.new_output("display_data", data={}, metadata=displays[-1]["metadata"])
    nbformat.validate(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[rest])]))


async def test_a_short_loss_is_not_told(bridge, owner):
    async with subscribed(bridge) as client:
        cell = Cell(bridge, client)
        await cell.run()
        cell.lose()
        await asyncio.sleep(0.05)
        cell.find()
        await asyncio.sleep(0.4)
        assert await cell.finish() == []
    assert owner.told == []


async def test_a_cell_that_is_run_meanwhile_shows_it_and_hurries_who_mends(bridge, owner):
    async with subscribed(bridge) as client:
        cell = Cell(bridge, client)
        cell.lose()
        await until(lambda: owner.told)
        assert owner.waiting == 0
        await cell.run()
        assert owner.waiting == 1
        await asyncio.sleep(0.2)
        cell.find()
        assert await cell.finish() == [f"display_data: {LINE}", "update_display_data: nothing"]


@pytest.mark.parametrize("end", ["death", "detach"])
async def test_the_line_goes_with_the_kernel(bridge, owner, end):
    async with subscribed(bridge) as client:
        cell = Cell(bridge, client)
        await cell.run()
        cell.lose()
        await until(lambda: owner.told)
        await asyncio.sleep(0.1)
        if end == "death":
            cell.kernel.change(KernelState.DEAD, "The codespace was stopped.")
        else:
            bridge.detach()
            bridge.attach(cell.kernel)
        await asyncio.sleep(0.3)
        told = ["stream: [codespace-kernels] The codespace was stopped.\n"] if end == "death" else []
        assert await cell.finish() == [f"display_data: {LINE}", "update_display_data: nothing", *told]
    assert len(owner.told) == 1


async def test_a_terminal_prints_a_line_at_the_loss_and_one_at_its_end(owner):
    bridge = await KernelBridge.bind(key=KEY, owner=owner, in_terminal=True)
    async with subscribed(bridge) as client:
        cell = Cell(bridge, client)
        await cell.run()
        cell.lose()
        await until(lambda: owner.told)
        await asyncio.sleep(0.2)
        cell.find()
        assert await cell.finish() == [
            "stream: [codespace-kernels] Reconnecting to octocat/ml …\n",
            "stream: [codespace-kernels] The connection is back after 0 s.\n",
        ]
    await bridge.close()


async def test_who_collects_outputs_gets_none_of_it(owner):
    bridge = await KernelBridge.bind(key=KEY, owner=owner, replaces_output=False)
    async with subscribed(bridge) as client:
        cell = Cell(bridge, client)
        await cell.run()
        cell.lose()
        await until(lambda: owner.told)
        await asyncio.sleep(0.2)
        cell.find()
        assert await cell.finish() == []
    assert len(owner.told) == 2
    await bridge.close()
