"""`codespace-kernels kernels`: the kernels that run for you in codespaces, those that no notebook holds included.

Without a verb they are listed. `attach` opens a console on one, `end` ends some.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.paths import jupyter_runtime_dir, secure_write

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.handle import KernelHandle
from codespace_kernels.broker.protocol import SHUT_DOWN, Access, KernelRequest
from codespace_kernels.cli import options as shared
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import broker_status
from codespace_kernels.errors import KernelError, KernelNotFoundError, SettingsError, WaitTimeoutError
from codespace_kernels.target import Account, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codespace_kernels.progress import ProgressEvent

SHORT = 8
"""Characters of an id that are shown."""

LOOK_SECONDS = 2.0
"""Between looks at a kernel that somebody else holds."""

ATTACH_TIMEOUT = 60.0
"""Seconds for a kernel that runs already to be had."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parents = [shared.common(), shared.output()]
    parser = subparsers.add_parser(
        "kernels", description=__doc__, parents=parents, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(func=run_list)
    verbs = parser.add_subparsers(metavar="VERB")
    attach = verbs.add_parser("attach", help="open a console on a kernel", parents=[shared.common()])
    attach.add_argument("kernel", metavar="ID", help="its id, or the beginning of it")
    attach.add_argument(
        "--connection-file",
        action="store_true",
        help="print the path of a connection file for other clients instead, and wait until Ctrl-C",
    )
    attach.set_defaults(func=run_attach)
    end = verbs.add_parser("end", help="end kernels", parents=[shared.common()])
    end.add_argument("kernels", metavar="ID", nargs="*", help="its id, or the beginning of it")
    end.add_argument("--all", action="store_true", help="all that no notebook holds")
    end.set_defaults(func=run_end)


def run_list(options: argparse.Namespace) -> int:
    """List the kernels."""
    kernels = broker_status()["kernels"]
    if options.json:
        terminal.print_json({"kernels": kernels})
    elif not kernels:
        terminal.say("No kernel runs in a codespace for you.")
    else:
        terminal.print_table(
            ("ID", "KERNEL", "CODESPACE", "STATE", "HELD", "NOTEBOOK"), [_row(kernel) for kernel in kernels]
        )
    return 0


def _row(kernel: dict[str, Any]) -> tuple[str, ...]:
    return (
        kernel["id"][:SHORT],
        kernel["kernel"],
        kernel["workspace"] or kernel["recipe"],
        kernel["state"],
        held(kernel),
        kernel["session"],
    )


def held(kernel: dict[str, Any]) -> str:
    """Say whether a front end holds a kernel, and if not, for how long it is kept."""
    if not kernel["kept"]:
        return "yes"
    if kernel["until"] is None:
        return "no, kept while it works"
    return f"no, kept until {time.strftime('%d %b %H:%M', time.localtime(kernel['until']))}"


def find(wanted: str) -> dict[str, Any]:
    """Find a kernel by its id or the beginning of it.

    Raises:
        KernelNotFoundError: There is none, or more than one.
    """
    kernels: list[dict[str, Any]] = broker_status()["kernels"]
    matches = [kernel for kernel in kernels if kernel["id"].startswith(wanted.lower())]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise KernelNotFoundError(f"No kernel's id begins with {wanted!r}. See `codespace-kernels kernels`.")
    names = ", ".join(kernel["id"] for kernel in matches)
    raise KernelNotFoundError(f"More than one kernel's id begins with {wanted!r}: {names}. Give more of it.")


def run_end(options: argparse.Namespace) -> int:
    """End kernels."""
    if bool(options.kernels) == options.all:
        raise SettingsError("Name the kernels to end by their ids, or give --all to end those that no notebook holds.")
    if options.all:
        kernels = [kernel for kernel in broker_status()["kernels"] if kernel["kept"]]
    else:
        kernels = [find(wanted) for wanted in options.kernels]
    client = BrokerClient()
    for kernel in kernels:
        client.call("POST", f"kernels/{kernel['id']}/shutdown", {}, timeout=60.0)
        terminal.say(f"Ended {kernel['kernel']} in {kernel['workspace']} {kernel['session']}".rstrip())
    if not kernels:
        terminal.say("There is none.")
    return 0


def run_attach(options: argparse.Namespace) -> int:
    """Open a console on a kernel, or give others a connection file of it."""
    kernel = find(options.kernel)
    if kernel["state"] == "dead":
        raise KernelError(f"Kernel {kernel['id'][:SHORT]} is dead: {kernel.get('reason') or 'it ended'}")
    with _connection(kernel) as (info, handle), _file(kernel["id"], info) as path:
        if options.connection_file:
            return _wait(path, kernel["id"], handle)
        if importlib.util.find_spec("jupyter_console") is None:
            raise SettingsError(
                "There is no jupyter_console here: `pip install jupyter_console`, or give --connection-file and use "
                "another client with `--existing`."
            )
        if kernel["state"] == "busy":
            terminal.say("The kernel is busy; the console begins when it is done.")
        terminal.say("Leave with Ctrl-D: `exit` ends the kernel, too.")
        return subprocess.call([sys.executable, "-m", "jupyter_console", "--existing", str(path)])


@contextlib.contextmanager
def _connection(kernel: dict[str, Any]) -> Iterator[tuple[dict[str, Any], KernelHandle | None]]:
    """Give connection info of a kernel; one that nobody holds is held meanwhile, and kept again afterwards."""
    if not kernel["kept"]:
        yield dict(BrokerClient().call("GET", f"kernels/{kernel['id']}/connection")), None
        return
    target = Target(Account(**kernel["account"]), kernel["workspace"], kernel["kernel"])
    request = KernelRequest(target, Access.of(target.account, os.environ), key=os.urandom(16).hex(), take=kernel["id"])
    handle = KernelHandle(request, _ignore)
    try:
        yield handle.ready.result(ATTACH_TIMEOUT), handle
    except TimeoutError:
        raise WaitTimeoutError.after(f"kernel {kernel['id'][:SHORT]}", ATTACH_TIMEOUT, "Try again.") from None
    finally:
        handle.close()


def _ignore(event: ProgressEvent) -> None:
    """A kernel that runs has no start to tell of."""


@contextlib.contextmanager
def _file(kernel_id: str, info: dict[str, Any]) -> Iterator[Path]:
    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"kernel-codespace-{kernel_id[:SHORT]}-{os.getpid()}.json"
    try:
        with secure_write(str(path)) as file:
            json.dump(info, file)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _wait(path: Path, kernel_id: str, handle: KernelHandle | None) -> int:
    print(path, flush=True)
    terminal.say("For `jupyter console --existing PATH` and others; it goes with this program: end that with Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        if handle is None:
            _wait_for_end(kernel_id)
        elif (reason := handle.ended.result()) != SHUT_DOWN:
            raise KernelError(reason)
    return 0


def _wait_for_end(kernel_id: str) -> None:
    while any(kernel["id"] == kernel_id and kernel["state"] != "dead" for kernel in broker_status()["kernels"]):
        time.sleep(LOOK_SECONDS)
