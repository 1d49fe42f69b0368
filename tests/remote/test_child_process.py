"""The child that carries messages, as the server starts it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import psutil
import pytest

from codespace_kernels.remote.child_process import ChildProcess

WAIT = 60


@pytest.fixture
def child(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        package = str(Path(__file__).parents[2])
        yield ChildProcess(listener, package, 60.0, str(tmp_path), lambda record: None, lambda: None)


async def test_the_first_child_is_the_one_that_was_begun(child: ChildProcess) -> None:
    child.begin()
    pid = child.pid
    running = asyncio.create_task(child.run())
    await asyncio.sleep(0)
    assert child.pid == pid
    async with asyncio.timeout(WAIT):
        while not running.done():
            # Not before it writes to its server: what is closed first is the pair.
            child.close()
            await asyncio.sleep(0.02)
    assert not psutil.pid_exists(pid or 0)


async def test_one_that_was_begun_for_nothing_ends(child: ChildProcess) -> None:
    child.begin()
    process = psutil.Process(child.pid)
    child.close()
    async with asyncio.timeout(WAIT):
        while process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
    assert child._process is not None
    child._process.wait(WAIT)
