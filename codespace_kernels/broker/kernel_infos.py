"""What each kernel said of itself the last time, so that a stand-in can say it in its place."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from codespace_kernels.target import Target

log = logging.getLogger(__name__)

VERSION = 1
"""Of the file's form; a file of another version is as good as none."""

MAX_KERNELS = 200
"""How many kernels are remembered; the one that was heard of longest ago goes first."""

MAX_BYTES = 64 * 1024
"""A longer `kernel_info_reply` (a banner without end) is not remembered."""


class KernelInfos:
    """The last `kernel_info_reply` of each kernel, in a file that may be lost.

    Blocks on the disk: call `save` in a thread. A file that is torn or foreign counts as empty and is replaced.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._infos = self._load()

    def get(self, target: Target) -> dict[str, Any] | None:
        """Give the content of the reply; None for a kernel that never answered."""
        return self._infos.get(target.key)

    def put(self, target: Target, content: dict[str, Any]) -> bool:
        """Remember a reply; tells whether it says something new, so that `save` is of use."""
        key = target.key
        if self._infos.get(key) == content or not _is_sound(content) or len(json.dumps(content)) > MAX_BYTES:
            return False
        self._infos.pop(key, None)
        self._infos[key] = content
        while len(self._infos) > MAX_KERNELS:
            del self._infos[next(iter(self._infos))]
        return True

    def put_guess(self, target: Target, content: dict[str, Any]) -> bool:
        """Remember what is known without a reply, unless there is a reply of the same version of the language.

        Returns:
            Whether it says something new, so that `save` is of use.
        """
        known = (self.get(target) or {}).get("language_info", {})
        return known.get("version") != content["language_info"]["version"] and self.put(target, content)

    def to_text(self) -> str:
        """Give the file's content."""
        return json.dumps({"version": VERSION, "kernels": self._infos})

    def save(self, text: str) -> None:
        """Write the file, all of it or nothing. A failure is logged: nothing depends on it."""
        try:
            replace_file(self._path, text.encode())
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            if data["version"] != VERSION:
                return {}
            return {str(key): dict(content) for key, content in data["kernels"].items() if _is_sound(content)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.info("%s is not used: %r", self._path, error)
            return {}


def _is_sound(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("language_info"), dict)
