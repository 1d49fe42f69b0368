"""Kernelspecs of a workspace, as the link tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codespace_kernels.offered_specs import accepted
from codespace_kernels.remote_kernel import RemoteKernelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def read_kernelspecs(answer: Mapping[str, Any], raw: Sequence[bytes]) -> dict[str, RemoteKernelSpec]:
    """Read the answer to the command `kernelspecs`: the files' contents follow in the order of their names in it."""
    contents = iter(raw)
    return accepted([_read(name, spec, contents) for name, spec in dict(answer["kernelspecs"]).items()])


def _read(name: str, spec: Mapping[str, Any], contents: Iterator[bytes]) -> RemoteKernelSpec:
    return RemoteKernelSpec(
        name=name,
        display_name=str(spec.get("display_name") or name),
        language=str(spec.get("language") or ""),
        interrupt_mode=str(spec.get("interrupt_mode") or "signal"),
        metadata=dict(spec.get("metadata") or {}),
        versions={str(key): str(text) for key, text in dict(spec.get("versions") or {}).items()},
        resources={str(file): next(contents) for file in spec["resources"]},
    )
