"""A process that ended and was not collected has ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psutil
import pytest

from codespace_kernels.processes import is_alive, wait_for_end


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    """A process whose parent never collects it."""
    command = ["sh", "-c", "sleep 1000 & echo $!; exec sleep 1000 >&-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as parent:
        assert parent.stdout
        yield psutil.Process(int(parent.stdout.readline()))
        parent.kill()


def test_one_that_was_not_collected_has_ended(child: psutil.Process) -> None:
    assert is_alive(child)
    assert wait_for_end([child], 0.05) == [child]
    child.kill()
    assert wait_for_end([child], 60) == []
    assert not is_alive(child)
    # psutil would wait for it.
    assert child.is_running()


def test_one_that_is_not_there_any_more_has_ended() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        one = psutil.Process(process.pid)
        process.kill()
    assert wait_for_end([one], 60) == []
