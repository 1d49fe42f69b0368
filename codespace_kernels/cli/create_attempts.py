"""What `create` remembers of a creation that it did not see through, so that running it again goes on with it.

One private file a repository, written before GitHub is asked and removed when the codespace is there or was refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels import settings
from codespace_kernels.providers.base import WorkspaceState
from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from codespace_kernels.providers.base import CreateRequest, Workspace
    from codespace_kernels.target import Account

FORGOTTEN_AFTER = 24 * 3600.0
"""Seconds; who runs the same command a day later wants another codespace."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One creation that was begun.

    Attributes:
        before: Names of the account's codespaces before it.
        began: Seconds since 1970.
    """

    before: tuple[str, ...]
    began: float

    def made(self, request: CreateRequest, workspaces: Iterable[Workspace]) -> Workspace | None:
        """Give the latest codespace that is younger than the attempt and is what is asked for now."""
        found = [
            workspace
            for workspace in workspaces
            if workspace.name not in self.before
            and workspace.state is not WorkspaceState.FAILED
            and _fits(workspace, request)
        ]
        return max(found, key=lambda workspace: workspace.created_at, default=None)


class AttemptFile:
    """The file of one account's repository.

    Args:
        account: Whose codespaces.
        repository: `owner/name`.
    """

    def __init__(self, account: Account, repository: str) -> None:
        key = f"{account.provider} {account.api_url} {repository.casefold()}"
        self._name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def read(self) -> Attempt | None:
        """Give the attempt that was not seen through; None where there is none, or none that can be read."""
        try:
            data: Any = json.loads(self._path().read_text(encoding="utf-8"))
            attempt = Attempt(tuple(map(str, data["before"])), float(data["began"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return attempt if time.time() - attempt.began < FORGOTTEN_AFTER else None

    def write(self, before: Iterable[str]) -> None:
        """Note that a creation begins. A folder that cannot be written costs the memory, not the creation."""
        attempt = Attempt(tuple(before), time.time())
        with contextlib.suppress(OSError):
            path = self._path()
            path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(path, json.dumps(dataclasses.asdict(attempt)).encode())

    def remove(self) -> None:
        """Note that it is over."""
        with contextlib.suppress(OSError):
            self._path().unlink(missing_ok=True)

    def _path(self) -> Path:
        return settings.state_dir() / "creations" / self._name


def _fits(workspace: Workspace, request: CreateRequest) -> bool:
    pairs = (
        (request.repository.casefold(), workspace.repository.casefold()),
        (request.ref, workspace.ref),
        (request.machine, workspace.machine_name),
        (request.display_name, workspace.title),
    )
    return all(not wanted or wanted == there for wanted, there in pairs)
