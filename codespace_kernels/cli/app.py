"""The program around the verbs: which there are, how errors become exit codes, what Ctrl-C does."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from codespace_kernels import __version__, platforms
from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.plain_text import HarmlessFormatter, harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "demo": "start an emulated codespace, run a notebook in it, and clean up",
    "login": "sign in to GitHub, or say who is signed in",
    "logout": "forget the token that login got",
    "list": "list your codespaces and their state",
    "create": "create a codespace; says first who pays",
    "connect": "connect to a codespace and write a kernelspec for each of its kernels",
    "run": "run a notebook in a codespace, which is then kept, stopped or deleted",
    "disconnect": "give up the connection to a codespace",
    "status": "show connections, kernels and what each is doing",
    "kernels": "list the kernels in codespaces, open a console on one, or end some",
    "view": "show everything about a codespace",
    "start": "start a codespace",
    "stop": "stop a codespace",
    "edit": "change a codespace's machine type, idle timeout or display name",
    "rebuild": "make a codespace's container anew",
    "delete": "delete a codespace and everything in it",
    "ssh": "open a shell in a codespace, or run a command there",
    "logs": "show how a codespace's container was made",
    "open": "open a codespace's page in the browser",
    "doctor": "find out what keeps kernels in codespaces from working, and what mends it",
    "quit": "end the broker, the process that holds every connection",
    "emulator": "codespaces that run on this machine, in place of an account",
}
"""Every verb and its line in `--help`. A verb's module is imported only when the verb is used."""

EMULATING = frozenset(("demo", "emulator"))
"""Verbs that need what Windows does not have."""

EPILOG = """\
exit codes:
  0    done
  1    failed; one line on stderr says why
  2    a flag, argument or setting cannot be used
  3    no codespace or kernel has this name
  4    GitHub does not accept the token, or there is none
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; give its exit code. Bad usage ends in SystemExit, as argparse has it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if platforms.is_windows() and _wanted(arguments) in EMULATING:
        text = "The emulator runs on Linux and macOS only: its codespaces are processes of this machine. Use WSL."
        return _fail(text, 2, debug=False)
    options = build_parser(arguments).parse_args(arguments)
    if options.debug:
        handler = logging.StreamHandler()
        handler.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(handlers=[handler])
        # Only ours: libraries log whole headers, tokens among them.
        logging.getLogger("codespace_kernels").setLevel(logging.DEBUG)
    try:
        code = int(options.func(options))
        sys.stdout.flush()
    except CodespaceKernelsError as error:
        return _fail(str(error), error.exit_code, debug=options.debug)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130, debug=options.debug)
    except BrokenPipeError:
        # Whoever read our output has enough (`… | head`). Python flushes stdout once more at exit: give it a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _fail(_unexpected(error), 1, debug=options.debug)
    return code


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Give the parser, complete for the verb that the arguments name and by name only for the others."""
    parser = argparse.ArgumentParser(
        prog="codespace-kernels",
        description="Run notebooks in a GitHub Codespace as if its kernels were local ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and what it was built without")
    parser.add_argument("--debug", action="store_true", help="log what is done to stderr, and show tracebacks")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    wanted = _wanted(arguments)
    for verb, summary in VERBS.items():
        if verb == wanted:
            importlib.import_module(f"codespace_kernels.cli.{verb}").add_parser(verbs)
        else:
            verbs.add_parser(verb, help=summary)
    return parser


class _Version(argparse.Action):
    """Prints the version; on stderr, whether the front end of JupyterLab is missing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from codespace_kernels.lab.front_end import advice

        print(f"{parser.prog} {__version__}")
        if missing := advice():
            print(missing, file=sys.stderr)
        parser.exit()


def _wanted(arguments: Sequence[str]) -> str:
    # Options before the verb take no value, so the first word is the verb.
    return next((word for word in arguments if not word.startswith("-")), "")


def _fail(text: str, code: int, *, debug: bool) -> int:
    if debug:
        print(harmless(traceback.format_exc()), file=sys.stderr)
    # One line, so that scripts and logs can take it whole.
    print(f"Error: {harmless(' '.join(text.split()))}", file=sys.stderr)
    return code


def _unexpected(error: Exception) -> str:
    """Keep the traceback of a defect of ours; give the line that tells of it."""
    from codespace_kernels.settings import state_dir

    what = f"Unexpected {type(error).__name__}: {error}."
    try:
        path = state_dir() / "errors.log"
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as log:
            log.write(harmless(traceback.format_exc()))
    except (OSError, CodespaceKernelsError):
        return f"{what} Run it again with --debug to see where."
    return f"{what} This is a defect; where it happened stands in {path}."
