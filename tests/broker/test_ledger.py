"""What is written down of a workspace's running, by a clock of the test's own."""

from __future__ import annotations

import datetime
import json
import stat

import pytest

from codespace_kernels.broker.ledger import Ledger

HOUR = 3600.0
NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC).timestamp()
KEY = "account/hello"


class Clock:
    """Unix time that a test moves."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock) -> Ledger:
    return Ledger(tmp_path / "usage.json", clock=clock)


def watch(ledger: Ledger, clock: Clock, hours: float, **seen) -> None:
    """Have the workspace seen running once a minute, for so long."""
    for _ in range(int(hours * 60)):
        clock.now += 60
        ledger.seen_running(KEY, **seen)


def again(ledger: Ledger, clock: Clock, tmp_path) -> Ledger:
    """Give the ledger of the next broker."""
    ledger.save(ledger.to_text())
    return Ledger(tmp_path / "usage.json", clock=clock)


def test_a_start_that_was_seen_is_exact_and_costs_from_then_on(ledger, clock):
    ledger.seen_running(KEY, cores=4, started=True)
    watch(ledger, clock, 2)
    session = ledger.session(KEY)
    assert (session.begin, session.exact) == (NOON, True)
    assert session.dollars(session.hours(session.begin, session.end)) == pytest.approx(0.72)
    assert ledger.month(KEY) == pytest.approx((2.0, 0.72))


def test_it_grows_between_two_sightings(ledger, clock):
    ledger.seen_running(KEY, cores=2)
    clock.now += 90
    assert ledger.month(KEY).hours == pytest.approx(90 / HOUR)


def test_one_that_was_found_running_is_not_exact(ledger):
    ledger.seen_running(KEY, cores=2)
    assert not ledger.session(KEY).exact


def test_a_stop_closes_it(ledger, clock):
    ledger.seen_running(KEY, cores=2, started=True)
    clock.now += 60
    ledger.seen_stopped(KEY)
    clock.now += HOUR
    ledger.seen_stopped(KEY)
    assert ledger.session(KEY) is None
    assert ledger.month(KEY).hours == pytest.approx(60 / HOUR)


def test_a_start_soon_after_a_stop_is_another_run(ledger, clock):
    ledger.seen_running(KEY, cores=2, started=True)
    clock.now += 30
    ledger.seen_stopped(KEY)
    clock.now += 30
    ledger.seen_running(KEY, cores=2)
    assert ledger.session(KEY).begin == clock.now
    assert ledger.month(KEY).hours == pytest.approx(30 / HOUR)


class TestGaps:
    def test_an_unknown_one_does_not_count(self, ledger, clock):
        watch(ledger, clock, 1, cores=2)
        clock.now += 5 * HOUR
        assert ledger.session(KEY) is None
        ledger.seen_running(KEY, cores=2)
        assert ledger.session(KEY).begin == clock.now
        assert ledger.month(KEY).hours == pytest.approx(59 / 60)

    def test_a_stop_that_is_seen_late_does_not_lengthen_it(self, ledger, clock):
        watch(ledger, clock, 1, cores=2)
        clock.now += 5 * HOUR
        ledger.seen_stopped(KEY)
        assert ledger.month(KEY).hours == pytest.approx(59 / 60)

    def test_one_within_an_era_counts(self, ledger, clock):
        ledger.seen_running(KEY, cores=2, started=True)
        ledger.seen_running(KEY, era="a")
        clock.now += 5 * HOUR
        ledger.seen_running(KEY, era="a")
        assert (ledger.session(KEY).begin, ledger.session(KEY).exact) == (NOON, True)
        assert ledger.month(KEY).hours == pytest.approx(5)

    def test_one_between_two_eras_does_not(self, ledger, clock):
        ledger.seen_running(KEY, cores=2, era="a")
        clock.now += 5 * HOUR
        ledger.seen_running(KEY, cores=2, era="b")
        assert ledger.month(KEY).hours == 0

    def test_the_era_joins_what_was_seen_before_it_was_known(self, ledger, clock):
        ledger.seen_running(KEY, cores=2, era="a")
        clock.now += 5 * HOUR
        ledger.seen_running(KEY, cores=2)
        clock.now += 10
        ledger.seen_running(KEY, era="a")
        assert ledger.session(KEY).begin == NOON

    def test_over_the_end_of_a_broker(self, ledger, clock, tmp_path):
        ledger.seen_running(KEY, cores=2, era="a")
        clock.now += HOUR
        ledger = again(ledger, clock, tmp_path)
        assert ledger.session(KEY) is None
        ledger.seen_running(KEY, cores=2, era="a")
        assert ledger.session(KEY).begin == NOON


class TestMonth:
    def test_begins_in_utc(self, ledger, clock):
        clock.now = datetime.datetime(2026, 10, 31, 23, tzinfo=datetime.UTC).timestamp()
        ledger.seen_running(KEY, cores=8, era="a")
        clock.now += 3 * HOUR
        ledger.seen_running(KEY, era="a")
        assert ledger.month(KEY) == pytest.approx((2.0, 1.44))
        assert ledger.session(KEY).hours(0, clock.now) == pytest.approx(3)

    def test_machine_without_a_price(self, ledger, clock):
        watch(ledger, clock, 1, cores=6)
        assert ledger.month(KEY).dollars is None
        assert ledger.month(KEY).hours == pytest.approx(59 / 60)

    def test_unknown_workspace(self, ledger):
        assert ledger.month("account/other") == (0.0, 0.0)
        assert ledger.session("account/other") is None

    def test_a_machine_that_was_changed_costs_from_the_next_start_on(self, ledger, clock):
        ledger.seen_running(KEY, cores=2, started=True)
        watch(ledger, clock, 1, cores=32)
        assert ledger.month(KEY).dollars == pytest.approx(0.18)
        ledger.seen_stopped(KEY)
        ledger.seen_running(KEY, cores=32, started=True)
        watch(ledger, clock, 1)
        assert ledger.month(KEY).dollars == pytest.approx(0.18 + 2.88)


class TestFile:
    def test_outlives_the_broker(self, ledger, clock, tmp_path):
        watch(ledger, clock, 1, cores=2, era="a")
        assert again(ledger, clock, tmp_path).month(KEY) == ledger.month(KEY)
        assert stat.S_IMODE((tmp_path / "usage.json").stat().st_mode) == 0o600

    def test_forgets_after_a_year_and_some(self, ledger, clock, tmp_path):
        watch(ledger, clock, 1, cores=2)
        clock.now += 390 * 86400
        assert KEY in again(ledger, clock, tmp_path).to_text()
        clock.now += 20 * 86400
        assert json.loads(again(ledger, clock, tmp_path).to_text())["workspaces"] == {}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            '{"version": 2, "workspaces": {}}',
            '{"version": 1, "workspaces": {"account/hello": [{"begin": 1, "en',
            '{"version": 1, "workspaces": {"account/hello": [{"begin": 2.0, "end": 1.0}]}}',
            '{"version": 1, "workspaces": {"account/hello": [{"begin": 1.0, "end": NaN}]}}',
            '{"version": 1, "workspaces": {"account/hello": [{"begin": 1.0, "end": 2.0, "cores": true}]}}',
            '{"version": 1, "workspaces": {"account/hello": [{"begin": 1.0, "end": 2.0, "surprise": 1}]}}',
            '{"version": 1, "workspaces": {"account/hello": 7}}',
            "\udcff",
        ],
    )
    def test_that_is_torn_or_foreign_is_set_aside(self, tmp_path, clock, text):
        path = tmp_path / "usage.json"
        path.write_bytes(text.encode(errors="surrogateescape"))
        assert Ledger(path, clock=clock, read_only=True).month(KEY).hours == 0
        assert path.exists()
        ledger = Ledger(path, clock=clock)
        assert not path.exists()
        assert (tmp_path / "usage.set-aside").read_bytes() == text.encode(errors="surrogateescape")
        ledger.seen_running(KEY, cores=2)
        assert again(ledger, clock, tmp_path).session(KEY).begin == NOON

    def test_that_cannot_be_written_is_no_failure(self, tmp_path, clock):
        ledger = Ledger(tmp_path / "missing" / "usage.json", clock=clock)
        ledger.seen_running(KEY)
        ledger.save(ledger.to_text())
        assert ledger.session(KEY) is not None
