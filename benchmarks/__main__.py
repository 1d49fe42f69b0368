"""Codespace kernels beside what else there is, in one run; see `docs/benchmarks.md`.

    python -m benchmarks [--only PART …] [--ways WAY …] [--quick] [--output FOLDER] [--peers ENVIRONMENT | --no-peers]

Writes `results.json`, `tables.md`, and pictures. Compare ratios of one run only: front ends, brokers, SSH, servers and
kernels share the cores of one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import costs, measures, peers, plots, report
from benchmarks.network import Distance, echo_times
from benchmarks.numbers import NETWORK_ALONE
from benchmarks.programs import BenchmarkError
from benchmarks.scene import WAYS, Scene
from benchmarks.turns import log
from codespace_kernels import __version__
from tests.chaos.place import temporary_home

LOOPBACK, NEAR, FAR = Distance(), Distance(40, 100), Distance(200, 5, 0.01)
NETWORKS = {"messages": LOOPBACK, "40 ms": NEAR, "200 ms": FAR}
PACKAGES = ("jupyter_client", "jupyter_server", "jupyterlab", "ipykernel", "pyzmq", "tornado", "paramiko", "nbconvert")


class Run:
    """All parts of a run.

    Args:
        options: Of the command line.
        home: Of everything that runs.
        peers_folder: Environment that has the peers; None: they are left out.
    """

    def __init__(self, options: argparse.Namespace, home: Path, peers_folder: Path | None) -> None:
        self._options, self._home, self._peers = options, home, peers_folder
        self._quick: bool = options.quick
        self._rounds: int = options.rounds
        # Requests of which a latency is made, here and far away.
        self.count, self.far_count = (20, 5) if self._quick else (100, 20)
        self.failed: list[str] = []
        self.results: dict[str, Any] = {
            "about": about(),
            "peers": peers.versions(peers_folder) if peers_folder is not None else {},
            "networks": {part: str(distance) for part, distance in NETWORKS.items()},
            "mbits": {part: distance.mbit for part, distance in NETWORKS.items()},
            "durations": {},
        }
        if options.go_on:
            self._take_up()

    def _take_up(self) -> None:
        """Take over what an earlier run of the same versions has measured."""
        path = self._options.output / "results.json"
        if not path.exists():
            raise SystemExit(f"There is no {path} to go on with.")
        earlier = json.loads(path.read_text())
        if any(earlier[name] != self.results[name] for name in ("about", "peers", "networks")):
            raise SystemExit(f"Other versions, or another day: {self._options.output} cannot be gone on with.")
        self.results = earlier

    def __call__(self) -> None:
        """Do what is asked for; what was measured until then is written after each part."""
        for part, measure in PARTS.items():
            if self._options.only and part not in self._options.only:
                continue
            if part in self.results:
                log(f"== {part} was measured before")
                continue
            log(f"== {part}")
            began = time.monotonic()
            try:
                self.results[part] = measure(self)
            except (BenchmarkError, subprocess.SubprocessError, OSError) as error:
                log(f"{part} fails: {error}")
                self.failed.append(part)
            self.results["durations"][part] = time.monotonic() - began
            self._write()

    def _scene(self, distance: Distance = LOOPBACK, *, proxied: bool = False, ways: Sequence[str] = ()) -> Scene:
        wanted = tuple(ways or self._options.ways)
        return Scene(self._home, self._peers, distance, proxied=proxied, wanted=wanted)

    def messages(self, distance: Distance, count: int, wanted: dict[str, Any]) -> Any:
        if not distance:
            with self._scene() as scene:
                return measures.messages(scene, self._rounds, count, wanted)
        rounds = min(self._rounds, 2)
        results: dict[str, Any] = {
            "latency": {NETWORK_ALONE: [echo_times(distance, count) for _ in range(rounds)]},
        }
        # By themselves: what these have not read when they are given up fills the link for whoever is next.
        others = [way for way in WAYS if way not in measures.BY_WEBSOCKET]
        for ways in (others, measures.BY_WEBSOCKET):
            chosen = [way for way in ways if way in (self._options.ways or WAYS)]
            if not chosen or (self._peers is None and ways is measures.BY_WEBSOCKET):
                continue
            with self._scene(distance, ways=chosen) as scene:
                for what, samples in measures.messages(scene, rounds, count, wanted).items():
                    results.setdefault(what, {}).update(samples)
        return results

    def neighbours(self) -> Any:
        with self._scene() as scene:
            return measures.neighbours(scene, min(self._rounds, 4), self.count // 2)

    def starts(self) -> Any:
        with self._scene() as scene:
            return measures.starts(scene, min(self._rounds, 3))

    def round_trips(self) -> Any:
        return measures.round_trips(lambda rtt: self._scene(Distance(rtt)), (50.0, 450.0), min(self._rounds, 2))

    def black_outs(self) -> Any:
        return measures.black_outs(lambda rtt: self._scene(Distance(rtt), proxied=True), min(self._rounds, 2))

    def idle(self) -> Any:
        counts, seconds = ((1, 10), 10) if self._quick else ((1, 10, 100), 30)
        with self._scene() as scene:
            return measures.idle_kernels(scene, counts, seconds)

    def front_end(self) -> Any:
        with self._scene() as scene:
            return costs.front_end_costs(scene, self._rounds)

    def _write(self) -> None:
        folder: Path = self._options.output
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(self.results, indent=1))
        (folder / "tables.md").write_text(report.page(self.results))
        plots.plot(self.results, folder)


PARTS: dict[str, Callable[[Run], Any]] = {
    "messages": lambda run: run.messages(LOOPBACK, run.count, measures.MESSAGES),
    "neighbours": Run.neighbours,
    "starts": Run.starts,
    "round trips": Run.round_trips,
    "40 ms": lambda run: run.messages(NEAR, run.far_count, measures.FAR_MESSAGES),
    "200 ms": lambda run: run.messages(FAR, run.far_count, measures.SLOW_MESSAGES),
    "black-outs": Run.black_outs,
    "idle": Run.idle,
    "front end": Run.front_end,
}
"""In the order in which they are measured."""


def about() -> dict[str, str]:
    """Tell what is measured, and where."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "codespace-kernels": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GiB",
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "OpenSSH": subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.partition(",")[0],
        **{package: version(package) for package in PACKAGES},
    }


def parser() -> argparse.ArgumentParser:
    """Give the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    made.add_argument("--ways", nargs="+", choices=WAYS, default=[], metavar="WAY", help="; ".join(WAYS))
    made.add_argument("--quick", action="store_true", help="few repetitions: whether it runs, not how fast it is")
    made.add_argument("--rounds", type=int, help="(default: 5, quickly 2)")
    made.add_argument("--output", type=Path, default=Path("benchmark-results"))
    made.add_argument("--go-on", action="store_true", help="keep what a run before this one has written there")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--peers", type=Path, help="environment to install the peers into, and to use again")
    where.add_argument("--no-peers", action="store_true", help="leave them out, and install nothing")
    return made


def main() -> int:
    """Run the benchmarks; give 1 where a part of them failed."""
    options = parser().parse_args()
    options.output = options.output.absolute()
    options.rounds = options.rounds or (2 if options.quick else 5)
    with contextlib.ExitStack() as stack:
        folder = None
        if options.no_peers:
            log("WARNING: the peers are left out: sshpyk, the gateway client, jupyter-kernel-client, and gh")
        else:
            folder = stack.enter_context(peers.environment(options.peers and options.peers.absolute()))
        run = Run(options, stack.enter_context(temporary_home()), folder)
        run()
    for part, seconds in run.results["durations"].items():
        print(f"{seconds:6.0f} s  {part}{'  FAILED' if part in run.failed else ''}")
    print(f"{sum(run.results['durations'].values()):6.0f} s  all")
    print(options.output / "tables.md")
    return 1 if run.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as failure:
        sys.exit(str(failure))
