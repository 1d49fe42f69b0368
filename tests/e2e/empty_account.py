"""An account that begins without codespaces, so that a test can count those that were made."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import urllib.request
from typing import TYPE_CHECKING, Any

from .conftest import EmulatedAccount, cli, end_broker, wait_until
from .sleepy import CodespaceControl

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = "octocat/ml"


class EmptyAccount(CodespaceControl):
    """Looks at the account and changes it as GitHub's pages do."""

    @property
    def states(self) -> dict[str, str]:
        """State of each codespace, by name."""
        return {codespace["name"]: codespace["state"] for codespace in self._control.status()["codespaces"]}

    @property
    def faults(self) -> list[str]:
        """Kinds of the faults that are still set."""
        return [fault["kind"] for fault in self._control.status()["faults"]]

    def folder(self, name: str) -> str:
        """Where a codespace's files are on this machine."""
        return f"{self._control.status()['folder']}/{name}"

    def create(self, machine: str = "") -> str:
        """Create a codespace; give its name."""
        number = self._request("GET", f"repos/{REPOSITORY}")["id"]
        body = {"repository_id": number, "ref": "main", **({"machine": machine} if machine else {})}
        name: str = self._request("POST", "user/codespaces", body)["name"]
        wait_until(lambda: self.states[name] == "Available", "the codespace to come up")
        return name

    def stop_one(self, name: str) -> None:
        """Stop one, and wait for it."""
        self._request("POST", f"user/codespaces/{name}/stop")
        wait_until(lambda: self.states[name] == "Shutdown", "the codespace to stop")

    def delete(self, name: str) -> None:
        """Delete one."""
        self._request("DELETE", f"user/codespaces/{name}")

    def empty(self) -> None:
        """Clear all faults, and delete every codespace."""
        self.clear()
        for name in self.states:
            self.delete(name)

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self._environment['GITHUB_API_URL']}/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"token {self._environment['GH_ENTERPRISE_TOKEN']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def empty_account() -> Iterator[EmptyAccount]:
    """Sign this process and its children in to such an account, with a broker and kernelspecs of their own."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="cke-") as folder:
        os.environ["CODESPACE_KERNELS_HOME"] = f"{folder}/home"
        os.environ["JUPYTER_DATA_DIR"] = f"{folder}/jupyter"
        environment = EmulatedAccount("--codespaces", "0", "--shared-environment", repository=REPOSITORY).environment
        os.environ.update(environment)
        try:
            yield EmptyAccount(environment)
        finally:
            end_broker()
            assert cli("emulator", "stop").returncode == 0
            os.environ.clear()
            os.environ.update(before)
