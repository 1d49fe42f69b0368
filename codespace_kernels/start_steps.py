"""The steps from a stopped workspace to a kernel, counted for a person who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codespace_kernels.progress import ProgressEvent

BAR_WIDTH = 8
"""Characters."""

_CREATE, _START, _CONNECT, _SERVER, _KERNEL = "create", "start", "connect", "server", "kernel"

_STEPS = {
    _CREATE: "preparing",
    "stop": "starting",
    "busy": "starting",
    "queue": "starting",
    "build": "starting",
    _START: "connecting",
    _CONNECT: "Jupyter",
    _SERVER: "the kernel",
    _KERNEL: "your code",
}
"""What comes after each step, in the order of the steps."""

_ORDER = list(_STEPS)

_STEP_OF_STAGE = {"reconnect": _CONNECT, "tunnel": _CONNECT, "ssh": _CONNECT, "install": _SERVER}

WORKSPACE_STAGES = frozenset(_ORDER[: _ORDER.index(_CONNECT)])
"""The stages of a workspace that does not run yet."""

LONG_STAGES = WORKSPACE_STAGES | {"reconnect"}
"""The stages that may take any time: the workspace does not run, or is out of reach."""


class StartSteps:
    """Counts the steps of a start by its progress; a step of a new start begins the count anew.

    How many there are is learnt on the way: a workspace that runs has only to be connected to, and which states a
    stopped one goes through is its provider's affair. So the number of steps may grow; a bar never goes back for that.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._step = ""
        self._fraction = 0.0

    def take(self, event: ProgressEvent) -> None:
        """Hear of a step; a stage that is none of a start's changes nothing."""
        step = _STEP_OF_STAGE.get(event.stage, event.stage)
        if step not in _STEPS:
            return
        if self._step and _ORDER.index(step) < _ORDER.index(self._step):
            self._seen.clear()
        self._seen.add(step)
        self._step, self._fraction = step, event.fraction or 0.0

    @property
    def bar(self) -> str:
        """What is done and what is not, as text of `BAR_WIDTH` characters; empty before the first step."""
        plan = self._plan()
        if not plan:
            return ""
        done = (plan.index(self._step) + self._fraction) / len(plan)
        full = int(done * BAR_WIDTH)
        return "■" * full + "□" * (BAR_WIDTH - full)

    @property
    def outlook(self) -> str:
        """Which step it is and what comes next: "step 2/5, next: connecting"; empty before the first step."""
        plan = self._plan()
        return f"step {plan.index(self._step) + 1}/{len(plan)}, next: {_STEPS[self._step]}" if plan else ""

    def line(self, event: ProgressEvent) -> str:
        """Hear of a step, and give the line that tells of it in a log."""
        self.take(event)
        return f"{event.message} ({self.outlook})" if self.outlook else event.message

    def _plan(self) -> list[str]:
        if not self._step:
            return []
        certain = {_CONNECT, _SERVER, _KERNEL} | ({_START} if self._seen & WORKSPACE_STAGES else set())
        return [step for step in _ORDER if step in self._seen | certain]
