"""`codespace-kernels logout`: forget the token that `login` got. Those of `gh` and of the environment stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("logout", description=__doc__, parents=[shared.account()])
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Forget the token."""
    from codespace_kernels.github.sign_in import SignIns

    sign_ins = SignIns(shared.chosen_account(options).api_url)
    if not asyncio.run(sign_ins.forget()):
        terminal.say(f"`codespace-kernels login` signed nobody in to {sign_ins.host}.")
        return 0
    terminal.say(
        f"Forgot the token of {sign_ins.host}. It is valid until you revoke it in GitHub's settings (Applications)."
    )
    return 0
