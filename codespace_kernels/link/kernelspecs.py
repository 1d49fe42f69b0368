"""A kernelspec of a workspace, as the link tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class RemoteKernelSpec:
    """What front ends want to know of a kernelspec; its `argv` means nothing here.

    Attributes:
        name: Key in the workspace's Jupyter server.
        display_name, language: As its `kernel.json` has them.
        interrupt_mode: `signal` or `message`.
        metadata: As its `kernel.json` has it.
        resources: Contents of its logo files by file name.
    """

    name: str
    display_name: str
    language: str
    interrupt_mode: str = "signal"
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resources: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def read_kernelspecs(answer: Mapping[str, Any], raw: Sequence[bytes]) -> dict[str, RemoteKernelSpec]:
    """Read the answer to the command `kernelspecs`: the files' contents follow in the order of their names in it."""
    contents = iter(raw)
    specs = {}
    for name, spec in answer["kernelspecs"].items():
        specs[name] = RemoteKernelSpec(
            name=name,
            display_name=spec.get("display_name") or name,
            language=spec.get("language") or "",
            interrupt_mode=spec.get("interrupt_mode") or "signal",
            metadata=spec.get("metadata") or {},
            resources={file: next(contents) for file in spec["resources"]},
        )
    return specs
