"""What is told of a workspace's use, by a clock of the test's own."""

from __future__ import annotations

import dataclasses

import pytest

from codespace_kernels.broker.ledger import Ledger
from codespace_kernels.broker.usage import UsageMeter, iso
from codespace_kernels.providers.base import Workspace, WorkspaceState

from .test_ledger import HOUR, KEY, NOON, Clock

RUNNING = Workspace(
    name="hello",
    title="hello",
    state=WorkspaceState.RUNNING,
    provider_state="Available",
    machine="4 cores, 16 GB RAM, 32 GB storage",
    idle_timeout_minutes=30,
    last_used_at=iso(NOON) or "",
    cores=4,
    dollars_per_hour=0.36,
)
STOPPED = dataclasses.replace(RUNNING, state=WorkspaceState.STOPPED, provider_state="Shutdown")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock) -> Ledger:
    return Ledger(tmp_path / "usage.json", clock=clock)


@pytest.fixture
def meter(ledger) -> UsageMeter:
    return UsageMeter(ledger, KEY)


def test_nothing_is_known_at_first(meter):
    usage = meter.to_json(busy=False)
    known = {"running_since_exact", "month_hours", "month_dollars", "machine", "prices_source", "prices_date"}
    assert all(value is None for name, value in usage.items() if name not in known)
    assert (usage["running_since_exact"], usage["month_hours"], usage["month_dollars"]) == (False, 0, 0)


def test_a_start_that_was_seen(meter, clock):
    meter.learn(RUNNING, started=True)
    clock.now += 120
    usage = meter.to_json(busy=False)
    assert (usage["running_since"], usage["running_since_exact"]) == ("2026-11-23T12:00:00Z", True)
    assert usage["capped_at"] == "2026-11-24T00:00:00Z"
    assert (usage["cores"], usage["dollars_per_hour"], usage["idle_timeout_minutes"]) == (4, 0.36, 30)
    assert usage["session_dollars"] == usage["month_dollars"] == pytest.approx(0.012)


def test_one_that_was_found_running_has_no_known_cap(meter):
    meter.learn(RUNNING)
    usage = meter.to_json(busy=False)
    assert usage["running_since"] == "2026-11-23T12:00:00Z"
    assert (usage["running_since_exact"], usage["capped_at"]) == (False, None)


class TestCountdown:
    def test_from_the_last_use_that_the_provider_tells(self, meter):
        meter.learn(RUNNING)
        assert meter.to_json(busy=False)["idle_stops_at"] == "2026-11-23T12:30:00Z"

    def test_from_a_later_notice_of_ours(self, meter, clock):
        meter.learn(RUNNING)
        clock.now += 60
        meter.notified()
        assert meter.to_json(busy=False)["idle_stops_at"] == "2026-11-23T12:31:00Z"

    def test_none_while_it_is_kept_awake(self, meter):
        meter.learn(RUNNING)
        assert meter.to_json(busy=True)["idle_stops_at"] is None

    def test_none_when_it_is_stopped(self, meter):
        meter.learn(STOPPED)
        assert meter.to_json(busy=False)["idle_stops_at"] is None

    @pytest.mark.parametrize(
        "unknown", [{"idle_timeout_minutes": None}, {"last_used_at": ""}, {"last_used_at": "2026-11-23T12:00:00"}]
    )
    def test_none_where_it_is_not_known(self, meter, unknown):
        meter.learn(dataclasses.replace(RUNNING, **unknown))
        assert meter.to_json(busy=False)["idle_stops_at"] is None

    def test_none_when_it_was_evidently_wrong(self, meter, clock):
        meter.learn(RUNNING)
        clock.now += 31 * 60
        meter.learn(RUNNING)
        assert meter.to_json(busy=False)["idle_stops_at"] == "2026-11-23T12:30:00Z"
        clock.now += 300
        meter.learn(RUNNING)
        assert meter.to_json(busy=False)["idle_stops_at"] is None


class TestState:
    def test_as_the_provider_says(self, meter):
        assert meter.state is None
        meter.learn(STOPPED)
        assert meter.state is WorkspaceState.STOPPED

    def test_running_is_doubtful_after_a_while(self, meter, clock):
        meter.learn(RUNNING)
        assert meter.state is WorkspaceState.RUNNING
        clock.now += HOUR
        assert meter.state is None

    def test_a_stop_is_asked_about_at_once(self, meter):
        meter.learn(RUNNING)
        meter.stopped()
        assert meter.asked_at == 0
        assert meter.to_json(busy=False)["running_since"] is None

    def test_a_provider_that_has_not_heard_of_a_stop_yet_does_not_revive_it(self, meter, clock):
        meter.learn(RUNNING, started=True)
        clock.now += 10
        meter.stopped()
        meter.learn(RUNNING)
        assert meter.stops_soon
        assert meter.to_json(busy=False)["running_since"] is None
        meter.learn(STOPPED)
        assert not meter.stops_soon

    def test_a_stop_that_did_not_come_is_not_expected_for_ever(self, meter, clock):
        meter.learn(RUNNING)
        meter.stopped()
        clock.now += 120
        assert not meter.stops_soon
        meter.learn(RUNNING)
        assert meter.to_json(busy=False)["running_since"]

    def test_a_start_after_a_stop(self, meter, clock):
        meter.learn(RUNNING)
        meter.stopped()
        clock.now += 10
        meter.learn(RUNNING, started=True)
        assert not meter.stops_soon
        assert meter.to_json(busy=False)["running_since"] == iso(clock.now)

    def test_an_old_sign_of_life_does_not_revive_it(self, meter, clock):
        meter.learn(RUNNING, started=True)
        meter.heard(clock.now, "era")
        clock.now += 10
        meter.learn(STOPPED)
        meter.heard(NOON, "era")
        assert meter.to_json(busy=False)["running_since"] is None

    def test_one_that_was_deleted(self, meter):
        meter.learn(RUNNING)
        meter.is_gone()
        assert meter.state is None
        assert meter.to_json(busy=False)["running_since"] is None
