"""`codespace-kernel -f CONNECTION_FILE`: a spec's `argv`, for front ends that run it themselves (VS Code does).

The front end wrote the connection file and expects somebody to listen on its ports. This process asks the broker to,
holds the kernel as long as it lives, and says on stderr what it waits for. When it fails, the last line of stderr is
the error, since that line is what VS Code shows.

No front end of this kind says goodbye: VS Code never sends a `shutdown_request`. It sends SIGTERM, and where it was
killed itself, the end of stdin is all that tells (see `parent`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels import platforms
from codespace_kernels.broker.handle import KernelHandle
from codespace_kernels.broker.protocol import PASSED_ON, SHUT_DOWN, Access, KernelRequest
from codespace_kernels.clones import notebook_folder, place_of
from codespace_kernels.errors import CodespaceKernelsError, KernelError, SettingsError
from codespace_kernels.parent import call_at_end_of_parent
from codespace_kernels.plain_text import harmless
from codespace_kernels.start_steps import StartSteps
from codespace_kernels.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codespace_kernels.progress import Progress

PORT_NAMES = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")

_FILE_OF_ONE_START = re.compile(r"kernel-v3[0-9a-f]{40}\.json")
"""Names that VS Code gives its connection files: each is for one launcher only, and left behind by a closed window."""

_TAKEN_AMISS = (
    (re.compile(r"\b(?:ModuleNotFoundError|ImportError): *", re.IGNORECASE), ""),
    (re.compile(r"\bNo module named\b", re.IGNORECASE), "there is no module"),
    (re.compile(r"\b(?:ModuleNotFoundError|ImportError)\b", re.IGNORECASE), "failed import"),
    (re.compile(r"\bDLL load failed\b", re.IGNORECASE), "a DLL was not loaded"),
    (re.compile(r"win32api", re.IGNORECASE), "the Windows API"),
    (re.compile(r"cython", re.IGNORECASE), "its C part"),
)
"""Words that make VS Code tell the user to install a package *here*, and hide what happened *there*."""


def read_connection_file(path: Path) -> dict[str, Any]:
    """Read and check a connection file.

    Raises:
        SettingsError: It cannot be read, is no JSON object, or lacks a port or the key.
    """
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"Cannot read the connection file {path}: {error.strerror}.") from None
    except ValueError:
        raise SettingsError(f"The connection file {path} is not JSON. Start the kernel again.") from None
    missing = [name for name in (*PORT_NAMES, "key") if not isinstance(info, dict) or name not in info]
    if missing:
        raise SettingsError(f"The connection file {path} lacks {', '.join(missing)}. Start the kernel again.")
    if info.get("transport", "tcp") != "tcp":
        raise SettingsError(f"The connection file asks for transport {info['transport']!r}; only tcp is served.")
    return dict(info)


def kernel_request(info: Mapping[str, Any], env: Mapping[str, str]) -> KernelRequest:
    """Turn a connection file and the spec's environment into what the broker is asked for."""
    target = Target.from_env(env)
    return KernelRequest(
        target=target,
        access=Access.of(target.account, env, target.transport),
        owner="launcher",
        key=str(info["key"]),
        signature_scheme=str(info.get("signature_scheme") or "hmac-sha256"),
        curve_publickey=str(info.get("curve_publickey") or ""),
        curve_secretkey=str(info.get("curve_secretkey") or ""),
        ip=str(info.get("ip") or "127.0.0.1"),
        ports={name: int(info[name]) for name in PORT_NAMES},
        env={name: env[name] for name in PASSED_ON if name in env},
        session=env.get("JPY_SESSION_NAME", ""),
        place=place_of(notebook_folder(env)),
        parent=os.getppid(),
        started=platforms.own_start(),
    )


def say(text: str) -> None:
    """Write a line to the front end's log, in words that it does not take for a package missing on this machine."""
    for words, plain in _TAKEN_AMISS:
        text = words.sub(plain, text)
    print(harmless(text), file=sys.stderr, flush=True)  # noqa: T201  (this program's output)


def progress_log() -> Progress:
    """Give what shows the progress of a start in the front end's log."""
    steps = StartSteps()
    return lambda event: say(f"{steps.line(event)} …")


def remove_connection_file(path: Path) -> None:
    """Remove a connection file that can serve nobody else; others belong to who wrote them."""
    if _FILE_OF_ONE_START.fullmatch(path.name):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def run(path: Path) -> int:
    """Hold a kernel until it dies or this process is told to end.

    Raises:
        CodespaceKernelsError: It did not start, or it died by itself.
    """
    # What a signal's handler may put something into while its own thread waits for it.
    ends: queue.SimpleQueue[None] = queue.SimpleQueue()
    platforms.on_end_signals(lambda: ends.put(None))
    # Interrupts come as messages; a Ctrl-C in the terminal of the front end is not meant for the kernel's life.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = kernel_request(read_connection_file(path), os.environ)
    call_at_end_of_parent(lambda: ends.put(None), os.environ)
    handle = KernelHandle(request, progress_log())
    handle.ended.add_done_callback(lambda _: ends.put(None))
    ends.get()
    if not handle.ended.done():
        handle.close()
        remove_connection_file(path)
        return 0
    failure = handle.ready.exception(timeout=0) if handle.ready.done() else None
    handle.close()
    if failure is not None:
        raise failure
    reason = handle.ended.result(timeout=0)
    if reason == SHUT_DOWN:
        return 0
    raise KernelError(reason)


def is_probe(arguments: Sequence[str]) -> bool:
    """Tell whether somebody tries whether this program is a Python interpreter; VS Code's Python extension does."""
    return list(arguments[:1]) == ["-c"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if is_probe(arguments):
        return 2
    parser = argparse.ArgumentParser(prog="codespace-kernel", description="Hold a kernel that runs in a codespace.")
    parser.add_argument("-f", dest="connection_file", type=Path, required=True, metavar="CONNECTION_FILE")
    options = parser.parse_args(arguments)
    try:
        return run(options.connection_file)
    except CodespaceKernelsError as error:
        # One line: VS Code shows the last line of stderr, and only if it contains "Error".
        text = " ".join(str(error).split())
        say(f"{type(error).__name__}: {text}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
