"""Kernelspecs of a workspace, as the link tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels.remote_kernel import RemoteKernelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def read_kernelspecs(answer: Mapping[str, Any], raw: Sequence[bytes]) -> dict[str, RemoteKernelSpec]:
    """Read the answer to the command `kernelspecs`: the files' contents follow in the order of their names in it."""
    contents = iter(raw)
    specs = {}
    for name, spec in dict(answer["kernelspecs"]).items():
        specs[name] = RemoteKernelSpec(
            name=name,
            display_name=spec.get("display_name") or name,
            language=spec.get("language") or "",
            interrupt_mode=spec.get("interrupt_mode") or "signal",
            metadata=spec.get("metadata") or {},
            versions=spec.get("versions") or {},
            resources={file: next(contents) for file in spec["resources"]},
        )
    return specs
