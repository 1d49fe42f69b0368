"""Makes a page and pictures of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LOCAL = "local"


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def numbers(samples: list[Any]) -> list[Any]:
    """Leave out the texts of failures."""
    return [sample for sample in samples if not isinstance(sample, str)]


def flat(samples: list[Any]) -> list[float]:
    return [value for sample in numbers(samples) for value in sample]


def failure(samples: list[Any]) -> str:
    return next((f"fails ({sample.partition(': ')[2][:60]})" for sample in samples if isinstance(sample, str)), "")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def latency_table(samples: dict[str, list[Any]]) -> str:
    """Median and p95 over all rounds, the spread of the rounds' medians, and ratios of the medians."""
    medians = {name: median(flat(of)) for name, of in samples.items() if flat(of)}
    rows = []
    for name in samples:
        if name not in medians:
            rows.append([name, failure(samples[name]), "", "", ""])
            continue
        rounds = [median(one) for one in numbers(samples[name])]
        rows.append(
            [
                name,
                f"{medians[name]:.2f} [{min(rounds):.2f}-{max(rounds):.2f}]",
                f"{percentile(flat(samples[name]), 0.95):.2f}",
                _ratio(medians, name, LOCAL),
                _ratio(medians, name, "sshpyk"),
            ]
        )
    return table(["way", "median, ms [rounds]", "p95", "x local", "x sshpyk"], rows)


def _ratio(values: dict[str, float], name: str, base: str) -> str:
    return f"{values[name] / values[base]:.2f}" if values.get(base) else ""


def rate_table(samples: dict[str, list[Any]], what: str) -> str:
    """Rates, and what arrived, of things that are done once a round."""
    rates = {name: found for name, of in samples.items() if (found := rate(of, what))}
    rows = []
    for name, of in samples.items():
        text = (
            ""
            if name not in rates
            else f"{rates[name]:,.0f} /s"
            if what == "burst"
            else f"{rates[name] / 1e6:.0f} MB/s"
        )
        row = [name, f"{text} {failure(of)}".strip(), _ratio(rates, name, LOCAL) if name in rates else ""]
        rows.append([*row, _arrived(numbers(of))] if what == "burst" else row)
    return table(["way", "rate", "x local", *(["arrived of 20,000"] if what == "burst" else [])], rows)


def _arrived(found: list[dict[str, Any]]) -> str:
    if not found:
        return ""
    counts = [int(one["count"]) for one in found]
    lost = sum(not one["idle"] for one in found)
    return f"{min(counts)}-{max(counts)}, idle lost {lost}/{len(counts)}"


def starts_table(samples: dict[str, dict[str, list[float]]]) -> str:
    rows = [[name, *(_spread(of.get(name, [])) for of in samples.values())] for name in samples["cold"]]
    return table(["way", *(f"{what}, ms" for what in samples)], rows)


def _spread(values: list[float]) -> str:
    return f"{median(values):.0f} [{min(values):.0f}-{max(values):.0f}]" if values else ""


def trips_table(trips: dict[str, dict[str, float]]) -> str:
    rows = [[name, *(f"{of[name]:.1f}" if name in of else "" for of in trips.values())] for name in trips["warm"]]
    return table(["way", *trips], rows)


def black_out_table(samples: dict[str, list[Any]]) -> str:
    rows = []
    for name, of in samples.items():
        lost = ", ".join(str(one["lost"]) if not isinstance(one, str) else "failed" for one in of)
        doubled = ", ".join(str(one["doubled"]) for one in numbers(of))
        ordered = "yes" if all(one["ordered"] for one in numbers(of)) else "no"
        rows.append([name, lost, doubled, ordered])
    return table(["way", "lines lost of 300, each round", "doubled", "in order"], rows)


def idle_table(rows: list[dict[str, Any]]) -> str:
    head = ["kernels", "process", "memory, MB", "CPU of one core", "descriptors", "threads"]
    texts = []
    for row in rows:
        measured = [f"{row['MB']:.0f}", f"{row['cpu %']:.2f} %", str(row["descriptors"]), str(row["threads"])]
        texts.append([str(row["kernels"]), row["process"], *measured])
    return table(head, texts)


def cost_table(cost: dict[str, dict[str, list[float]]]) -> str:
    rows = [[what, which, _spread(values)] for what, of in cost.items() for which, values in of.items()]
    return table(["what", "which", "ms"], rows)


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw latency and throughput beside the local kernel; give the files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "codespace-kernels"
    found = results.get("messages", {})
    made = []
    if "latency" in found:
        made += _save(_latency_figure(plt, found["latency"]), folder / "latency")
    rates = {what: of for what, of in found.items() if what != "latency"}
    if rates:
        made += _save(_rates_figure(plt, rates), folder / "throughput")
    return made


def _latency_figure(plt: Any, samples: dict[str, list[Any]]) -> Any:
    times = {name: flat(of) for name, of in samples.items() if flat(of)}
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(times) + 1.2), layout="constrained")
    axes.boxplot(list(times.values()), orientation="horizontal", whis=(5, 95), showfliers=False)
    axes.set_yticks(range(1, len(times) + 1), list(times))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms from request to reply and idle of `pass`; whiskers: 5 and 95 %")
    return figure


def _rates_figure(plt: Any, rates: dict[str, dict[str, list[Any]]]) -> Any:
    names = list(next(iter(rates.values())))
    figure, all_axes = plt.subplots(
        1, len(rates), figsize=(2.4 * len(rates), 3), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (what, of) in zip(all_axes[0], rates.items(), strict=True):
        values = [rate(of.get(name, []), what) for name in names]
        axes.barh(names, [value / values[0] if values[0] else 0 for value in values])
        axes.set_title(what, fontsize=9)
        axes.set_xlabel("x local", fontsize=8)
    all_axes[0][0].invert_yaxis()
    return figure


def rate(samples: list[Any], what: str) -> float:
    """Give the median of messages or bytes a second; 0 where there is none."""
    key = "count" if what == "burst" else "bytes"
    found = [one[key] / one["ms"] * 1000 for one in numbers(samples)]
    return median(found) if found else 0.0


def _save(figure: Any, path: Path) -> list[Path]:
    import matplotlib.pyplot as plt

    made = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    for file in made:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=110)
    plt.close(figure)
    return made


def page(results: dict[str, Any]) -> str:
    """Give the page's tables."""
    parts = []
    for name, title in results["networks"].items():
        if name in results:
            parts += _messages(title, results[name])
    if "neighbours" in results:
        parts.append("## Beside a neighbour")
        for what, samples in results["neighbours"].items():
            parts += [f"`pass`, {what}:", latency_table(samples)]
    for name, title, make in (
        ("starts", "From a start to the first result", starts_table),
        ("round trips", "Round trips", trips_table),
        ("black-outs", "A black-out of 15 s", lambda found: black_out_table(found["black-out"])),
        ("idle", "Idle kernels", idle_table),
        ("front end", "In a front end", cost_table),
    ):
        if name in results:
            parts += [f"## {title}", make(results[name])]
    return "\n\n".join(parts) + "\n"


def _messages(title: str, found: dict[str, Any]) -> list[str]:
    latency = latency_table(found["latency"])
    parts = [f"## Messages, {title}", "`pass`, from request to reply and idle:", latency]
    for what, samples in found.items():
        if what != "latency":
            parts += [f"**{what}**", rate_table(samples, what)]
    return parts
