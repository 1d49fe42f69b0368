"""What is measured, way beside way."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.costs import notebook_text, wait_for_answer
from benchmarks.programs import WAIT, BenchmarkError, end
from benchmarks.scene import Scene
from benchmarks.turns import Samples, in_turns, log, opened
from benchmarks.ways import FrontEnd, Way

SceneMaker = Callable[[float], contextlib.AbstractContextManager[Scene]]
"""Gives what runs, at a round trip in ms."""

MEGABYTE = 1_000_000
OURS = "codespace-kernels connect"
READS = 3
"""Notebooks that are read while a latency is measured, at least."""
BY_WEBSOCKET = ("gateway client", "jupyter-kernel-client")

# -- messages ---------------------------------------------------------------------------------------------------------


def latency(count: int) -> Callable[[FrontEnd], list[float]]:
    return lambda front: front.do("latency", count=count)["ms"]


def executed(code: str, kind: str, seconds: float = 10.0) -> Callable[[FrontEnd], dict[str, float]]:
    """Give milliseconds, how many messages of a kind came within so many seconds, and the bytes of all messages."""

    def measure(front: FrontEnd) -> dict[str, float]:
        result = front.do("execute", code=code, timeout=seconds)
        counts = result["counts"]
        return {"ms": result["ms"], "count": counts.get(kind, 0), "bytes": result["bytes"], "idle": result["idle"]}

    return measure


def sent_up(count: int, size: int) -> Callable[[FrontEnd], dict[str, float]]:
    return lambda front: {**front.do("buffers_up", count=count, size=size), "bytes": count * size}


MESSAGES: dict[str, Callable[[FrontEnd], Any]] = {
    "burst": executed("burst(20000)", "stream"),
    "print": executed("prints(50)", "stream"),
    "displays of 1 MB": executed("displays(50, 1_000_000)", "display_data"),
    "displays of 10 MB": executed("displays(5, 10_000_000)", "display_data"),
    "buffers down": executed("buffers_down(5, 10_000_000)", "comm_msg"),
    "buffers up": sent_up(5, 10 * MEGABYTE),
}
FAR_MESSAGES = {
    "burst of 2,000": executed("burst(2000)", "stream"),
    "displays of 1 MB": executed("displays(50, 1_000_000)", "display_data"),
}
SLOW_MESSAGES = {
    "burst of 2,000": executed("burst(2000)", "stream", 40.0),
    "displays of 1 MB": executed("displays(5, 1_000_000)", "display_data", 40.0),
}
"""What takes some seconds at a distance: by 100 Mbit/s, and by 5 Mbit/s."""


def messages(scene: Scene, rounds: int, count: int, wanted: dict[str, Callable[[FrontEnd], Any]]) -> dict[str, Samples]:
    """Latency and throughput of all ways that are kernels at the same time."""
    results: dict[str, Samples] = {}
    with opened(scene.ways().values()) as fronts:
        in_turns(fronts, 1, latency(min(count, 20)), "warm-up")
        results["latency"] = in_turns(fronts, rounds, latency(count), "latency")
        for name, measure in wanted.items():
            results[name] = in_turns(fronts, rounds, measure, name, fewer=BY_WEBSOCKET)
            # Who failed is busy still, and would be in the way of the next.
            for failed in [n for n, samples in results[name].items() if samples and isinstance(samples[-1], str)]:
                fronts.pop(failed).end()
    return results


# -- neighbours -------------------------------------------------------------------------------------------------------


def neighbours(scene: Scene, rounds: int, count: int) -> dict[str, Samples]:
    """Latency on one kernel: quiet, while another one of the same way floods, and while the server reads notebooks."""
    results: dict[str, Samples] = {}
    ways = [way for name, way in scene.ways().items() if name not in BY_WEBSOCKET]
    with opened(ways) as quiet, opened(way for way in ways if way.name in quiet) as loud:
        in_turns(quiet, 1, latency(20), "warm-up")
        results["quiet"] = in_turns(quiet, rounds, latency(count), "quiet")

        def beside_flood(kind: str) -> Callable[[FrontEnd], Any]:
            def measure(front: FrontEnd) -> Any:
                other = loud[front.way.name]
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
            times: list[float] = []
            with NotebookReader(servers.get(front.way.name, theirs)) as reader:
                before = reader.done
                # One that takes longer than it takes to ask a few times would not be noticed.
                while reader.done < before + READS:
                    times += front.do("latency", count=count)["ms"]
            return times

        results["while the server reads notebooks"] = in_turns(quiet, rounds, beside_reading, "reading notebooks")
    return results


def _write_notebook(scene: Scene) -> None:
    text = notebook_text(*["x = 1\n" * 1000] * 1200)
    (scene.far / "large.ipynb").write_text(text)
    for server in scene.our_servers():
        Path(server["folder"], "large.ipynb").write_text(text)


class NotebookReader:
    """Reads a large notebook without rest, through a Jupyter server; a context manager.

    Args:
        server: Its `url`, and `token` where it wants one.

    Attributes:
        done: How often it was read.
    """

    def __init__(self, server: dict[str, Any]) -> None:
        self._url = f"{server['url']}api/contents/large.ipynb"
        headers = {"Authorization": f"token {server['token']}"} if server["token"] else {}
        self._http = httpx.Client(headers=headers, timeout=WAIT, trust_env=False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._error: Exception | None = None
        self._done = 0

    @property
    def done(self) -> int:
        if self._error is not None:
            raise BenchmarkError(f"{self._url}: no notebook was read ({self._error})")
        return self._done

    def __enter__(self) -> Self:
        """Begin, and wait until the first one is read."""
        self._thread.start()
        while not self.done:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._http.close()

    def _work(self) -> None:
        while not self._over.is_set() and self._error is None:
            try:
                self._http.get(self._url).raise_for_status()
                self._done += 1
            except httpx.HTTPError as error:
                self._error = error


# -- starts -----------------------------------------------------------------------------------------------------------


def starts(scene: Scene, rounds: int) -> dict[str, Samples]:
    """Give milliseconds: starts to the first result, with nothing running and beside a kernel; restarts; connects."""
    ways, connects = scene.ways(), _connects(scene)
    results: dict[str, Samples] = {what: {name: [] for name in ways} for what in ("cold", "warm", "restart")}
    results |= {what: {name: [] for name in connects} for what in ("connect, cold", "connect, warm")}
    for number in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            log(f"starts, round {number + 1} of {rounds}: {name}")
            scene.make_cold()
            try:
                with ways[name].started() as first:
                    results["cold"][name].append(first.first)
                    with ways[name].started() as second:
                        results["warm"][name].append(second.first)
                        if ways[name].kind == "manager":
                            results["restart"][name].append(second.do("restart")["ms"])
            except BenchmarkError as error:
                log(f"{name}: {error}")
        for name, connect in random.sample(list(connects.items()), len(connects)):
            log(f"connect, round {number + 1} of {rounds}: {name}")
            scene.make_cold()
            for state in ("connect, cold", "connect, warm"):
                results[state][name].append(connect())
    return results


def _connects(scene: Scene) -> dict[str, Callable[[], float]]:
    """Give what brings a running codespace's kernels within reach, each with milliseconds until they are."""

    def ours() -> float:
        began = time.perf_counter()
        command = [sys.executable, "-m", "codespace_kernels.cli", "connect", scene.codespace, "--json"]
        subprocess.run(command, check=True, capture_output=True)
        return (time.perf_counter() - began) * 1000

    found = {OURS: ours}
    if scene.gh is None:
        log("gh codespace jupyter is left out: gh is not among the peers")
    else:
        found["gh codespace jupyter"] = lambda: gh_jupyter(scene)
    return found


def gh_jupyter(scene: Scene) -> float:
    """Run `gh codespace jupyter`; give milliseconds until there is an HTTP answer where it says that JupyterLab is."""
    command = [str(scene.gh), "codespace", "jupyter", "-c", scene.codespace]
    began = time.perf_counter()
    # A true browser.
    with scene.log.open("ab") as log_file:
        process = subprocess.Popen(
            command, env={**os.environ, "GH_BROWSER": "true"}, stdout=subprocess.PIPE, stderr=log_file, text=True
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise BenchmarkError("gh codespace jupyter ended without an address")
        with httpx.Client(trust_env=False) as http:
            # The address without its token, which then stands in no message.
            wait_for_answer(http, str(httpx.URL(url).copy_with(query=None)))
        return (time.perf_counter() - began) * 1000
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        # It does not always end by that.
        end(process)
        process.stdout.close()


COUNTED = ("ours, tunnel", "ours, SSH", "sshpyk")
"""Ways whose round trips are counted: those that have to make a connection first."""


def round_trips(make_scene: SceneMaker, distances: tuple[float, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Count round trips: the slope of a start's time over the round trip; by way.

    Args:
        make_scene: Gives what runs, at a round trip in ms.
        distances: Those round trips, far from each other: what else differs between starts is divided by that.
        rounds: At each; the least time counts.
    """
    starts = [f"{state}, {until}" for state in ("cold", "warm") for until in ("ready", "first result")]
    times: dict[str, dict[str, list[tuple[float, float]]]] = {what: {} for what in (*starts, "request")}
    for rtt in distances:
        with make_scene(rtt) as scene:
            for _ in range(rounds):
                for name, way in scene.ways().items():
                    if name in COUNTED:
                        log(f"round trips at {rtt:g} ms: {name}")
                        try:
                            for what, ms in _times_of_starts(scene, way):
                                times[what].setdefault(name, []).append((rtt, ms))
                        except BenchmarkError as error:
                            log(f"{name}: {error}")
    return {what: {name: slope(points) for name, points in of.items()} for what, of in times.items()}


def _times_of_starts(scene: Scene, way: Way) -> Iterator[tuple[str, float]]:
    scene.make_cold()
    with way.started() as first:
        yield "cold, ready", first.ready
        yield "cold, first result", first.first
        with way.started() as second:
            yield "warm, ready", second.ready
            yield "warm, first result", second.first
            for ms in second.do("latency", count=5)["ms"]:
                yield "request", ms


def slope(points: list[tuple[float, float]]) -> float:
    """Give the slope between the least times at the smallest and the largest x: noise only adds."""
    least = {x: min(y for at, y in points if at == x) for x, _ in points}
    first, last = min(least), max(least)
    return (least[last] - least[first]) / (last - first) if last > first else float("nan")


# -- black-outs -------------------------------------------------------------------------------------------------------


def black_outs(make_scene: SceneMaker, rounds: int, dark: float = 15.0) -> dict[str, Samples]:
    """Count lines that are lost of 300, ten a second, when nothing passes for a while and connections are given up.

    Args:
        make_scene: Gives what runs, anew for each round: an `ssh -L` that gave up does not come back.
        rounds: How often.
        dark: Seconds in which nothing passes.
    """
    samples: Samples = {}
    for number in range(rounds):
        log(f"black-out, round {number + 1} of {rounds}")
        with make_scene(0.0) as scene:
            ways = [way for name, way in scene.ways().items() if name in ("ours, tunnel", "sshpyk", "gateway client")]
            with opened(ways) as fronts:
                for front in fronts.values():
                    front.begin("execute", code="lines(30, 0.1)", timeout=45.0)
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
            log(f"idle kernels: {count}")
            stack.enter_context(scene.idle_kernels(count - started))
            started = count
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
