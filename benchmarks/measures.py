"""What is measured, way beside way: each takes its turn, in a new order in each round; a busy moment hits all."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat

from benchmarks.scene import BenchmarkError, FrontEnd, Scene, Way

Samples = dict[str, list[Any]]
"""By path, what each round gave; a text where it failed."""

SMALL, MEGABYTE = 1_000, 1_000_000


class Log:
    """Tells what is being done."""

    def __call__(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


log = Log()


@contextlib.contextmanager
def opened(paths: list[Way]) -> Iterator[dict[str, FrontEnd]]:
    """Give a kernel of each path; one that cannot be had is told and left out."""
    with contextlib.ExitStack() as stack:
        fronts = {}
        for path in paths:
            try:
                fronts[path.name] = stack.enter_context(path.started())
            except BenchmarkError as error:
                log(f"{path.name} does not start: {error}")
        yield fronts


def in_turns(fronts: dict[str, FrontEnd], rounds: int, measure: Callable[[FrontEnd], Any], what: str) -> Samples:
    """Measure all in turns; a path that failed has no more turns, as its front end may still be busy."""
    samples: Samples = {name: [] for name in fronts}
    failed: set[str] = set()
    for number in range(rounds):
        for name in random.sample(list(fronts), len(fronts)):
            if name in failed:
                continue
            log(f"{what}, round {number + 1} of {rounds}: {name}")
            try:
                samples[name].append(measure(fronts[name]))
            except BenchmarkError as error:
                failed.add(name)
                samples[name].append(str(error).splitlines()[0])
    return samples


# -- messages ---------------------------------------------------------------------------------------------------------


def latency(count: int) -> Callable[[FrontEnd], list[float]]:
    return lambda front: front.do("latency", count=count)["ms"]


def executed(code: str, kind: str = "") -> Callable[[FrontEnd], dict[str, float]]:
    """Give milliseconds, how many messages of a kind came, and their bytes."""

    def measure(front: FrontEnd) -> dict[str, float]:
        result = front.do("execute", code=code, timeout=30.0)
        counts = result["counts"]
        return {"ms": result["ms"], "count": counts.get(kind, 0), "bytes": result["bytes"], "idle": result["idle"]}

    return measure


def sent_up(count: int, size: int) -> Callable[[FrontEnd], dict[str, float]]:
    return lambda front: {**front.do("buffers_up", count=count, size=size), "bytes": count * size}


MESSAGES: dict[str, tuple[Callable[[FrontEnd], Any], int]] = {
    "burst": (executed("burst(20000)", "stream"), 20_000),
    "print": (executed("prints(100)", "stream"), 100 * MEGABYTE),
    "displays of 1 MB": (executed("displays(100, 1_000_000)", "display_data"), 100 * MEGABYTE),
    "displays of 10 MB": (executed("displays(10, 10_000_000)", "display_data"), 100 * MEGABYTE),
    "buffers down": (executed("buffers_down(10, 10_000_000)", "comm_msg"), 100 * MEGABYTE),
    "buffers up": (sent_up(5, 10 * MEGABYTE), 50 * MEGABYTE),
}
"""What is done, and how many messages or bytes that are."""


def messages(scene: Scene, rounds: int, count: int, names: list[str]) -> dict[str, Samples]:
    """Latency and throughput of all paths that are kernels at the same time."""
    paths = scene.paths()
    results: dict[str, Samples] = {}
    with opened(list(paths.values())) as fronts:
        in_turns(fronts, 1, latency(20), "warm-up")
        results["latency"] = in_turns(fronts, rounds, latency(count), "latency")
        for name in names:
            # Who could not do one thing is asked for the next by a new kernel.
            results[name] = in_turns(fronts, rounds, MESSAGES[name][0], name)
            for failed in [n for n, samples in results[name].items() if samples and isinstance(samples[-1], str)]:
                fronts.pop(failed).end()
    return results


# -- neighbours -------------------------------------------------------------------------------------------------------


def neighbours(scene: Scene, rounds: int, count: int) -> dict[str, Samples]:
    """Latency on one kernel: quiet, while another one of the same path floods, and while the server reads notebooks."""
    results: dict[str, Samples] = {}
    names = [name for name in scene.paths() if name not in ("gateway client", "jupyter-kernel-client")]
    paths = [scene.paths()[name] for name in names]
    with opened(paths) as quiet, opened([path for path in paths if path.name in quiet]) as loud:
        in_turns(quiet, 1, latency(20), "warm-up")
        results["quiet"] = in_turns(quiet, rounds, latency(count), "quiet")

        def beside_flood(kind: str) -> Callable[[FrontEnd], Any]:
            def measure(front: FrontEnd) -> Any:
                other = loud[front.path.name]
                seconds = 1 + 0.03 * count
                other.begin("execute", code=f"flood({seconds}, {kind!r})")
                time.sleep(0.3)
                times = front.do("latency", count=count)["ms"]
                other.result()
                return times

            return measure

        results["beside a flood of lines"] = in_turns(quiet, rounds, beside_flood("lines"), "flood of lines")
        results["beside a flood of 1 MB displays"] = in_turns(
            quiet, rounds, beside_flood("displays"), "flood of displays"
        )

        _write_notebook(scene)
        servers = {name: scene.our_server(in_codespace="tunnel" in name) for name in quiet if name.startswith("ours")}
        theirs = {"url": f"http://127.0.0.1:{scene.forwarded}/", "token": ""}

        def beside_reading(front: FrontEnd) -> Any:
            with reading_notebooks(servers.get(front.path.name, theirs)):
                return front.do("latency", count=count)["ms"]

        results["while the server reads notebooks"] = in_turns(quiet, rounds, beside_reading, "reading notebooks")
    return results


def _write_notebook(scene: Scene) -> None:
    cells = [nbformat.v4.new_code_cell("x = 1\n" * 1000) for _ in range(1200)]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    (scene.far / "large.ipynb").write_text(text)
    for server in scene.our_servers():
        Path(server["folder"], "large.ipynb").write_text(text)


@contextlib.contextmanager
def reading_notebooks(server: dict[str, Any]) -> Iterator[None]:
    """Have somebody read a large notebook without rest, through a Jupyter server."""
    over = threading.Event()
    done = 0

    def work() -> None:
        nonlocal done
        headers = {"Authorization": f"token {server['token']}"} if server["token"] else {}
        with httpx.Client(headers=headers, timeout=60) as http:
            while not over.is_set():
                http.get(f"{server['url']}api/contents/large.ipynb").raise_for_status()
                done += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if not done:
            raise BenchmarkError(f"{server['url']}: no notebook was read")


# -- starts -----------------------------------------------------------------------------------------------------------


def starts(scene: Scene, rounds: int) -> dict[str, Samples]:
    """Milliseconds from a start to the first result: with nothing running, with a connection; and of restarts."""
    results: dict[str, Samples] = {"cold": {}, "warm": {}, "restart": {}}
    paths = scene.paths()
    for number in range(rounds):
        for name in random.sample(list(paths), len(paths)):
            path = paths[name]
            log(f"starts, round {number + 1} of {rounds}: {name}")
            scene.make_cold()
            try:
                with path.started() as first:
                    results["cold"].setdefault(name, []).append(first.start["first"])
                    with path.started() as second:
                        results["warm"].setdefault(name, []).append(second.start["first"])
                        if path.kind == "manager":
                            results["restart"].setdefault(name, []).append(second.do("restart")["ms"])
            except BenchmarkError as error:
                log(f"{name}: {error}")
    return results


def round_trips(
    make_scene: Callable[[float], Any], distances: tuple[float, ...], rounds: int
) -> dict[str, dict[str, float]]:
    """Count round trips: the slope of a start's time over the round trip."""
    times: dict[str, dict[str, list[tuple[float, float]]]] = {"cold": {}, "warm": {}, "request": {}}
    for rtt in distances:
        with make_scene(rtt) as scene:
            for _ in range(rounds):
                for name, path in scene.paths().items():
                    if name == "local":
                        continue
                    log(f"round trips at {rtt:g} ms: {name}")
                    scene.make_cold()
                    try:
                        with path.started() as first:
                            times["cold"].setdefault(name, []).append((rtt, first.start["first"]))
                            with path.started() as second:
                                times["warm"].setdefault(name, []).append((rtt, second.start["first"]))
                                for ms in second.do("latency", count=5)["ms"]:
                                    times["request"].setdefault(name, []).append((rtt, ms))
                    except BenchmarkError as error:
                        log(f"{name}: {error}")
    return {what: {name: slope(points) for name, points in of.items()} for what, of in times.items()}


def slope(points: list[tuple[float, float]]) -> float:
    """Give the slope between the least times at the smallest and the largest x: noise only adds."""
    least = {x: min(y for at, y in points if at == x) for x, _ in points}
    first, last = min(least), max(least)
    return (least[last] - least[first]) / (last - first) if last > first else float("nan")


# -- black-outs -------------------------------------------------------------------------------------------------------


def black_outs(scene: Scene, rounds: int, dark: float = 15.0) -> dict[str, Samples]:
    """Lines that are lost of 300, ten a second, when nothing passes for a while and the connection is given up."""
    samples: Samples = {}
    paths = [path for name, path in scene.paths().items() if name in ("ours, tunnel", "sshpyk", "gateway client")]
    for number in range(rounds):
        log(f"black-out, round {number + 1} of {rounds}")
        with opened(paths) as fronts:
            for front in fronts.values():
                front.begin("execute", code="lines(30, 0.1)", timeout=60.0)
            time.sleep(5)
            scene.black_out(dark)
            for name, front in fronts.items():
                try:
                    samples.setdefault(name, []).append(account_for(front.result()["text"]))
                except BenchmarkError as error:
                    samples.setdefault(name, []).append(str(error).splitlines()[0])
    return {"black-out": samples}


def account_for(text: str) -> dict[str, Any]:
    """Tell how many of 300 numbered lines are missing or there twice, and whether they are in order."""
    lines = [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]
    found = len(set(lines))
    return {"lost": 300 - found, "doubled": len(lines) - found, "ordered": lines == sorted(lines)}


# -- what it costs ----------------------------------------------------------------------------------------------------


def idle_kernels(scene: Scene, counts: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Memory, processor time, descriptors and threads of our broker and of the server there, with idle kernels."""
    rows = []
    with contextlib.ExitStack() as stack:
        started = 0
        for count in counts:
            while started < count:
                log(f"idle kernels: {started + 1} of {count}")
                stack.enter_context(scene.idle_kernel())
                started += 1
            # What a start costs is over.
            time.sleep(5)
            processes = scene.our_processes()
            before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
            time.sleep(seconds)
            for name, process in processes.items():
                used = sum(process.cpu_times()[:2]) - before[name]
                rows.append(
                    {
                        "kernels": count,
                        "process": name,
                        "MB": process.memory_info().rss / 2**20,
                        "cpu %": 100 * used / seconds,
                        "descriptors": process.num_fds(),
                        "threads": process.num_threads(),
                    }
                )
    return rows


def front_end_costs(scene: Scene, rounds: int, peers_python: str) -> dict[str, Samples]:
    """Milliseconds of whole programs, with this package and without."""
    python = sys.executable
    cost: dict[str, Samples] = {}
    notebook = scene.home / "one.ipynb"
    notebook.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)")])))

    def nbconvert(kernel: str) -> list[str]:
        command = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", str(notebook)]
        return [*command, f"--ExecutePreprocessor.kernel_name={kernel}"]

    def timed(command: list[str], **variables: str) -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **variables})
        return (time.perf_counter() - began) * 1000

    tasks = {
        ("import", "jupyter_client alone"): [python, "-c", "import jupyter_client.manager"],
        ("import", "with our provisioner"): [
            python,
            "-c",
            "import jupyter_client.manager, codespace_kernels.provisioner",
        ],
        ("import", "with sshpyk's"): [peers_python, "-c", "import jupyter_client.manager, sshpyk.provisioning"],
        ("nbconvert, one cell, whole process", "local"): nbconvert("python3"),
        ("nbconvert, one cell, whole process", "ours, tunnel"): nbconvert(scene.spec),
    }
    for number in range(rounds):
        log(f"cost in a front end, round {number + 1} of {rounds}")
        for (what, which), command in random.sample(list(tasks.items()), len(tasks)):
            cost.setdefault(what, {}).setdefault(which, []).append(timed(command))
        cost.setdefault("launcher to bound ports, warm broker", {}).setdefault("codespace-kernel", []).append(
            scene.launch()
        )
    for which, milliseconds in scene.kernelspecs_with(50).items():
        cost.setdefault("GET /api/kernelspecs with 50 specs", {})[which] = milliseconds
    return cost
