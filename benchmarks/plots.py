"""Draws what was measured, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.numbers import LOCAL, bytes_a_second, flat, median, messages_a_second, numbers

Samples = dict[str, list[Any]]


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw latency, throughput beside the local kernel, and starts; give the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    # The same numbers make the same file.
    plt.rcParams["svg.hashsalt"] = "codespace-kernels"
    found = results.get("messages", {})
    rates = {what: of for what, of in found.items() if what != "latency"}
    starts = {what: of for what, of in results.get("starts", {}).items() if what in ("cold", "warm") and of}
    made = []
    if any(map(flat, found.get("latency", {}).values())):
        made += _save(plt, _latency_figure(plt, found["latency"]), folder / "latency")
    if rates:
        made += _save(plt, _rates_figure(plt, rates), folder / "throughput")
    if starts:
        made += _save(plt, _starts_figure(plt, starts), folder / "starts")
    return made


def _latency_figure(plt: Any, samples: Samples) -> Any:
    times = {name: flat(of) for name, of in samples.items() if flat(of)}
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(times) + 1.2), layout="constrained")
    axes.boxplot(list(times.values()), orientation="horizontal", whis=(5, 95), showfliers=False)
    axes.set_yticks(range(1, len(times) + 1), list(times))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms from request to reply and idle of `pass`; whiskers: 5 and 95 %")
    return figure


def _rates_figure(plt: Any, rates: dict[str, Samples]) -> Any:
    names = list(next(iter(rates.values())))
    size = (2.4 * len(rates), 3)
    figure, grid = plt.subplots(1, len(rates), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axes, (what, of) in zip(grid[0], rates.items(), strict=True):
        value = messages_a_second if what.startswith("burst") else bytes_a_second
        medians = {name: median(map(value, numbers(samples))) for name, samples in of.items() if numbers(samples)}
        local = medians.get(LOCAL, 0.0)
        axes.barh(names, [medians.get(name, 0.0) / local if local else 0.0 for name in names])
        axes.set_title(what, fontsize=9)
        axes.set_xlabel("x local", fontsize=8)
    grid[0][0].invert_yaxis()
    return figure


def _starts_figure(plt: Any, starts: dict[str, Samples]) -> Any:
    names = list(dict.fromkeys(name for of in starts.values() for name in of))
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(names) + 1.2), layout="constrained")
    height = 0.8 / len(starts)
    for number, (what, of) in enumerate(starts.items()):
        places = [at + (number - (len(starts) - 1) / 2) * height for at in range(len(names))]
        values = [median(of[name]) if of.get(name) else 0.0 for name in names]
        axes.barh(places, values, height=height, label=what)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("ms from a start to the first result")
    axes.legend()
    return figure


def _save(plt: Any, figure: Any, path: Path) -> list[Path]:
    made = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    for file in made:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=110)
    plt.close(figure)
    return made
