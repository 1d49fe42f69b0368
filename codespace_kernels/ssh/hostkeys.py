"""Host keys of workspaces: pinned when first seen, one file a workspace."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import hashlib
import json
import logging
import re
from typing import TYPE_CHECKING

from codespace_kernels import settings
from codespace_kernels.errors import HostKeyError
from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import paramiko

logger = logging.getLogger(__name__)

FOLDER = "known_hosts"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class PinnedKey:
    """A host key as it was seen.

    Attributes:
        workspace: Whose.
        key_type: Its SSH name, `ssh-ed25519` and so on.
        key: The public key blob.
    """

    workspace: str
    key_type: str
    key: bytes

    @property
    def fingerprint(self) -> str:
        """As OpenSSH prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.key).digest()).decode().rstrip("=")


class HostKeyPins:
    """The policy of trust on first use, for one workspace; its `check` is what `SshConnection.connect` wants.

    Args:
        workspace: Unique name: account and codespace, or host and port.
        verified_tunnel: Whether what leads there was itself verified to be this workspace. Then a changed key means
            that the workspace was rebuilt; without it, it may mean that somebody stands in between.
        notify: Takes the notice that a changed key was accepted; called in the thread of `check`.
        folder: Where the pins are kept; a folder under `settings.data_dir()` by default.
    """

    def __init__(
        self,
        workspace: str,
        *,
        verified_tunnel: bool = False,
        notify: Callable[[str], None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._workspace = workspace
        self._verified_tunnel = verified_tunnel
        self._notify = notify
        folder = folder or settings.data_dir() / FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        readable = re.sub(r"[^A-Za-z0-9.-]+", "-", workspace)[:60].strip("-.")
        self._path = folder / f"{readable}-{hashlib.sha256(workspace.encode()).hexdigest()[:12]}.json"

    def check(self, key: paramiko.PKey) -> None:
        """Accept a host key, or refuse it. Blocks for a moment: reads and writes a file.

        Raises:
            HostKeyError: It is not the pinned one, and the way there was not verified.
        """
        seen = PinnedKey(self._workspace, key.get_name(), key.asbytes())
        pinned = self.pinned()
        if pinned is None:
            logger.info("host key of %s pinned: %s", self._workspace, seen.fingerprint)
        elif pinned.key == seen.key:
            return
        elif self._verified_tunnel:
            self._accept_change(pinned, seen)
        else:
            raise HostKeyError(
                f"The host key of {self._workspace} has changed from {pinned.fingerprint} to {seen.fingerprint}. "
                f"Somebody may be intercepting the connection; if the change is expected, delete {self._path}."
            )
        self._write(seen)

    def _accept_change(self, pinned: PinnedKey, seen: PinnedKey) -> None:
        notice = (
            f"The host key of {self._workspace} has changed ({seen.fingerprint}), as it does when a codespace is "
            "rebuilt; the tunnel's own key was verified, so the new one is trusted"
        )
        logger.warning("%s; it was %s", notice, pinned.fingerprint)
        if self._notify is not None:
            self._notify(notice)

    def pinned(self) -> PinnedKey | None:
        """Give the key that is pinned; None where there is none yet. Blocks for a moment.

        Raises:
            HostKeyError: The file cannot be used.
        """
        try:
            data = json.loads(self._path.read_bytes())
            if data["version"] != VERSION:
                raise HostKeyError(
                    f"{self._path} was written by another version of this program. Upgrade, or delete the file."
                )
            return PinnedKey(
                str(data["workspace"]), str(data["key_type"]), base64.b64decode(data["key"], validate=True)
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostKeyError(f"The pinned host key {self._path} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, binascii.Error):
            self._set_aside()
            return None

    def _set_aside(self) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
        damaged = self._path.with_suffix(f".damaged-{stamp}")
        self._path.replace(damaged)
        logger.warning("the pinned host key of %s was unreadable; moved to %s", self._workspace, damaged)

    def _write(self, pinned: PinnedKey) -> None:
        data = {
            "version": VERSION,
            "workspace": pinned.workspace,
            "key_type": pinned.key_type,
            "key": base64.b64encode(pinned.key).decode(),
            "pinned_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        try:
            replace_file(self._path, json.dumps(data, indent=1).encode() + b"\n")
        except OSError as error:
            raise HostKeyError(f"The host key cannot be pinned in {self._path}: {error.strerror}.") from None
