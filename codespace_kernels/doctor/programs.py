"""Runs other programs: bounded, without a terminal, and never raising for what they do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

from codespace_kernels import platforms
from codespace_kernels.ssh.threads import run_blocking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Ran(NamedTuple):
    """A program that ended, or could not be run.

    Attributes:
        code: Exit code; -1 where it did not start or took too long, which `errors` tells.
        output, errors: What it wrote to stdout and stderr.
    """

    code: int
    output: str
    errors: str


async def run_program(argv: Sequence[str], env: Mapping[str, str], seconds: float) -> Ran:
    """Run a program to its end.

    Args:
        argv: The program and its arguments.
        env: Its whole environment.
        seconds: After which it is killed.
    """

    def run() -> Ran:
        try:
            done = subprocess.run(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
                **platforms.own_terminal_group(),
            )
        except subprocess.TimeoutExpired:
            return Ran(-1, "", f"it did not end within {seconds:g} s")
        except OSError as error:
            return Ran(-1, "", error.strerror or str(error))
        return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    # The program is killed before that.
    return await run_blocking(argv[0], seconds + 10.0, run)
