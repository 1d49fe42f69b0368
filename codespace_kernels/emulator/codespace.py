"""One emulated codespace: what it is, and how it goes up and down."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from codespace_kernels.emulator.models import (
    MACHINE_TYPES,
    CodespaceState,
    MachineType,
    Repository,
    User,
    random_id,
    timestamp,
)

if TYPE_CHECKING:
    from pathlib import Path

    from codespace_kernels.emulator.faults import FaultBoard

log = logging.getLogger(__name__)

CREATING = (CodespaceState.QUEUED, CodespaceState.PROVISIONING, CodespaceState.STARTING)
WAKING = (CodespaceState.QUEUED, CodespaceState.STARTING)
GOING_UP = frozenset({CodespaceState.CREATED, CodespaceState.AWAITING, *CREATING})
UP_OR_GOING_UP = GOING_UP | {CodespaceState.AVAILABLE, CodespaceState.REBUILDING}

_BOOT_SECONDS = 30.0

SESSION_STOP_NOTICE = "Your codespace was stopped because it had run for as long as a session may last."
IDLE_STOP_NOTICE = "Your codespace was stopped because nobody used it for the time set as its idle timeout."


class Inside(Protocol):
    """The inside of a running codespace, as `machine.Machine` has it."""

    async def boot(self) -> None:
        """Start everything."""

    async def shutdown(self) -> None:
        """End every process. Once more is no error, also when the first call was cancelled."""

    def tunnel_properties(self) -> dict[str, str]:
        """Give the six strings of `connection.tunnelProperties`."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """How fast emulated time runs.

    Attributes:
        transition_seconds: How long a creation, start or stop takes at least.
        minute_seconds: Length of the minutes in which idle timeouts and sessions are counted.
        session_minutes: After how many a codespace is stopped, even one that is in use; GitHub's are 12 hours.
        sign_in_interval: Seconds that must lie between two questions whether a person has signed in; GitHub's are 5.
    """

    transition_seconds: float = 0.4
    minute_seconds: float = 60.0
    session_minutes: float = 720.0
    sign_in_interval: float = 1.0


@dataclasses.dataclass(frozen=True)
class Host:
    """What a codespace needs from the emulator.

    Attributes:
        faults: The emulator's faults.
        timing: How fast its time runs.
        folder: Has a folder for each codespace, where its files last over stop and start.
        make_inside: Makes the inside of a codespace that starts.
    """

    faults: FaultBoard
    timing: Timing
    folder: Path
    make_inside: Callable[[Codespace], Inside]


@dataclasses.dataclass(eq=False)
class Codespace:
    """One codespace; its methods belong on the emulator's event loop.

    Attributes:
        name: Unique name, as GitHub gives it.
        actual_state: The state without faults; `state` is the one to show.
        billable_owner: Who pays.
        idle_timeout_minutes: 5 to 240.
        idle_timeout_notice: Told where a policy has changed the idle timeout.
        last_known_stop_notice: Why it was last stopped, where nobody asked for it.
    """

    host: Host = dataclasses.field(repr=False)
    name: str
    repository: Repository
    owner: User
    billable_owner: User
    ref: str
    display_name: str
    machine_type: MachineType = MACHINE_TYPES[0]
    actual_state: CodespaceState = CodespaceState.SHUTDOWN
    devcontainer_path: str | None = None
    location: str = "EastUs"
    idle_timeout_minutes: int = 30
    retention_period_minutes: int = 43200
    idle_timeout_notice: str | None = None
    last_known_stop_notice: str | None = None
    id: int = dataclasses.field(default_factory=random_id)
    environment_id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = dataclasses.field(default_factory=timestamp)
    updated_at: str = dataclasses.field(default_factory=timestamp)
    last_used: datetime.datetime = dataclasses.field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    inside: Inside | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._last_activity = self._available_at = time.monotonic()
        self._transition: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def folder(self) -> Path:
        """Where the codespace's files are on this machine."""
        return self.host.folder / self.name

    @property
    def state(self) -> CodespaceState:
        """The state that GitHub would show; the `state` fault wins."""
        fault = self.host.faults.get("state", self.name)
        return CodespaceState(str(fault.options["state"])) if fault else self.actual_state

    @property
    def pending_operation(self) -> str | None:
        """Why nothing but deletion is allowed at the moment; None: nothing is pending."""
        fault = self.host.faults.get("pending-operation", self.name)
        return str(fault.options["reason"]) if fault else None

    def touch(self, activities: Sequence[str] = ()) -> None:
        """Take note that somebody uses the codespace; its idle timeout starts anew."""
        log.info("%s is in use (%s)", self.name, ", ".join(activities) or "started")
        self._last_activity = time.monotonic()
        self.last_used = datetime.datetime.now(datetime.UTC)

    def create(self) -> None:
        """Begin to bring up a new codespace."""
        self._go_up(CREATING)

    def start(self) -> bool:
        """Begin to bring up a stopped codespace; false where it is not stopped."""
        if self.actual_state is not CodespaceState.SHUTDOWN:
            return False
        self._go_up(WAKING)
        return True

    def stop(self, notice: str | None = None) -> None:
        """Begin to stop a codespace that runs or is on its way up; nothing happens to any other."""
        if self.actual_state not in UP_OR_GOING_UP:
            return
        self.last_known_stop_notice = notice
        if self._timer:
            self._timer.cancel()
        self._enter(CodespaceState.SHUTTING_DOWN)
        self._begin(self._take_down(self._transition))

    def rebuilding(self, active: bool) -> None:
        """Take note that the container is being made anew, or that it is there."""
        before, after = CodespaceState.AVAILABLE, CodespaceState.REBUILDING
        if self.actual_state is (before if active else after):
            self._enter(after if active else before)

    @property
    def has_unsaved_changes(self) -> bool:
        """Whether its clone has what its repository has not."""
        return self.host.faults.get("unsaved-changes", self.name) is not None

    async def settled(self) -> None:
        """Wait until no transition is under way."""
        while self._transition and not self._transition.done():
            await asyncio.wait([self._transition])

    async def close(self) -> None:
        """End every process of the codespace at once, whatever it is doing. Closing twice is no error."""
        if self._timer:
            self._timer.cancel()
        if self._transition:
            self._transition.cancel()
            await asyncio.wait([self._transition])
        await self._shut_inside()
        if self.actual_state in UP_OR_GOING_UP | {CodespaceState.SHUTTING_DOWN}:
            self._enter(CodespaceState.SHUTDOWN)

    async def remove(self) -> None:
        """End every process of the codespace and delete its files."""
        await self.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def _enter(self, state: CodespaceState) -> None:
        log.info("%s: %s", self.name, state.value)
        self.actual_state = state
        self.updated_at = timestamp()

    def _begin(self, transition: Coroutine[Any, Any, None]) -> None:
        self._transition = asyncio.get_running_loop().create_task(transition, name=f"{self.name} transition")

    def _go_up(self, states: Sequence[CodespaceState]) -> None:
        self.last_known_stop_notice = None
        self._enter(states[0])
        self._begin(self._bring_up(states))

    async def _bring_up(self, states: Sequence[CodespaceState]) -> None:
        self.inside = self.host.make_inside(self)
        boot = asyncio.create_task(self.inside.boot())
        try:
            await self._pass_through(states)
            await asyncio.shield(boot)
        except Exception:
            log.exception("%s cannot start", self.name)
            await self._shut_inside()
            self._enter(CodespaceState.FAILED)
        else:
            self.touch()
            self._available_at = time.monotonic()
            self._enter(CodespaceState.AVAILABLE)
            self._watch_time()
        finally:
            # A boot works in threads, which no cancellation ends: what stops this codespace must not overtake it.
            await asyncio.wait([boot], timeout=_BOOT_SECONDS)

    async def _pass_through(self, states: Sequence[CodespaceState]) -> None:
        slow = self.host.faults.take("slow-start", self.name)
        seconds = self.host.timing.transition_seconds + (float(slow.options["seconds"]) if slow else 0.0)
        for state in states:
            if state is not self.actual_state:
                self._enter(state)
            await asyncio.sleep(seconds / len(states))

    async def _take_down(self, going_up: asyncio.Task[None] | None) -> None:
        if going_up and not going_up.done():
            going_up.cancel()
            await asyncio.wait([going_up])
        await asyncio.gather(asyncio.sleep(self.host.timing.transition_seconds), self._shut_inside())
        self._enter(CodespaceState.SHUTDOWN)

    async def _shut_inside(self) -> None:
        """End what is inside; where this is cancelled, `close` does it again, as `Inside.shutdown` allows."""
        if self.inside is None:
            return
        try:
            await self.inside.shutdown()
        except Exception:
            log.exception("%s did not stop cleanly", self.name)
        self.inside = None

    def _watch_time(self) -> None:
        """Stop the codespace when nobody used it for its idle timeout, which may be changed, or at its cap."""
        minute, now = self.host.timing.minute_seconds, time.monotonic()
        idle_left = self._last_activity + self.idle_timeout_minutes * minute - now
        session_left = self._available_at + self.host.timing.session_minutes * minute - now
        if self.host.faults.take("session-over", self.name):
            session_left = 0.0
        if (left := min(idle_left, session_left)) > 0:
            self._timer = asyncio.get_running_loop().call_later(min(left, minute), self._watch_time)
            return
        notice = SESSION_STOP_NOTICE if session_left <= 0 else IDLE_STOP_NOTICE
        log.info("%s: %s", self.name, notice)
        self.stop(notice)
