"""The codespace of an emulated account, as its web page and GitHub's trouble change it behind the broker's back."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.emulator.control import ControlClient
from codespace_kernels.emulator.state import find_record

from .conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping


class CodespaceControl:
    """Looks at the account's codespace and changes it. Asks the emulator in this process: tests ask it often.

    Args:
        environment: What `emulator start` gave.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._control = ControlClient(find_record(environment["GITHUB_API_URL"]))

    @property
    def _codespace(self) -> dict:
        return self._control.status()["codespaces"][0]

    @property
    def codespace(self) -> str:
        """Its name."""
        return self._codespace["name"]

    @property
    def state(self) -> str:
        """GitHub's word for its state."""
        return self._codespace["state"]

    def set(self, kind: str, **options: str | float) -> None:
        """Set a fault."""
        self._control.set_fault(kind, None, options)

    def clear(self) -> None:
        """Clear all faults."""
        self._control.clear_faults(None, None)

    @property
    def no_start_was_asked_for(self) -> bool:
        """Whether the fault that the first start would have used up is still there."""
        return [fault["kind"] for fault in self._control.status()["faults"]] == ["payment"]

    def stop(self) -> None:
        """Stop it as its web page does."""
        url = f"{self._environment['GITHUB_API_URL']}/user/codespaces/{self.codespace}/stop"
        headers = {"Authorization": f"token {self._environment['GH_ENTERPRISE_TOKEN']}"}
        with urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=headers), timeout=30):
            pass
        wait_until(lambda: self.state == "Shutdown", "the codespace to stop")


def not_connected() -> bool:
    """Whether the broker is connected to no workspace, and knows it."""
    client = BrokerClient()
    workspaces = client.call("GET", "status")["workspaces"] if client.running() else []
    return all(workspace["state"] == "not connected" for workspace in workspaces)
