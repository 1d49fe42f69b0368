"""Fuzzing for as long as you like; the short form is part of the test suite.

python -m tests.fuzz [TARGET …] [--seconds 60] [--seed N] [--case N]
"""

from __future__ import annotations

import argparse
import logging
import platform
import secrets
import sys
import time

from codespace_kernels import __version__

from .endpoints import ENDPOINTS
from .run import FindingError, run_one, run_target
from .targets import TARGETS


def main() -> int:
    """Run and print a table, ready for the documentation."""
    every = {**TARGETS, **ENDPOINTS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(every))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--case", type=int, help="only this one, of one target")
    options = parser.parse_args()
    chosen = options.targets or list(every)
    logging.disable(logging.CRITICAL)
    if options.case is not None:
        run_one(every[chosen[0]], options.seed, options.case)
        return 0
    print(f"codespace-kernels {__version__}, Python {platform.python_version()}, seed {options.seed}\n", flush=True)
    print("| target | cases | taken as good | seconds |\n|---|---|---|---|")
    found = 0
    for name in chosen:
        start = time.monotonic()
        try:
            result = run_target(name, every[name], options.seed, seconds=options.seconds)
        except FindingError as error:
            found += 1
            print(f"FOUND {error}", flush=True)
        else:
            print(f"| {name} | {result.cases} | {result.taken} | {time.monotonic() - start:.0f} |", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
