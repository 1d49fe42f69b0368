"""Where the demo takes place: an emulator, and folders of its own so that nothing of the user is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from codespace_kernels import kernelspecs, settings
from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.cli import terminal
from codespace_kernels.cli.broker_status import end_broker
from codespace_kernels.cli.disconnect import end_connection
from codespace_kernels.cli.interrupts import undisturbed
from codespace_kernels.emulator.daemon import start_in_background, stop
from codespace_kernels.emulator.state import read_records
from codespace_kernels.progress import ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.emulator.state import EmulatorRecord


@contextlib.contextmanager
def place_of_its_own() -> Iterator[Path]:
    """Move everything that this process and its children read or write of the user into a temporary folder.

    Yields:
        The folder. At the end every broker and emulator that was started there is ended, the folder is removed, and the
        environment is what it was before.
    """
    before, temporary = dict(os.environ), tempfile.gettempdir()
    # A short path: sockets live below it.
    root = Path(tempfile.mkdtemp(prefix="ckd-"))
    # What is emulated has no file system of its own: its temporary files go with ours. Children read the variable.
    tempfile.tempdir = os.environ["TMPDIR"] = str(root)
    try:
        _point_into(root)
        yield root
    finally:
        with undisturbed(), terminal.progress() as progress:
            progress(ProgressEvent("clean", "Cleaning up"))
            _end_everything()
            shutil.rmtree(root, ignore_errors=True)
        tempfile.tempdir = temporary
        os.environ.clear()
        os.environ.update(before)


def _end_everything() -> None:
    end_broker()
    for record in read_records():
        stop(record)
    # It is not below the other folders where their path is too long for a socket.
    shutil.rmtree(settings.runtime_dir(), ignore_errors=True)


def _point_into(root: Path) -> None:
    (root / "run").mkdir(mode=0o700)
    os.environ.update(
        {
            "CODESPACE_KERNELS_HOME": str(root / "home"),
            "XDG_RUNTIME_DIR": str(root / "run"),
            "JUPYTER_DATA_DIR": str(root / "jupyter"),
            "JUPYTER_CONFIG_DIR": str(root / "jupyter-config"),
            "IPYTHONDIR": str(root / "ipython"),
        }
    )
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH"):
        os.environ.pop(name, None)


@contextlib.contextmanager
def emulator(options: dict[str, object]) -> Iterator[EmulatorRecord]:
    """Run an emulator in the background, with this process and its children signed in to it; end it at an error."""
    record = None
    try:
        with undisturbed():
            record = start_in_background(options)
        os.environ.update(record.environment())
        yield record
    except BaseException:
        if record is not None:
            with undisturbed():
                stop(record)
        raise


def start_broker() -> None:
    """Start the broker where none runs, so that it can be ended: half a broker does not answer."""
    with undisturbed():
        BrokerClient().ensure()


@contextlib.contextmanager
def withdrawing(access: Access, name: str) -> Iterator[None]:
    """At an error give up the connection to a codespace and remove its kernelspecs."""
    try:
        yield
    except BaseException:
        with undisturbed():
            end_connection(access, name)
            kernelspecs.remove(name, access.account)
        raise


def run_to_its_end(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command and give what it wrote; whatever happens, it has ended when this returns.

    `subprocess.run` leaves it running when Ctrl-C comes while it is being started, and does not wait for its end when
    Ctrl-C comes later.

    Args:
        command: With its arguments.
        timeout: Seconds.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
        KeyboardInterrupt: So was it at Ctrl-C.
    """
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        stdout, stderr = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    finally:
        if process is not None:
            with undisturbed(), process:
                process.kill()
