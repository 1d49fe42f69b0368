"""The user's own key for SSH into workspaces: made once, kept apart from the keys in `~/.ssh`."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import filelock
import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from codespace_kernels import platforms, settings
from codespace_kernels.errors import SshError, WaitTimeoutError
from codespace_kernels.ssh.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

KEY_FILE = "id_ed25519"
COMMENT = "codespace-kernels"
_LOCK_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class UserKey:
    """The user's key pair.

    Attributes:
        path: File of the private key; the public one stands beside it, with `.pub` appended.
        private: For paramiko.
        public_line: As it stands in `authorized_keys`.
    """

    path: Path
    private: paramiko.PKey = dataclasses.field(repr=False)
    public_line: str


def load_or_create_user_key(folder: Path | None = None) -> UserKey:
    """Give the user's key, made when there is none yet. Blocks for a few milliseconds.

    Args:
        folder: Where it is kept; `settings.data_dir()` by default.

    Raises:
        SshError: The key file cannot be read or holds no usable key. It is never overwritten.
        WaitTimeoutError: Another process has held the lock for too long.
    """
    folder = folder or settings.data_dir()
    path = folder / KEY_FILE
    try:
        with filelock.FileLock(folder / f"{KEY_FILE}.lock", timeout=_LOCK_SECONDS):
            if not path.exists():
                _create(path)
            return _load(path)
    except filelock.Timeout:
        raise WaitTimeoutError.after(f"the lock {KEY_FILE}.lock in {folder}", _LOCK_SECONDS) from None
    except OSError as error:
        raise SshError(f"The SSH key {path} cannot be read or made: {error.strerror or error}.") from None


def _create(path: Path) -> None:
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    replace_file(path, private)
    logger.info("made the SSH key %s", path)


def _load(path: Path) -> UserKey:
    private = path.read_bytes()
    try:
        key = load_ssh_private_key(private, None)
        paramiko_key = paramiko.PKey.from_path(path)
    except (ValueError, TypeError, UnsupportedAlgorithm, paramiko.SSHException) as error:
        raise SshError(
            f"{path} holds no SSH key that can be used ({error}). Move the file away to have a new key made."
        ) from None
    if not platforms.is_windows() and path.stat().st_mode & 0o077:
        # OpenSSH refuses such a file, and gh hands it to OpenSSH.
        logger.warning("%s could be read by others; its permissions are 0600 now", path)
        path.chmod(0o600)
    public_line = f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {COMMENT}"
    _write_public(path.with_name(f"{path.name}.pub"), public_line)
    return UserKey(path, paramiko_key, public_line)


def _write_public(path: Path, line: str) -> None:
    """Keep the public half in step with the private one: gh reads it from the file beside the private key."""
    content = f"{line}\n".encode()
    if not path.exists() or path.read_bytes() != content:
        replace_file(path, content)
