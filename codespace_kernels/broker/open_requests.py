"""The files of what kernels have not answered yet, one for each kernel that a front end holds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from codespace_kernels.bridge import RequestLog
from codespace_kernels.broker.state import set_aside
from codespace_kernels.settings import state_dir
from codespace_kernels.strict_data import UnsoundDataError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from codespace_kernels.bridge import OpenRequest

log = logging.getLogger(__name__)


def requests_folder() -> Path:
    """Give the folder of the files; made when missing."""
    folder = state_dir() / "requests"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def request_log(kernel_id: str) -> RequestLog:
    """Give the log of a kernel, by what the broker calls it."""
    return RequestLog(_path(kernel_id))


def left_behind(requests: RequestLog, kernel_id: str) -> list[OpenRequest]:
    """Give what the last broker had handed to a kernel and nobody has answered; a file that is of no use is set aside.

    Args:
        requests: The kernel's log.
        kernel_id: What the broker calls it.
    """
    try:
        return requests.restore()
    except (OSError, UnsoundDataError) as error:
        path = _path(kernel_id)
        log.warning("open requests of the last broker are not known (%s): kept as %s", error, set_aside(path))
        return []


def tidy(kernel_ids: Collection[str]) -> None:
    """Remove the files of all kernels but these, and what a death left half written."""
    for path in requests_folder().iterdir():
        if path.suffix == ".new" or (path.suffix == ".log" and path.stem not in kernel_ids):
            path.unlink(missing_ok=True)


def _path(kernel_id: str) -> Path:
    return requests_folder() / f"{kernel_id}.log"
