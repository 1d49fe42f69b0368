"""Makes a page of what was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.bars import Bar, bars
from benchmarks.numbers import (
    LOCAL,
    bytes_a_second,
    flat,
    median,
    messages_a_second,
    numbers,
    p95,
    ratios,
    spread,
)

Samples = dict[str, list[Any]]


def page(results: dict[str, Any]) -> str:
    """Give the page."""
    parts = ["# Measured", about(results.get("about", {}), results.get("peers", {}))]
    parts += ["## What it should be, and what it is", bar_table(bars(results))]
    for name, title in results.get("networks", {}).items():
        if name in results:
            parts += _messages(title, results[name], results.get("mbits", {}).get(name, 0.0))
    if "neighbours" in results:
        parts.append("## Beside a neighbour")
        for what, samples in results["neighbours"].items():
            parts += [f"`pass`, {what}:", latency_table(samples)]
    for name, title, make in (
        ("starts", "Starts", starts_tables),
        ("round trips", "Round trips", trips_table),
        ("black-outs", "A black-out of 15 s", lambda found: black_out_table(found["black-out"])),
        ("idle", "Idle kernels", idle_table),
        ("front end", "In a front end", cost_table),
        ("durations", "How long each part took", durations_table),
    ):
        if results.get(name):
            parts += [f"## {title}", make(results[name])]
    return "\n\n".join(parts) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Give a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def about(here: dict[str, str], peers: dict[str, str]) -> str:
    """Tell what was measured, and where."""
    rows = [*here.items(), *((f"{name} (peers)", version) for name, version in peers.items())]
    told = table(["what", "version"], [[name, version] for name, version in rows])
    how = "Medians; in brackets the least and the most of the rounds. A ratio is the median of each round's ratio."
    return f"{told}\n\n{how}" if peers else f"{told}\n\n{how} **The peers were left out.**"


def bar_table(of: list[Bar]) -> str:
    """Say which bars are met."""
    met = {True: "yes", False: "**no**", None: ""}
    return table(
        ["what", "bar", "measured", "met?"],
        [[bar.what, bar.limit, bar.measured or "not measured", met[bar.met]] for bar in of],
    )


def failure(samples: list[Any]) -> str:
    """Tell why a way has no more numbers; empty where it has all."""
    return next((f"fails ({sample.partition(': ')[2][:60]})" for sample in samples if isinstance(sample, str)), "")


def latency_table(samples: Samples) -> str:
    """Give median and p95 of all rounds, and ratios of the rounds' medians."""
    rows = []
    for name, of in samples.items():
        if not flat(of):
            rows.append([name, failure(of), "", "", ""])
            continue
        rounds = [median(one) for one in numbers(of)]
        measured = f"{median(flat(of)):.2f} [{min(rounds):.2f}-{max(rounds):.2f}]"
        beside = [spread(ratios(of, samples.get(base, []), median)) for base in (LOCAL, "sshpyk")]
        rows.append([name, f"{measured} {failure(of)}".strip(), f"{p95(flat(of)):.2f}", *beside])
    return table(["way", "median, ms", "p95, ms", "x local", "x sshpyk"], rows)


def rate_table(samples: Samples, what: str, mbit: float = 0.0) -> str:
    """Give rates, and what arrived, of things that are done once a round.

    Args:
        samples: By way.
        what: Was done.
        mbit: Of the link in Mbit/s, whose share stands in the table instead of what local ones do; 0: no limit.
    """
    burst = what.startswith("burst")
    value = messages_a_second if burst else bytes_a_second
    rows = []
    for name, of in samples.items():
        found = [value(one) for one in numbers(of)]
        text = f"{spread(found, 0)} /s" if burst else f"{spread([one / 1e6 for one in found])} MB/s"
        beside = spread(ratios(of, samples.get(LOCAL, []), value))
        if mbit and not burst:
            beside = spread([bytes_a_second(one) * 8e-6 / mbit for one in numbers(of)]) if name != LOCAL else ""
        rows.append([name, f"{text if found else ''} {failure(of)}".strip(), beside, arrived(numbers(of))])
    return table(
        ["way", "rate", "share of the link" if mbit and not burst else "x local", "messages that arrived"], rows
    )


def arrived(found: list[dict[str, Any]]) -> str:
    """Tell how many messages came, at least and at most, and how often the end did not come in time, or at all."""
    if not found or "count" not in found[0]:
        return ""
    counts = [int(one["count"]) for one in found]
    lost = sum(not one["idle"] for one in found)
    text = f"{counts[0]:,}" if len(set(counts)) == 1 else f"{min(counts):,}-{max(counts):,}"
    return f"{text}, no end in {lost} of {len(found)}" if lost else text


def starts_tables(samples: dict[str, Samples]) -> str:
    """Give starts of kernels, and how long it takes to connect."""
    starts = {what: of for what, of in samples.items() if not what.startswith("connect")}
    connects = {what: of for what, of in samples.items() if what.startswith("connect")}
    parts = ["From a start to the first result:", by_way(starts)]
    if any(connects.values()):
        parts += ["From the start of a command until a running codespace is connected:", by_way(connects)]
    return "\n\n".join(parts)


def by_way(samples: dict[str, Samples]) -> str:
    """Give milliseconds, a column for each thing that is done."""
    names = dict.fromkeys(name for of in samples.values() for name in of)
    rows = [[name, *(spread(of.get(name, []), 0) for of in samples.values())] for name in names]
    return table(["way", *(f"{what}, ms" for what in samples)], rows)


def trips_table(trips: dict[str, dict[str, float]]) -> str:
    """Give how many round trips each thing takes."""
    names = dict.fromkeys(name for of in trips.values() for name in of)
    rows = [[name, *(f"{of[name]:.1f}" if name in of else "" for of in trips.values())] for name in names]
    return table(["way", *trips], rows)


def black_out_table(samples: Samples) -> str:
    """Give what became of the lines."""
    rows = []
    for name, of in samples.items():
        lost = ", ".join(str(one["lost"]) if not isinstance(one, str) else "failed" for one in of)
        doubled = ", ".join(str(one["doubled"]) for one in numbers(of))
        ordered = "yes" if all(one["ordered"] for one in numbers(of)) else "no"
        rows.append([name, lost, doubled, ordered if numbers(of) else ""])
    return table(["way", "lines lost of 300, each round", "doubled", "in order"], rows)


def idle_table(rows: list[dict[str, Any]]) -> str:
    """Give what processes take that hold idle kernels."""
    head = ["kernels", "process", "memory, MB", "CPU of one core", "descriptors", "threads"]
    texts = []
    for row in rows:
        measured = [f"{row['MB']:.0f}", f"{row['cpu %']:.2f} %", str(row["descriptors"]), str(row["threads"])]
        texts.append([str(row["kernels"]), row["process"], *measured])
    return table(head, texts)


def cost_table(cost: dict[str, Samples]) -> str:
    """Give milliseconds, and how many more they are than with what is named first."""
    rows = []
    for what, of in cost.items():
        first = next(iter(of.values()))
        for which, values in of.items():
            more = [one - base for one, base in zip(values, first, strict=False)] if values is not first else []
            rows.append([what, which, spread(values, 0), spread(more, 0)])
    return table(["what", "which", "ms", "more"], rows)


def durations_table(durations: dict[str, float]) -> str:
    """Give seconds, and their sum."""
    rows = [[name, f"{seconds:.0f}"] for name, seconds in durations.items()]
    return table(["part", "s"], [*rows, ["all", f"{sum(durations.values()):.0f}"]])


def _messages(title: str, found: dict[str, Samples], mbit: float) -> list[str]:
    parts = [f"## Messages, {title}", "`pass`, from request to reply and idle:", latency_table(found["latency"])]
    for what, samples in found.items():
        if what != "latency":
            parts += [f"**{what}**", rate_table(samples, what, mbit)]
    return parts
