"""`python -m codespace_kernels.emulator VERB`: the same as `codespace-kernels emulator VERB`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from codespace_kernels.cli import emulator
from codespace_kernels.errors import CodespaceKernelsError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of a command line (default: this process's); an error is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="codespace-kernels")
    emulator.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["emulator", *(sys.argv[1:] if argv is None else argv)])
    try:
        status: int = args.func(args)
    except CodespaceKernelsError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  (a command line)
        return error.exit_code
    return status


if __name__ == "__main__":
    sys.exit(main())
