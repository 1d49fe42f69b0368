"""What goes wrong: each kind takes what it needs from the dice before it does anything, so that a seed repeats it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psutil

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.errors import CodespaceKernelsError

from .front_end import ONLY_WHERE_TOLD
from .place import Place

Plan = dict[str, Any]

_END_SECONDS = 30.0
"""For a broker that is told to end."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way in which things go wrong.

    Attributes:
        plan: Takes the fault's numbers from the dice, given the link's patience in seconds.
        strike: Does it, and lets it be well again.
        weight: How often it is taken.
        excuses: Why output of what is open then may be missing, if that is told; empty where none may.
        cuts: Whether a connection that works is surely lost by it.
    """

    plan: Callable[[random.Random, float], Plan]
    strike: Callable[[Place, Plan], Awaitable[None]]
    weight: int = 3
    excuses: str = ""
    cuts: bool = True


def _nothing(dice: random.Random, patience: float) -> Plan:
    return {}


def _seconds(low: float, high: float, **choices: tuple[Any, ...]) -> Callable[[random.Random, float], Plan]:
    """Take a time between two multiples of the link's patience, and one of each of the choices."""

    def plan(dice: random.Random, patience: float) -> Plan:
        seconds = round(dice.uniform(low, high) * patience, 2)
        return {"seconds": seconds, **{name: dice.choice(values) for name, values in choices.items()}}

    return plan


@contextlib.contextmanager
def _fault(place: Place, kind: str, **options: Any) -> Iterator[None]:
    place.control.set_fault(kind, None, options)
    try:
        yield
    finally:
        place.control.clear_faults(kind, None)


def _drop(place: Place) -> None:
    with _fault(place, "relay-drop"):
        pass


async def _relay_drop(place: Place, plan: Plan) -> None:
    for pause in plan["again"]:
        _drop(place)
        await asyncio.sleep(pause)


async def _blackhole(place: Place, plan: Plan) -> None:
    with _fault(place, "relay-blackhole", direction=plan["direction"]):
        await asyncio.sleep(plan["seconds"])


async def _half_open(place: Place, plan: Plan) -> None:
    with _fault(place, "relay-half-open"):
        await asyncio.sleep(plan["seconds"])


async def _slow(place: Place, plan: Plan) -> None:
    with _fault(place, "relay-slow", mbit=plan["mbit"]):
        await asyncio.sleep(plan["seconds"])


async def _tokens_expired(place: Place, plan: Plan) -> None:
    with _fault(place, "token-expired", which=plan["which"]):
        _drop(place)
        await asyncio.sleep(plan["seconds"])


async def _sshd_killed(place: Place, plan: Plan) -> None:
    place.control.set_fault("signal", None, {"which": "sshd", "signal": "KILL"})
    place.control.clear_faults("signal", None)


async def _sshd_down(place: Place, plan: Plan) -> None:
    with _fault(place, "sshd-down"):
        await asyncio.sleep(plan["seconds"])


async def _splice_killed(place: Place, plan: Plan) -> None:
    for process in place.inside("splice.py"):
        with contextlib.suppress(psutil.Error):
            process.kill()


async def _api_down(place: Place, plan: Plan) -> None:
    with _fault(place, "api-down", how=plan["how"], tunnels=plan["tunnels"]):
        if plan["drop"]:
            _drop(place)
        await asyncio.sleep(plan["seconds"])


async def _stopped(place: Place, plan: Plan) -> None:
    with _fault(place, "signal", which=plan["which"], signal="STOP"):
        await asyncio.sleep(plan["seconds"])


async def _link_killed(place: Place, plan: Plan) -> None:
    place.control.set_fault("signal", None, {"which": "link", "signal": "KILL"})
    place.control.clear_faults("signal", None)


async def _clock_jump(place: Place, plan: Plan) -> None:
    with _fault(place, "clock", seconds=plan["jump"]):
        place.set_clock(plan["jump"])
        await asyncio.sleep(plan["seconds"])
    if plan["back"]:
        place.set_clock(0)


async def _asleep(place: Place, plan: Plan) -> None:
    """Close the lid: the broker stands still, time goes on, and the network may be another one afterwards."""
    broker = place.broker()
    broker.send_signal(signal.SIGSTOP)
    try:
        if plan["drop"]:
            _drop(place)
        place.set_clock(plan["jump"])
        await asyncio.sleep(plan["seconds"])
    finally:
        broker.send_signal(signal.SIGCONT)


async def _broker_killed(place: Place, plan: Plan) -> None:
    place.broker().kill()
    await _touch_after(plan)


async def _broker_ended(place: Place, plan: Plan) -> None:
    broker = place.broker()
    broker.terminate()
    await asyncio.to_thread(broker.wait, _END_SECONDS)
    await _touch_after(plan)


async def _touch_after(plan: Plan) -> None:
    await asyncio.sleep(plan["seconds"])
    # The next touch; a front end's handle may have been quicker.
    with contextlib.suppress(CodespaceKernelsError):
        await asyncio.to_thread(BrokerClient().ensure)


def _drops(dice: random.Random, patience: float) -> Plan:
    return {"again": [round(dice.uniform(0.0, 0.6), 2) for _ in range(dice.choice((0, 0, 0, 1, 3)))] + [0.0]}


KINDS: dict[str, Kind] = {
    "relay_drop": Kind(_drops, _relay_drop, weight=8),
    "blackhole_short": Kind(
        _seconds(0.05, 0.7, direction=("both", "to-host", "to-client")), _blackhole, weight=5, cuts=False
    ),
    "blackhole": Kind(_seconds(1.2, 2.5, direction=("both", "both", "to-host", "to-client")), _blackhole, cuts=False),
    "half_open": Kind(_seconds(0.5, 3.0), _half_open),
    "slow_relay": Kind(_seconds(0.5, 2.0, mbit=(2.0, 20.0)), _slow, weight=2, cuts=False),
    "tokens_expired": Kind(_seconds(0.1, 1.0, which=("old", "all")), _tokens_expired),
    "sshd_killed": Kind(_nothing, _sshd_killed, weight=5),
    "sshd_down": Kind(_seconds(0.1, 1.0), _sshd_down),
    "splice_killed": Kind(_nothing, _splice_killed, weight=5),
    "api_down": Kind(
        _seconds(0.2, 1.5, how=("unavailable", "hang", "close"), tunnels=(0, 1), drop=(True, True, False)),
        _api_down,
        cuts=False,
    ),
    "server_wedged": Kind(_seconds(0.2, 2.0, which=("server",)), _stopped, cuts=False),
    "link_wedged": Kind(_seconds(0.1, 2.0, which=("link", "sshd")), _stopped, cuts=False),
    "clock_jump": Kind(
        _seconds(0.1, 0.5, jump=(-7200, -120, 40, 3600, 7200), back=(True, False)), _clock_jump, cuts=False
    ),
    "clock_day": Kind(_seconds(1.0, 2.0, jump=(-86400, 86400), back=(True, False)), _clock_jump, cuts=False),
    "asleep": Kind(_seconds(0.2, 2.5, jump=(60, 3600, 7200), drop=(True, False)), _asleep, cuts=False),
    "link_killed": Kind(_nothing, _link_killed, weight=2, excuses="the process that carries the messages was killed"),
    "broker_killed": Kind(_seconds(0.0, 0.5), _broker_killed, excuses=ONLY_WHERE_TOLD),
    "broker_ended": Kind(_seconds(0.0, 0.5), _broker_ended, excuses=ONLY_WHERE_TOLD),
}
