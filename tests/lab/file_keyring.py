"""A keyring for a server under test: what another process keeps can be looked at."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Keeps everything in the file that an environment variable names."""

    priority = 1
    variable = "TEST_KEYRING_FILE"

    def _entries(self) -> dict[str, str]:
        file = Path(os.environ[self.variable])
        return json.loads(file.read_text()) if file.exists() else {}

    def _write(self, entries: dict[str, str]) -> None:
        Path(os.environ[self.variable]).write_text(json.dumps(entries))

    def get_password(self, service: str, username: str) -> str | None:
        return self._entries().get(f"{service}|{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._entries(), f"{service}|{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        entries = self._entries()
        if f"{service}|{username}" not in entries:
            raise PasswordDeleteError(service)
        del entries[f"{service}|{username}"]
        self._write(entries)
