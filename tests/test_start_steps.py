"""A person who waits sees which step it is, how far that is, and what comes next."""

from __future__ import annotations

import pytest

from codespace_kernels.progress import ProgressEvent
from codespace_kernels.start_steps import BAR_WIDTH, StartSteps

STARTS = {
    "running": (["tunnel", "ssh", "server", "kernel"], ["1/3", "1/3", "2/3", "3/3"]),
    "stopped": (["queue", "start", "ssh", "install", "kernel"], ["1/5", "2/5", "3/5", "4/5", "5/5"]),
    "first build": (["queue", "build", "start", "kernel"], ["1/5", "2/6", "3/6", "6/6"]),
    "creation": (["find", "create", "queue", "build", "start"], ["1/5", "2/6", "3/7", "4/7"]),
    "stopping": (["stop", "queue", "start"], ["1/5", "2/6", "3/6"]),
}


def lines_of(*stages: str) -> list[str]:
    steps = StartSteps()
    return [steps.line(ProgressEvent(stage, stage)) for stage in stages]


@pytest.mark.parametrize("name", STARTS)
def test_steps_are_counted(name):
    stages, numbers = STARTS[name]
    counted = [line for line in lines_of(*stages) if "(step " in line]
    assert [line.split("(step ")[1].split(",")[0] for line in counted] == numbers


@pytest.mark.parametrize("name", STARTS)
def test_the_bar_never_goes_back(name):
    steps = StartSteps()
    assert steps.bar == ""
    bars = []
    for stage in STARTS[name][0]:
        steps.take(ProgressEvent(stage, ""))
        bars.append(steps.bar)
    # What is looked for first is no step.
    bars = [bar for bar in bars if bar]
    assert bars[0] == "□" * BAR_WIDTH
    assert bars == sorted(bars, key=lambda bar: bar.count("■"))
    assert {len(bar) for bar in bars} == {BAR_WIDTH}


def test_a_known_share_of_a_step_moves_the_bar():
    steps = StartSteps()
    bars = []
    for fraction in (None, 0.5, 1.0):
        steps.take(ProgressEvent("install", "", fraction))
        bars.append(steps.bar.count("■"))
    assert bars == [2, 4, 5]


def test_what_comes_next():
    nexts = [line.partition("next: ")[2] for line in lines_of("build", "start", "ssh", "server", "kernel")]
    assert nexts == [
        "starting)",
        "connecting)",
        "Jupyter)",
        "the kernel)",
        "your code)",
    ]


def test_a_stage_of_something_else_is_not_counted():
    assert lines_of("find", "ssh") == ["find", "ssh (step 1/3, next: Jupyter)"]


def test_a_new_start_is_counted_anew():
    """A workspace that was stopped meanwhile, and then one that runs."""
    assert [line.split("(step ")[1].split(",")[0] for line in lines_of("kernel", "queue", "kernel", "ssh")] == [
        "3/3",
        "1/5",
        "5/5",
        "1/3",
    ]
