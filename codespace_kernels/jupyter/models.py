"""What a Jupyter server's REST API tells (https://jupyter-server.readthedocs.io/en/stable/developers/rest-api.html)."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """A kernelspec of the server.

    Attributes:
        name: Its name there.
        spec: The content of its `kernel.json`.
        resources: Paths of its files on the server, by their name without suffix (`logo-64x64`).
    """

    name: str
    spec: dict[str, Any]
    resources: dict[str, str]

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> KernelSpec:
        """Read a model; unknown keys are ignored."""
        resources = {key: str(path) for key, path in dict(data.get("resources") or {}).items()}
        return cls(name, dict(data.get("spec") or {}), resources)

    @property
    def display_name(self) -> str:
        """Name for people; the spec's name where there is none."""
        return str(self.spec.get("display_name") or self.name)

    @property
    def language(self) -> str:
        """Programming language, empty where the spec does not say."""
        return str(self.spec.get("language") or "")


@dataclasses.dataclass(frozen=True)
class KernelModel:
    """A running kernel.

    Attributes:
        id: The server's id of it.
        name: Its kernelspec.
        execution_state: `starting`, `idle`, `busy`, `dead`, …; empty where the server does not say.
        connections: How many websockets are open to it.
        last_activity: ISO 8601, empty where the server does not say.
    """

    id: str
    name: str
    execution_state: str = ""
    connections: int = 0
    last_activity: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> KernelModel:
        """Read a model; unknown keys are ignored."""
        return cls(
            str(data.get("id") or ""),
            str(data.get("name") or ""),
            str(data.get("execution_state") or ""),
            int(data.get("connections") or 0),
            str(data.get("last_activity") or ""),
        )
