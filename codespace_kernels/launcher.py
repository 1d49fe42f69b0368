"""`codespace-kernel -f CONNECTION_FILE`: a spec's `argv`, for front ends that run it themselves (VS Code does).

The front end wrote the connection file and expects somebody to listen on its ports. This process asks the broker to,
holds the kernel as long as it lives, and says on stderr what it waits for. When it fails, the last line of stderr is
the error, since that line is what VS Code shows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.handle import KernelHandle
from codespace_kernels.broker.protocol import SHUT_DOWN, Access, KernelRequest
from codespace_kernels.errors import CodespaceKernelsError, KernelError, SettingsError
from codespace_kernels.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codespace_kernels.progress import ProgressEvent

PORT_NAMES = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
PASSED_ON = ("JPY_SESSION_NAME", "PYDEVD_IPYTHON_COMPATIBLE_DEBUGGING")


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
        ip=str(info.get("ip") or "127.0.0.1"),
        ports={name: int(info[name]) for name in PORT_NAMES},
        env={name: env[name] for name in PASSED_ON if name in env},
        session=env.get("JPY_SESSION_NAME", ""),
    )


def say(event: ProgressEvent) -> None:
    """Show progress in the front end's log."""
    print(f"{event.message} …", file=sys.stderr, flush=True)  # noqa: T201  (this program's output)


def run(path: Path) -> int:
    """Hold a kernel until it dies or this process is told to end.

    Raises:
        CodespaceKernelsError: It did not start, or it died by itself.
    """
    request = kernel_request(read_connection_file(path), os.environ)
    told_to_end = threading.Event()
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda *_: told_to_end.set())
    # Interrupts come as messages; a Ctrl-C in the terminal of the front end is not meant for the kernel's life.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle = KernelHandle(request, say)
    handle.ended.add_done_callback(lambda _: told_to_end.set())
    told_to_end.wait()
    if not handle.ended.done():
        handle.close()
        return 0
    failure = handle.ready.exception(timeout=0) if handle.ready.done() else None
    handle.close()
    if failure is not None:
        raise failure
    reason = handle.ended.result(timeout=0)
    if reason == SHUT_DOWN:
        return 0
    raise KernelError(reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code."""
    parser = argparse.ArgumentParser(prog="codespace-kernel", description="Hold a kernel that runs in a codespace.")
    parser.add_argument("-f", dest="connection_file", type=Path, required=True, metavar="CONNECTION_FILE")
    options = parser.parse_args(arguments)
    try:
        return run(options.connection_file)
    except CodespaceKernelsError as error:
        # One line: VS Code shows the last line of stderr, and only if it contains "Error".
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {text}", file=sys.stderr, flush=True)  # noqa: T201  (this program's output)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
