"""Which codespaces are like what a request would create, and which of them is the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codespace_kernels.github.models import Devcontainer, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codespace_kernels.github.models import Codespace
    from codespace_kernels.providers.base import CreateRequest

_RANKS = {Phase.READY: 0, Phase.UP: 1, Phase.BUSY: 2, Phase.DOWN: 3, Phase.STOPPED: 3}
"""How soon a codespace can be used; one in another phase never can."""


def fitting(codespaces: Iterable[Codespace], request: CreateRequest, default_branch: str) -> list[Codespace]:
    """Choose and order codespaces of one repository; see `Provider.find`.

    Args:
        codespaces: Of the repository.
        request: What they are to be like.
        default_branch: Of the repository; taken where the request names none.
    """
    found = [codespace for codespace in codespaces if _fits(codespace, request, request.ref or default_branch)]
    # Two sorts, as the second keeps the order of the first: times are texts, which cannot be negated.
    found.sort(key=lambda codespace: (codespace.last_used_at, codespace.created_at, codespace.name), reverse=True)
    return sorted(found, key=lambda codespace: _RANKS[codespace.phase])


def _fits(codespace: Codespace, request: CreateRequest, branch: str) -> bool:
    machine = codespace.machine.name if codespace.machine else ""
    return (
        codespace.phase in _RANKS
        and codespace.ref == branch
        and _same_devcontainer(codespace.devcontainer_path, request.devcontainer_path)
        and request.machine in ("", machine)
    )


def _same_devcontainer(one: str, other: str) -> bool:
    """Compare two paths; no path is what GitHub says of a codespace that was made from the default or from nothing."""
    return one == other or all(not path or Devcontainer(path).is_default for path in (one, other))
