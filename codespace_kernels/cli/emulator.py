"""`emulator`: an emulated GitHub account on this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import SettingsError

if TYPE_CHECKING:
    from codespace_kernels.emulator.state import EmulatorRecord

_OPTIONS = (
    "port",
    "codespaces",
    "transition_seconds",
    "minute_seconds",
    "session_minutes",
    "rate_limit",
    "sshd",
    "own_environment",
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `emulator` and its verbs to a command line."""
    parser = subparsers.add_parser(
        "emulator",
        help="emulate a GitHub account with codespaces on this machine",
        description="Emulate a GitHub account with codespaces on this machine.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    start = verbs.add_parser(
        "start",
        help="start in the background",
        description='Start in the background and print what the shell is to export: eval "$(… emulator start)".',
    )
    start.add_argument("--json", action="store_true", help="print JSON in place of shell commands")
    _add_options(start, _start)
    _add_options(verbs.add_parser("run", help="run in the foreground and log what happens"), _run)
    status = verbs.add_parser("status", help="tell what an emulator has and does")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(func=_status)
    stop = verbs.add_parser("stop", help="end an emulator and every process in its codespaces")
    stop.set_defaults(func=_stop)
    _add_fault(verbs.add_parser("fault", help="have something go wrong", formatter_class=argparse.RawTextHelpFormatter))


def _add_options(parser: argparse.ArgumentParser, func: object) -> None:
    add = parser.add_argument
    add("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    add("--repository", action="append", metavar="OWNER/NAME", help="a repository to begin with; may be repeated")
    add("--codespaces", type=int, default=1, metavar="N", help="stopped codespaces to begin with (default: 1)")
    add("--transition-seconds", type=float, default=0.4, metavar="S", help="how long a start or stop takes at least")
    add("--minute-seconds", type=float, default=60, metavar="S", help="length of a minute of an idle timeout")
    add("--session-minutes", type=float, default=720, metavar="N", help="such minutes that a codespace runs at most")
    add("--rate-limit", type=int, default=5000, metavar="N", help="requests an hour (default: 5000)")
    add("--folder", type=Path, help="where the codespaces' files are (default: a temporary folder)")
    add("--sshd", choices=("auto", "openssh", "paramiko", "none"), default="auto", help="SSH server of the codespaces")
    add("--shared-environment", dest="own_environment", action="store_false", help="use this Python in the codespaces")
    parser.set_defaults(func=func)


def _add_fault(parser: argparse.ArgumentParser) -> None:
    from codespace_kernels.emulator.faults import KINDS, OPERATIONS

    add = parser.add_argument
    rows = []
    for kind, known in sorted(KINDS.items()):
        options = "".join(f"\n  {'':20}--option {name}={value}" for name, value in known.options.items())
        rows.append(f"  {kind:20}{known.description}{options}")
    operations = textwrap.fill(", ".join(OPERATIONS), initial_indent="  ", subsequent_indent="  ")
    parser.epilog = (
        "kinds, and their options with the defaults:\n"
        + "\n".join(rows)
        + f"\n\nwhat `on` may name, separated by commas; nothing stands for all:\n{operations}"
    )
    add("kind", nargs="?", metavar="KIND", help="what goes wrong (see below)")
    add("--codespace", metavar="NAME", help="only there (default: everywhere)")
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="may be repeated; count=N ends it after N times",
    )
    add("--clear", action="store_true", help="let it be well again; without KIND: everything")
    parser.set_defaults(func=_fault)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    options = {name: getattr(args, name) for name in _OPTIONS}
    if args.repository:
        options["repositories"] = tuple(args.repository)
    if args.folder:
        options["folder"] = str(args.folder.absolute())
    return options


def _start(args: argparse.Namespace) -> int:
    from codespace_kernels.emulator.daemon import start_in_background

    record = start_in_background(_options(args))
    if args.json:
        print(json.dumps({"api_url": record.api_url, "pid": record.pid, "environment": record.environment()}))
    else:
        _print_exports(record)
    return 0


def _print_exports(record: EmulatorRecord) -> None:
    for name, value in record.environment().items():
        print(f"export {name}={shlex.quote(value)};")


def _run(args: argparse.Namespace) -> int:
    from codespace_kernels.emulator.daemon import configure_logging, emulator_from, serve

    configure_logging("%(asctime)s %(message)s")

    def ready(record: EmulatorRecord) -> None:
        _print_exports(record)
        print("# Ctrl-C ends it.", flush=True)

    asyncio.run(serve(emulator_from(_options(args)), ready))
    return 0


def _status(args: argparse.Namespace) -> int:
    from codespace_kernels.emulator.control import ControlClient
    from codespace_kernels.emulator.state import find_record

    status = ControlClient(find_record()).status()
    if args.json:
        print(json.dumps(status))
        return 0
    print(f"Emulator at {status['api_url']} (process {status['pid']}), account {status['login']}")
    for codespace in status["codespaces"]:
        print(f"  {codespace['name']}  {codespace['repository']}  {codespace['state']}")
    for fault in status["faults"]:
        print(f"  fault: {fault['kind']} ({fault['codespace'] or 'everywhere'})")
    return 0


def _stop(_args: argparse.Namespace) -> int:
    from codespace_kernels.emulator.daemon import stop
    from codespace_kernels.emulator.state import find_record

    record = find_record()
    stop(record)
    print(f"Stopped the emulator at {record.api_url}.")
    return 0


def _fault(args: argparse.Namespace) -> int:
    from codespace_kernels.emulator.control import ControlClient
    from codespace_kernels.emulator.state import find_record

    options = dict(_split(text) for text in args.option)
    client = ControlClient(find_record())
    if args.clear:
        client.clear_faults(args.kind, args.codespace)
    elif args.kind:
        client.set_fault(args.kind, args.codespace, options)
    else:
        raise SettingsError("Name the kind of fault, or give --clear. `emulator fault --help` lists the kinds.")
    return 0


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--option {text} has no value. Write it as NAME=VALUE.")
    return name, value
