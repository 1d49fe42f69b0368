"""What a run writes, from numbers that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import bars
from benchmarks.measures import account_for, slope
from benchmarks.numbers import NETWORK_ALONE, percentile, ratios, spread
from benchmarks.plots import plot
from benchmarks.report import latency_table, page, rate_table

TUNNEL, SSH = "ours, tunnel", "ours, SSH"


def once(count: int, size: int, ms: float, *, idle: bool = True) -> dict[str, Any]:
    return {"ms": ms, "count": count, "bytes": size, "idle": idle}


@pytest.fixture
def results() -> dict[str, Any]:
    """A run of two rounds in which all promises are kept, but not those of a neighbour's flood."""
    latency = {"local": [[2.0] * 9, [4.0] * 9], TUNNEL: [[3.0] * 9, [6.0] * 9]}
    latency |= {SSH: [[2.4] * 9, [4.8] * 9], "sshpyk": [[2.3] * 9, [4.6] * 9], "gateway client": ["it: Oops: broke"]}
    burst = {"local": [once(20_000, 1, 1000.0)] * 2, TUNNEL: [once(20_000, 1, 1100.0)] * 2}
    burst |= {
        SSH: [once(20_000, 1, 1100.0)] * 2,
        "sshpyk": [once(19_000, 1, 900.0, idle=False), once(20_000, 1, 900.0)],
    }
    displays = {name: [once(50, 50_000_000, 500.0)] * 2 for name in ("local", TUNNEL, SSH)}
    quiet = {name: [[1.0] * 20] * 2 for name in (TUNNEL, SSH)}
    flooded = {name: [[1.0] * 15 + [9.0] * 5] * 2 for name in (TUNNEL, SSH)}
    trips = {"cold, ready": {TUNNEL: 12.1}, "cold, first result": {TUNNEL: 13.2}, "warm, ready": {TUNNEL: 1.1}}
    idle = {"process": "broker", "descriptors": 500, "threads": 9}
    return {
        "about": {"codespace-kernels": "1.2.3"},
        "peers": {"sshpyk": "9.8"},
        "networks": {"messages": "loopback", "40 ms": "40 ms, 100 Mbit/s"},
        "durations": {"messages": 61.4, "idle": 30.0},
        "messages": {"latency": latency, "burst": burst, "displays of 1 MB": displays},
        "40 ms": {
            "latency": {NETWORK_ALONE: [[41.2, 41.4]], TUNNEL: [[43.0], [46.0], [44.0]], SSH: [[47.0]]},
            "displays of 1 MB": {name: [once(50, 50_000_000, 4100.0)] for name in (TUNNEL, SSH)},
        },
        "neighbours": {
            "quiet": quiet,
            "beside a flood of lines": flooded,
            "beside a flood of 1 MB displays": quiet,
            "while the server reads notebooks": quiet,
        },
        "starts": {
            "cold": {"local": [500.0, 600.0], TUNNEL: [3000.0]},
            "warm": {"local": [500.0], TUNNEL: []},
            "restart": {},
            "connect, cold": {"gh codespace jupyter": [4000.0]},
            "connect, warm": {"gh codespace jupyter": [200.0]},
        },
        "round trips": trips,
        "black-outs": {"black-out": {TUNNEL: [{"lost": 0, "doubled": 0, "ordered": True}], "sshpyk": ["x: gone"]}},
        "idle": [
            {**idle, "kernels": 10, "MB": 90.0, "cpu %": 0.1},
            {**idle, "kernels": 100, "MB": 120.4, "cpu %": 0.5},
        ],
        "front end": {
            "launcher to bound ports, warm broker": {"codespace-kernel": [120.0, 130.0]},
            "import": {"jupyter_client alone": [100.0, 200.0], "with our provisioner": [110.0, 230.0]},
        },
    }


def judged(results: dict[str, Any]) -> dict[str, Any]:
    return {bar.what: bar for bar in bars(results)}


def test_a_run_without_any_part_promises_all_and_shows_nothing():
    found = bars({})
    assert len(found) == 25
    assert {(bar.measured, bar.met) for bar in found} == {("", None)}
    assert page({}).count("not measured") == 25


def test_promises_that_are_kept_and_one_that_is_not(results: dict[str, Any]):
    found = judged(results)
    assert {what for what, bar in found.items() if not bar.met} == {
        *(f"p95 beside a flood of lines, {way}, beside its quiet p95" for way in (TUNNEL, SSH)),
        f"latency at a round trip of 41.3 ms, {SSH}",
    }
    latency = found[f"latency on loopback, {TUNNEL}, beside local"]
    assert (latency.limit, latency.measured) == ("≤ 1.7 x", "1.50 [1.50-1.50] x")
    far = found[f"latency at a round trip of 41.3 ms, {TUNNEL}"]
    assert (far.limit, far.measured) == ("≤ 46.3 ms", "44.0 [43.0-46.0] ms")
    assert found[f"share of a link of 100 Mbit/s, {SSH}"].measured == "0.98 [0.98-0.98]"
    assert found["broker with 100 idle kernels: memory"].measured == "120 [120-120] MB"
    assert found["launcher up to bound ports, warm broker"].measured == "125 [120-130] ms"


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda found: found["messages"]["burst"][TUNNEL][1].update(count=19_999), f"{TUNNEL}: arrive"),
        (lambda found: found["round trips"]["warm, ready"].update({TUNNEL: 2.1}), "warm start"),
        (lambda found: found["round trips"]["cold, first result"].update({TUNNEL: 15.0}), "cold start"),
        (lambda found: found["black-outs"]["black-out"][TUNNEL][0].update(lost=1), "black-out"),
        (lambda found: found["black-outs"]["black-out"][TUNNEL].append("it: ended"), "black-out"),
        (lambda found: found["idle"][1].update({"cpu %": 1.5}), "a core"),
    ],
)
def test_a_promise_that_is_broken_is_told(results: dict[str, Any], change: Any, broken: str):
    results["messages"]["burst"][TUNNEL] = [dict(one) for one in results["messages"]["burst"][TUNNEL]]
    kept = {what for what, bar in judged(results).items() if bar.met}
    change(results)
    (what,) = kept - {what for what, bar in judged(results).items() if bar.met}
    assert broken in what
    assert "**no**" in next(line for line in page(results).splitlines() if what in line)


def test_the_page_has_all_parts_and_tells_versions_and_durations(results: dict[str, Any]):
    text = page(results)
    for title in (
        "What it should be, and what it is",
        "Messages, loopback",
        "Messages, 40 ms, 100 Mbit/s",
        "Beside a neighbour",
        "Starts",
        "Round trips",
        "A black-out of 15 s",
        "Idle kernels",
        "In a front end",
        "How long each part took",
    ):
        assert f"## {title}\n" in text
    assert "| codespace-kernels | 1.2.3 |" in text
    assert "| sshpyk (peers) | 9.8 |" in text
    assert "| all | 91 |" in text
    assert "| gh codespace jupyter | 4,000 [4,000-4,000] | 200 [200-200] |" in text
    assert "| import | with our provisioner | 170 [110-230] | 20 [10-30] |" in text


def test_every_row_of_a_table_has_as_many_columns_as_its_head(results: dict[str, Any]):
    for block in page(results).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_a_run_without_peers_says_so(results: dict[str, Any]):
    assert "peers were left out" not in page(results)
    assert "**The peers were left out.**" in page({**results, "peers": {}})


def test_latencies_failures_and_bursts_in_tables(results: dict[str, Any]):
    lines = latency_table(results["messages"]["latency"]).splitlines()
    assert f"| {TUNNEL} | 4.50 [3.00-6.00] | 6.00 | 1.50 [1.50-1.50] | 1.30 [1.30-1.30] |" in lines
    assert "| gateway client | fails (Oops: broke) |  |  |  |" in lines
    lines = rate_table(results["messages"]["burst"], "burst").splitlines()
    assert f"| {TUNNEL} | 18,182 [18,182-18,182] /s | 0.91 [0.91-0.91] | 20,000 |" in lines
    assert lines[-1].endswith("| 19,000-20,000, no end in 1 of 2 |")
    far = results["40 ms"]["displays of 1 MB"]
    lines = rate_table({"local": [once(50, 50_000_000, 500.0)], **far}, "displays of 1 MB", 100).splitlines()
    assert lines[-1] == f"| {SSH} | 12.20 [12.20-12.20] MB/s | 0.98 [0.98-0.98] | 50 |"
    assert lines[2] == "| local | 100.00 [100.00-100.00] MB/s |  | 50 |"


def test_pictures_are_written_and_small(results: dict[str, Any], tmp_path: Path):
    made = plot(results, tmp_path)
    assert {file.name for file in made} == {
        f"{name}.{kind}" for name in ("latency", "throughput", "starts") for kind in ("svg", "png")
    }
    for file in made:
        assert 1000 < file.stat().st_size < 150_000
    assert plot({}, tmp_path) == []


def test_ratios_leave_out_rounds_in_which_one_of_both_failed():
    assert ratios([2.0, "failed", 9.0], [1.0, 1.0, "failed"], float) == [2.0]
    assert ratios([2.0], [], float) == []
    assert (spread([]), spread([1.0, 3.0, 2.0], 0)) == ("", "2 [1-3]")
    assert percentile(range(100), 0.95) == 95


def test_round_trips_are_the_slope_of_the_least_times():
    assert slope([(50.0, 600.0), (50.0, 650.0), (150.0, 800.0), (150.0, 900.0)]) == 2.0


def test_lines_are_accounted_for():
    lines = [f"line {number}\n" for number in range(300)]
    assert account_for("".join(lines)) == {"lost": 0, "doubled": 0, "ordered": True}
    assert account_for("".join([*lines[:9], *lines[8:250]])) == {"lost": 50, "doubled": 1, "ordered": True}
    assert not account_for("".join([lines[1], lines[0]]))["ordered"]
