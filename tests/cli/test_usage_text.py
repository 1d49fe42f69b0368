"""Uptime, countdown and costs in words."""

import pytest

from codespace_kernels.broker.usage import iso
from codespace_kernels.cli import usage_text

NOW = 1_795_435_200.0


def usage(**known) -> dict:
    unknown = {"running_since": None, "running_since_exact": False, "capped_at": None, "idle_stops_at": None,
               "session_dollars": None, "month_dollars": None, "month_hours": 0.0}  # fmt: skip
    return {**unknown, **known}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (7500, "2 h 5 min")]
)
def test_duration(seconds, text):
    assert usage_text.duration(seconds) == text


def test_uptime():
    assert usage_text.uptime(usage(), NOW) == ""
    found = usage(running_since=iso(NOW - 720))
    assert usage_text.uptime(found, NOW) == "at least 12 min"
    assert usage_text.uptime({**found, "running_since_exact": True}, NOW) == "12 min"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, ""),
        ({"awake_until": iso(NOW + 3600)}, "kept awake"),
        ({"awake_until": iso(NOW + 3600), "keep_awake": "always"}, "kept awake, even if idle"),
        ({"awake_until": iso(NOW + 1500)}, "kept awake, for 25 min more"),
        ({"awake_until": iso(NOW - 60)}, "kept awake no longer"),
        (
            {"awake_until": iso(NOW - 60), "idle_stops_at": iso(NOW + 1500)},
            "in 25 min: kept awake no longer, as nobody uses it",
        ),
        ({"idle_stops_at": iso(NOW + 725)}, "in 12 min if idle"),
        ({"idle_stops_at": iso(NOW + 725), "keep_awake": "never"}, "in 12 min if idle, and no kernel keeps it awake"),
        ({"idle_stops_at": iso(NOW - 3)}, "any moment if idle"),
        (
            {"idle_stops_at": iso(NOW + 725), "stop_when_idle_at": iso(NOW + 300)},
            "in 5 min if idle, as its kernelspec says",
        ),
        ({"idle_stops_at": iso(NOW + 725), "stop_when_idle_at": iso(NOW + 900)}, "in 12 min if idle"),
        ({"capped_at": iso(NOW + 7200), "awake_until": iso(NOW + 3600)}, "kept awake"),
        ({"capped_at": iso(NOW + 1200), "idle_stops_at": iso(NOW + 1500)}, "in 20 min, at its longest session"),
        ({"capped_before": iso(NOW + 1200)}, "in 20 min at the latest, at its longest session"),
        ({"capped_before": iso(NOW - 60), "idle_stops_at": iso(NOW + 725)}, "in 12 min if idle"),
    ],
)
def test_stops(known, text):
    assert usage_text.stops(usage(**known), NOW) == text


def test_costs():
    assert usage_text.price(None) == usage_text.session_cost(usage()) == usage_text.month_cost(usage()) == ""
    assert usage_text.price(0.36) == "$0.36 an hour"
    assert usage_text.session_cost(usage(session_dollars=0.004)) == "under $0.01"
    assert usage_text.month_cost(usage(month_dollars=3.104, month_hours=8.625)) == "$3.10 for 8 h 37 min"
    assert usage_text.month_cost(usage(month_hours=2.0)) == "2 h"
