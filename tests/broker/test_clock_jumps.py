"""This computer's clock is set while kernels are kept and connections are open."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from codespace_kernels.broker import kept
from codespace_kernels.broker.kept import KeptKernel, KeptKernels
from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.cli import status
from codespace_kernels.target import Account, Target

HOURS = 3600.0


class Clock:
    """The clock that people set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    stand_in = SimpleNamespace(time=clock.time)
    monkeypatch.setattr(kept, "time", stand_in)
    monkeypatch.setattr(status, "time", stand_in)
    return clock


class Unattended:
    """A kernel that nobody listens to; it lives and is idle."""

    alive = True
    busy = False
    ended = False

    def close(self) -> None: ...

    @property
    def kernel(self) -> Unattended:
        return self

    async def shutdown(self) -> None:
        self.ended = True


@pytest.mark.parametrize("jump", [50 * HOURS, -50 * HOURS])
async def test_a_kept_kernel_is_ended_neither_sooner_nor_later(clock, monkeypatch, jump):
    monkeypatch.setattr(kept, "LOOK_SECONDS", 0.01)
    target = Target(Account(), "hello", "python3", keep_hours=1.0)
    session = SimpleNamespace(name="hello", changed=lambda: None)
    kernels = KeptKernels(lambda _: None)
    kernel = KeptKernel("k", KernelRequest(target, Access(Account())), session, "n.ipynb", Unattended())
    kernels.add(kernel)
    clock.ahead = jump
    await asyncio.sleep(0.1)
    assert list(kernels) == [kernel]
    assert 3500 < kernel.seconds_left <= 3600
    assert abs(kernel.until - clock.time() - HOURS) < 60
    kernels.take(kernel)


def test_no_age_is_negative(clock):
    since = time.time()
    clock.ahead = -5 * HOURS
    assert status._age(since) == "0 s"
