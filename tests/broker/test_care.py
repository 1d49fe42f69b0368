"""Whether a workspace is kept awake, when it is stopped and who is told, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from codespace_kernels.broker.awake import Presence
from codespace_kernels.broker.care import Care
from codespace_kernels.broker.ledger import Ledger
from codespace_kernels.broker.protocol import Access, KernelRequest
from codespace_kernels.broker.stopping import stop_idle
from codespace_kernels.broker.usage import UsageMeter, iso
from codespace_kernels.broker.workspaces import SessionState, WorkspaceSession
from codespace_kernels.errors import GitHubUnavailableError, LinkError
from codespace_kernels.target import Account, Target

from .test_ledger import HOUR, KEY, NOON, Clock
from .test_usage import RUNNING, STOPPED

MINUTE = 60.0
IDLE, BUSY, ABSENT, UNKNOWN = Presence.IDLE, Presence.BUSY, Presence.ABSENT, Presence.UNKNOWN


class Kernel:
    """A kernel whose spec says this and that."""

    def __init__(self, presence: Presence = IDLE, *, held: bool = True, **policy) -> None:
        target = Target(Account(), "hello", "python3", **policy)
        self.kernel_id = str(id(self))
        self.request = KernelRequest(target, Access(target.account))
        self.presence = presence
        self.held = held
        self.told: list[str] = []
        self.suspended: list[str] = []
        self.on_suspend = lambda: None

    def tell(self, text: str) -> None:
        self.told.append(text)

    async def suspend(self, reason: str) -> None:
        self.suspended.append(reason)
        self.on_suspend()
        self.presence = ABSENT


class Server:
    """The host of the workspace's kernels: another computer may have some there, too."""

    def __init__(self) -> None:
        self.models: list[dict] | Exception = []

    async def kernels(self) -> list[dict]:
        if isinstance(self.models, Exception):
            raise self.models
        return self.models


class GitHub:
    """A provider of one workspace."""

    def __init__(self) -> None:
        self.workspace = RUNNING
        self.asked: list[str] = []
        self.fails = False

    async def resolve(self, name: str):
        self.asked.append("state")
        if self.fails:
            raise GitHubUnavailableError("GitHub does not answer.")
        return self.workspace

    async def stop(self, name: str):
        self.asked.append("stop")
        self.workspace = dataclasses.replace(STOPPED, last_used_at=self.workspace.last_used_at)
        return self.workspace


class Scene:
    """A connected workspace; time passes in steps of three seconds, with a look each minute, as in the broker."""

    def __init__(self, path) -> None:
        self.clock = Clock()
        self.meter = UsageMeter(Ledger(path, clock=self.clock), KEY)
        self.kernels: list[Kernel] = []
        self.steady = Clock(0.0)
        self.care = Care("hello", self.meter, lambda: self.kernels, clock=self.steady)
        self.session = WorkspaceSession(Account(), "hello", self.meter, care=self.care, lost=lambda reason: None)
        self.github = GitHub()
        self.server = Server()
        self.connected = True
        self.session.provider = self.github  # type: ignore[assignment]
        self.session.state = SessionState.CONNECTED
        self.notices = 0
        self.meter.learn(RUNNING, started=True)
        self.meter.notified()
        self._minute = self.clock.now // MINUTE

    async def passes(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += 3
            self.steady.now += 3
            self.care.round(connected=self.connected)
            if self.clock.now // MINUTE > self._minute:
                self._minute = self.clock.now // MINUTE
                await self.minute()

    async def minute(self) -> None:
        self.meter.learn(self.github.workspace)
        await self.care.look(self.server if self.connected else None)  # type: ignore[arg-type]
        if self.care.awake.take_wish() and self.connected:
            self.notices += 1
            self.meter.notified()
            self.github.workspace = dataclasses.replace(self.github.workspace, last_used_at=iso(self.clock.now) or "")

    def somebody_types(self) -> None:
        """In an editor beside us, say: all that is seen of it is what GitHub says."""
        self.github.workspace = dataclasses.replace(self.github.workspace, last_used_at=f"at {self.clock.now}")

    async def stops(self) -> bool:
        self.session.host = self.server  # type: ignore[assignment]
        self.server.close = lambda: asyncio.sleep(0)  # type: ignore[attr-defined]
        return await stop_idle(self.session, self.kernels)


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path / "usage.json")


class TestKeptAwake:
    @pytest.mark.parametrize(
        ("kernel", "kept"),
        [
            (Kernel(BUSY), True),
            (Kernel(IDLE), False),
            (Kernel(IDLE, keep_awake="always"), True),
            (Kernel(IDLE, keep_awake="always", held=False), False),
            (Kernel(ABSENT, keep_awake="always"), False),
            (Kernel(BUSY, keep_awake="always", held=False), True),
            (Kernel(BUSY, keep_awake="never"), False),
        ],
    )
    async def test_as_its_spec_says(self, scene, kernel, kept):
        scene.kernels = [kernel]
        assert scene.care.keeps_awake is kept
        await scene.passes(10 * MINUTE)
        assert scene.notices == (10 if kept else 0)

    async def test_a_run_of_nine_hours_is_kept_awake_though_nobody_types(self, scene):
        scene.kernels = [Kernel(BUSY)]
        await scene.passes(9 * HOUR)
        assert scene.notices == 9 * 60

    def test_what_was_over_before_anybody_looked_counts(self, scene):
        quick, shy = Kernel(), Kernel(keep_awake="never")
        scene.care.worked(shy.request.target)
        assert not scene.care.awake.take_wish()
        scene.care.worked(quick.request.target)
        assert scene.care.awake.take_wish()
        assert not scene.care.awake.take_wish()

    def test_of_several_policies_the_most_awake_one_wins_and_is_told(self, scene):
        scene.kernels = [Kernel(BUSY, keep_awake="never"), Kernel(BUSY), Kernel(IDLE, keep_awake="always")]
        for told in ("always", "busy", "never"):
            assert scene.care.to_json()["keep_awake"] == told
            assert scene.care.keeps_awake is (told != "never")
            scene.kernels.pop()
        assert scene.care.to_json()["keep_awake"] is None

    async def test_an_endless_loop_is_not_kept_awake_for_ever(self, scene):
        loop = Kernel(BUSY, keep_awake_hours=2)
        scene.kernels = [loop]
        await scene.passes(1.4 * HOUR)
        assert loop.told == []
        await scene.passes(0.2 * HOUR)
        (before,) = loop.told
        assert "kept awake no longer in 30 minutes (keep_awake_hours is 2)" in before
        assert "GitHub stops it 30 minutes after that" in before
        await scene.passes(0.5 * HOUR)
        _, after = loop.told
        assert "Nobody has used codespace hello for 2 hours: it is kept awake no longer" in after
        noticed = scene.notices
        await scene.passes(HOUR)
        assert (scene.notices, len(loop.told)) == (noticed, 2)
        assert not scene.care.keeps_awake
        loop.presence = UNKNOWN
        assert scene.care.why_stopped().startswith("It was kept awake no longer")
        scene.care.used()
        assert scene.care.why_stopped() == ""

    async def test_a_person_who_does_something_begins_the_time_anew(self, scene):
        loop = Kernel(BUSY, keep_awake_hours=2)
        scene.kernels = [loop]
        await scene.passes(1.9 * HOUR)
        scene.care.used()
        noticed = scene.notices
        await scene.passes(1.4 * HOUR)
        assert scene.notices - noticed == pytest.approx(84, abs=1)
        assert len(loop.told) == 1

    async def test_the_longest_time_of_several_holds(self, scene):
        scene.kernels = [Kernel(BUSY, keep_awake_hours=1), Kernel(BUSY, keep_awake_hours=3)]
        await scene.passes(2 * HOUR)
        assert scene.care.keeps_awake
        assert scene.care.to_json()["awake_until"] == iso(NOON + 3 * HOUR)

    @pytest.mark.parametrize("jump", [-10 * HOUR, 10 * HOUR])
    async def test_a_clock_that_is_set_changes_nothing(self, scene, jump):
        kernel = Kernel(BUSY, keep_awake_hours=2)
        scene.kernels = [kernel]
        scene.clock.now += jump
        assert scene.care.to_json()["awake_until"] == iso(NOON + jump + 2 * HOUR)
        await scene.passes(HOUR)
        assert (scene.care.keeps_awake, [text for text in kernel.told if "awake" in text]) == (True, [])
        await scene.passes(HOUR)
        assert not scene.care.keeps_awake


class TestLongestSession:
    async def test_is_told_once_in_the_cell_that_runs(self, scene):
        working, idle = Kernel(BUSY), Kernel(IDLE)
        scene.kernels = [working, idle]
        await scene.passes(6 * HOUR)
        scene.care.used()
        await scene.passes(5.5 * HOUR - MINUTE)
        assert working.told == []
        await scene.passes(2 * MINUTE)
        (text,) = working.told
        assert "GitHub stops codespace hello in 30 minutes: no session there lasts more than 12 hours." in text
        await scene.passes(10 * MINUTE)
        assert (len(working.told), idle.told) == (1, [])
        idle.presence = BUSY
        await scene.passes(MINUTE)
        assert "in 19 minutes" in idle.told[0]
        await scene.passes(15 * MINUTE)
        scene.meter.stopped()
        assert scene.care.why_stopped() == "GitHub stops every codespace after 12 hours."

    async def test_where_its_start_was_not_seen_it_is_said_to_come_sooner(self, scene):
        scene.meter.stopped()
        scene.meter.learn(STOPPED)
        scene.clock.now += HOUR
        scene.meter.learn(RUNNING)
        usage = scene.meter.to_json(busy=False)
        assert (usage["capped_at"], usage["capped_before"]) == (None, iso(NOON + 13 * HOUR))
        kernel = Kernel(BUSY, keep_awake_hours=24)
        scene.kernels = [kernel]
        await scene.passes(11.6 * HOUR)
        assert "in 30 minutes at the latest" in kernel.told[0]


class TestStopWhenIdle:
    @pytest.fixture
    def idle(self, scene) -> Kernel:
        kernel = Kernel(IDLE, stop_when_idle=30)
        scene.kernels = [kernel]
        return kernel

    async def test_stops_after_its_time_and_says_why(self, scene, idle):
        await scene.passes(29 * MINUTE)
        assert not scene.care.may_stop
        assert scene.care.to_json()["stop_when_idle_at"] == iso(NOON + 30 * MINUTE)
        await scene.passes(MINUTE)
        assert scene.care.may_stop
        assert await scene.stops()
        assert scene.github.asked == ["state", "stop"]
        (reason,) = idle.suspended
        assert "Codespace hello was stopped after 30 minutes without work, as its kernelspec says" in reason
        assert scene.session.state is SessionState.IDLE

    async def test_is_off_by_default(self, scene):
        scene.kernels = [Kernel(IDLE)]
        await scene.passes(10 * HOUR)
        assert scene.care.to_json()["stop_when_idle_at"] is None
        assert not scene.care.may_stop

    @pytest.mark.parametrize("other", [BUSY, UNKNOWN])
    async def test_never_while_another_kernel_works_or_may_work(self, scene, idle, other):
        scene.kernels.append(Kernel(other, stop_when_idle=30))
        await scene.passes(10 * HOUR)
        assert not scene.care.may_stop
        scene.kernels[1].presence = IDLE
        await scene.passes(4 * MINUTE)
        assert not scene.care.may_stop

    async def test_never_while_a_kernel_is_there_whose_spec_does_not_say_so(self, scene, idle):
        scene.kernels.append(Kernel(IDLE))
        await scene.passes(10 * HOUR)
        assert not scene.care.may_stop
        scene.kernels[1].presence = ABSENT
        await scene.passes(2 * MINUTE)
        assert scene.care.may_stop

    async def test_the_longest_of_several_times_holds(self, scene, idle):
        scene.kernels.append(Kernel(IDLE, stop_when_idle=60))
        await scene.passes(59 * MINUTE)
        assert not scene.care.may_stop
        await scene.passes(MINUTE)
        assert scene.care.may_stop

    async def test_what_the_last_kernel_said_holds_when_it_has_ended(self, scene, idle):
        await scene.passes(10 * MINUTE)
        scene.kernels.clear()
        await scene.passes(20 * MINUTE)
        assert scene.care.may_stop
        assert await scene.stops()

    async def test_a_touch_begins_the_time_anew(self, scene, idle):
        await scene.passes(29 * MINUTE)
        scene.care.used()
        await scene.passes(29 * MINUTE)
        assert not scene.care.may_stop

    async def test_an_editor_beside_us_is_seen_by_what_moves(self, scene, idle):
        await scene.passes(20 * MINUTE)
        scene.somebody_types()
        await scene.passes(29 * MINUTE)
        assert not scene.care.may_stop
        scene.somebody_types()
        assert not await scene.stops()
        await scene.passes(32 * MINUTE)
        assert scene.care.may_stop

    async def test_one_who_types_at_the_last_moment_is_seen_too(self, scene, idle):
        await scene.passes(30 * MINUTE)
        assert scene.care.may_stop
        scene.somebody_types()
        assert not await scene.stops()
        assert (idle.suspended, scene.github.asked) == ([], ["state"])

    async def test_what_our_own_notice_moves_is_nobody_elses_use(self, scene, idle):
        idle.presence = BUSY
        await scene.passes(10 * MINUTE)
        idle.presence = IDLE
        await scene.passes(30 * MINUTE)
        assert scene.care.may_stop

    async def test_not_even_where_github_tells_it_late(self, scene, idle):
        idle.presence = BUSY
        await scene.passes(10 * MINUTE)
        idle.presence = IDLE
        await scene.passes(1.5 * MINUTE)
        scene.somebody_types()
        await scene.passes(28.5 * MINUTE)
        assert scene.care.may_stop

    async def test_what_moved_while_a_kernel_worked_says_nothing(self, scene, idle):
        idle.request = Kernel(keep_awake="never", stop_when_idle=30).request
        await scene.passes(10 * MINUTE)
        idle.presence = BUSY
        scene.somebody_types()
        scene.server.models = [{"id": "ours", "execution_state": "idle", "last_activity": "late"}]
        await scene.passes(10 * MINUTE)
        idle.presence = IDLE
        await scene.passes(30 * MINUTE)
        assert scene.care.may_stop

    async def test_nothing_is_stopped_before_use_by_others_would_have_been_seen(self, scene, idle):
        scene.kernels = [Kernel(IDLE, stop_when_idle=1)]
        await scene.passes(1.5 * MINUTE)
        assert scene.care.idle_stop.due
        assert not scene.care.may_stop
        await scene.passes(3 * MINUTE)
        assert scene.care.may_stop

    async def test_a_kernel_of_another_computer_that_works(self, scene, idle):
        scene.server.models = [{"id": "theirs", "execution_state": "busy", "last_activity": "early"}]
        await scene.passes(2 * HOUR)
        assert not scene.care.may_stop
        scene.server.models = [{"id": "theirs", "execution_state": "idle", "last_activity": "late"}]
        await scene.passes(29 * MINUTE)
        assert not scene.care.may_stop
        await scene.passes(3 * MINUTE)
        assert scene.care.may_stop

    async def test_one_that_worked_between_two_looks(self, scene, idle):
        scene.server.models = [{"id": "theirs", "execution_state": "idle", "last_activity": "early"}]
        await scene.passes(20 * MINUTE)
        scene.server.models = [{"id": "theirs", "execution_state": "idle", "last_activity": "late"}]
        await scene.passes(29 * MINUTE)
        assert not scene.care.may_stop

    async def test_one_that_was_started_between_two_looks(self, scene, idle):
        await scene.passes(20 * MINUTE)
        scene.server.models = [{"id": "theirs", "execution_state": "idle", "last_activity": "just now"}]
        await scene.passes(29 * MINUTE)
        assert not scene.care.may_stop

    async def test_a_server_that_cannot_be_asked_puts_it_off(self, scene, idle):
        await scene.passes(29 * MINUTE)
        scene.server.models = LinkError("The link broke.")
        await scene.passes(HOUR)
        assert not scene.care.may_stop

    async def test_a_broker_without_a_connection_does_not_decide(self, scene, idle):
        await scene.passes(20 * MINUTE)
        scene.connected = False
        await scene.passes(3 * HOUR)
        assert not scene.care.may_stop
        scene.connected = True
        await scene.passes(4 * MINUTE)
        assert not scene.care.may_stop
        await scene.passes(2 * MINUTE)
        assert scene.care.may_stop

    async def test_who_opens_the_lid_is_given_time(self, scene, idle):
        await scene.passes(20 * MINUTE)
        scene.clock.now += 8 * HOUR
        await scene.passes(4 * MINUTE)
        assert not scene.care.may_stop
        await scene.passes(2 * MINUTE)
        assert scene.care.may_stop

    async def test_a_clock_that_was_set_back_puts_it_off_by_its_time_at_most(self, scene, idle):
        await scene.passes(20 * MINUTE)
        scene.clock.now -= 8 * HOUR
        await scene.passes(33 * MINUTE)
        assert scene.care.may_stop

    async def test_github_is_asked_first_and_one_that_is_not_running_is_left_alone(self, scene, idle):
        await scene.passes(30 * MINUTE)
        scene.github.workspace = STOPPED
        assert not await scene.stops()
        assert (idle.suspended, scene.github.asked) == ([], ["state"])
        assert not scene.care.may_stop

    async def test_nothing_is_stopped_where_github_does_not_answer(self, scene, idle):
        await scene.passes(30 * MINUTE)
        scene.github.fails = True
        assert not await scene.stops()
        assert (idle.suspended, scene.github.asked) == ([], ["state"])
        assert not scene.care.may_stop

    async def test_who_comes_while_kernels_end_keeps_it(self, scene, idle):
        await scene.passes(30 * MINUTE)
        scene.steady.now += 1
        idle.on_suspend = scene.care.used
        assert not await scene.stops()
        assert scene.github.asked == ["state"]
