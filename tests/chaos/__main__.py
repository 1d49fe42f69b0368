"""Kernels print, ask, plot and talk while everything on their way breaks; afterwards nothing may be lost or doubled.

python -m tests.chaos --faults 1000 [--seed N] [--kinds KIND,…] [--kernels 4] [--patience 2]
python -m tests.chaos --replay JOURNAL

Kinds, numbers, pauses and what kernels are asked come of the seed. What happens to be on its way when a fault strikes
does not: the same seed gives the same faults, `--replay` also their moments, neither the same bytes in between.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import faulthandler
import json
import platform
import secrets
import sys
import tempfile
from pathlib import Path

from codespace_kernels import __version__

from .faults import KINDS
from .place import Place, quietly, temporary_home
from .storm import Options, Result, Storm, read_journal


def main() -> int:
    """Run and print tables, ready for the documentation."""
    arguments = _parser().parse_args()
    options = Options(
        arguments.seed,
        arguments.faults,
        arguments.kinds.split(","),
        arguments.kernels,
        arguments.patience,
        arguments.pause,
        arguments.bound or 300 + 20 * arguments.faults,
        arguments.end_bound,
    )
    schedule = None
    if arguments.replay:
        first, schedule = read_journal(arguments.replay)
        options = Options(**{**first, "faults": len(schedule)})
    journal = arguments.journal or Path(tempfile.gettempdir()) / f"chaos-{options.seed}.jsonl"
    now = datetime.datetime.now(datetime.UTC)
    print(f"codespace-kernels {__version__}, Python {platform.python_version()}, {now:%Y-%m-%d %H:%M} UTC")
    print(f"{options}\njournal: {journal}\n", flush=True)
    # Whatever blocks the loop, so that no bound is kept, is seen.
    faulthandler.dump_traceback_later(options.bound + 30)
    result = _run(options, journal, schedule)
    if not result.violation:
        print(result.to_text())
    return 1 if result.violation else 0


def _tell(result: Result, options: Options, journal: Path) -> None:
    print(f"{result.to_text()}\n\nFOUND {result.violation}\n\nfaults:\n{journal.read_text()}")
    print(f"again: {_again(options)}\n   or: python -m tests.chaos --replay {journal}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", default=str(secrets.randbits(32)))
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="KIND,…", help="(default: %(default)s)")
    parser.add_argument("--kernels", type=int, default=4, help="one of them by the launcher (default: 4)")
    parser.add_argument(
        "--patience", type=float, default=2.0, help="seconds of silence that the link bears (default: 2)"
    )
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between faults at most (default: 1.5)")
    parser.add_argument(
        "--bound", type=float, help="seconds of the whole at most (default: 300, and 20 for each fault)"
    )
    parser.add_argument(
        "--end-bound", type=float, default=240.0, help="seconds after the last fault at most (default: 240)"
    )
    parser.add_argument("--journal", type=Path, help="where what is done is written to")
    parser.add_argument("--replay", type=Path, metavar="JOURNAL", help="have its faults again, at their moments")
    return parser


def _run(options: Options, journal: Path, schedule: list | None) -> Result:
    patience = options.patience
    with temporary_home() as home, journal.open("w") as lines:
        lines.write(json.dumps(vars(options)) + "\n")
        place = quietly(lambda: Place(home, f"{5 * patience},{patience / 4},{patience}"))
        try:
            return asyncio.run(
                Storm(place, options, lines, lambda result: _tell(result, options, journal), schedule).run()
            )
        finally:
            quietly(place.close)


def _again(options: Options) -> str:
    return (
        f"python -m tests.chaos --faults {options.faults} --seed {options.seed} --kinds {','.join(options.kinds)} "
        f"--kernels {options.kernels} --patience {options.patience} --pause {options.longest_pause}"
    )


if __name__ == "__main__":
    sys.exit(main())
