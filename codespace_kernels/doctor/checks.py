"""All checks, in the order in which they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codespace_kernels.doctor import account, codespace, computer, frontends, inside, network, specs

if TYPE_CHECKING:
    from codespace_kernels.doctor.findings import Check


def all_checks(*, named: bool) -> list[Check]:
    """Give the checks.

    Args:
        named: Whether a codespace was named, which then is examined, too.
    """
    chosen = [*account.CHECKS, *network.CHECKS]
    if named:
        chosen += [*network.NAMED_CHECKS]
    chosen.append(network.TLS_CHECK)
    if named:
        chosen += [*codespace.CHECKS, *inside.CHECKS]
    return [*chosen, *specs.CHECKS, frontends.SPECS_CHECK, *frontends.CHECKS, *computer.CHECKS]
