"""Connection files of front ends that were killed: they hold a signing key, and nobody else would remove them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

log = logging.getLogger(__name__)


def remove_left_over(path: str, key: str) -> None:
    """Remove the connection file of a kernel that has ended, if its front end did not. Blocks; never raises.

    Args:
        path: Where the front end wrote it; empty where that is not known.
        key: The kernel's own: a file with another one belongs to a kernel that was started since.
    """
    if not path:
        return
    try:
        info = json.loads(Path(path).read_bytes())
        if isinstance(info, dict) and info.get("key") == key:
            Path(path).unlink()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        log.warning("the connection file %s was left: %s", path, error)
