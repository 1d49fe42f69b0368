"""Codespace kernels beside what else there is, in one run; see `docs/benchmarks.md`.

    python -m benchmarks [--only PART …] [--quick] [--output FOLDER] [--peers ENVIRONMENT]

Writes `results.json`, `tables.md`, and pictures. Compare ratios of one run only: front ends, brokers, SSH, servers and
kernels share the cores of one machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import measures, report
from benchmarks.scene import Distance, Scene, peers_environment, temporary_home

PARTS = ("messages", "neighbours", "starts", "round trips", "40 ms", "200 ms", "black-outs", "idle", "front end")
NETWORKS = {
    "messages": "loopback",
    "40 ms": "40 ms and 100 Mbit/s",
    "200 ms": "200 ms, 5 Mbit/s, 1 % of segments lost",
}
LOOPBACK = Distance()
FAR = {"40 ms": Distance(40, 100), "200 ms": Distance(200, 5, 0.01)}


class Run:
    """All parts of a run.

    Args:
        options: Of the command line.
        home: Of everything that runs.
        peers: Environment that has the peers.
    """

    def __init__(self, options: argparse.Namespace, home: Path, peers: Path) -> None:
        self._options, self._home, self._peers = options, home, peers
        self.results: dict[str, Any] = {"about": about(), "networks": NETWORKS}
        self._rounds = 2 if options.quick else options.rounds
        self._count = 20 if options.quick else 100

    def __call__(self) -> None:
        for part in PARTS:
            if not self._options.only or part in self._options.only:
                measures.log(f"== {part}")
                name = part.replace(" ", "_").replace("-", "_")
                self.results[part] = self._far(part) if part in FAR else getattr(self, f"_{name}")()
                self._write()

    def _scene(self, distance: Distance = LOOPBACK, *, proxied: bool = False) -> Scene:
        return Scene(self._home, self._peers, distance, proxied=proxied)

    def _messages(self) -> Any:
        with self._scene() as scene:
            return measures.messages(scene, self._rounds, self._count, list(measures.MESSAGES))

    def _neighbours(self) -> Any:
        with self._scene() as scene:
            return measures.neighbours(scene, self._rounds, self._count)

    def _starts(self) -> Any:
        with self._scene() as scene:
            return measures.starts(scene, self._rounds)

    def _round_trips(self) -> Any:
        return measures.round_trips(
            lambda rtt: self._scene(Distance(rtt)), (50.0, 150.0), 1 if self._options.quick else 3
        )

    def _far(self, part: str) -> Any:
        # 100 MB would take minutes there.
        names = ["burst", "displays of 1 MB"] if part == "40 ms" else ["burst"]
        with self._scene(FAR[part]) as scene:
            return measures.messages(scene, 2 if self._options.quick else 3, 20, names)

    def _black_outs(self) -> Any:
        with self._scene(proxied=True) as scene:
            return measures.black_outs(scene, 1 if self._options.quick else 2)

    def _idle(self) -> Any:
        with self._scene() as scene:
            return measures.idle_kernels(
                scene, (1, 10) if self._options.quick else (1, 10, 100), 10 if self._options.quick else 60
            )

    def _front_end(self) -> Any:
        with self._scene() as scene:
            return measures.front_end_costs(scene, self._rounds, str(self._peers / "bin" / "python"))

    def _write(self) -> None:
        folder = self._options.output
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(self.results, indent=1))
        (folder / "tables.md").write_text(report.page(self.results))
        report.plot(self.results, folder)


def about() -> dict[str, str]:
    from importlib.metadata import version

    from codespace_kernels import __version__

    packages = ("jupyter_client", "jupyter_server", "ipykernel", "pyzmq", "tornado", "paramiko")
    return {
        "codespace-kernels": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        **{package: version(package) for package in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few repetitions: whether it runs, not how fast it is")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--peers", type=Path, help="environment to install the peers into, and to use again")
    options = parser.parse_args()
    options.output = options.output.absolute()
    with peers_environment(options.peers) as peers, temporary_home() as home:
        Run(options, home, peers)()
    print(options.output / "tables.md")


if __name__ == "__main__":
    main()
