"""What GitHub publishes as the price of a codespace, in US dollars. Nothing here asks GitHub.

What a user pays may be less: hours that a plan includes, agreements and taxes are not known here.
"""

from __future__ import annotations

PRICES_SOURCE = "https://docs.github.com/en/billing/concepts/product-billing/github-codespaces"
"""The page whose table "Pricing" has the figures."""

PRICES_DATE = "2026-11-23"
"""ISO date on which the figures were read."""

STORAGE_DOLLARS_PER_GB_MONTH = 0.07
"""For each GB that codespaces and prebuilds occupy for a month, running or not."""

_DOLLARS_PER_HOUR = {2: 0.18, 4: 0.36, 8: 0.72, 16: 1.44, 32: 2.88}


def dollars_per_hour(cpus: int | None) -> float | None:
    """Give the published price of an hour in which a codespace runs.

    Args:
        cpus: Cores of its machine type; None where they are not known.

    Returns:
        US dollars; None for a number of cores that has no published price.
    """
    return None if cpus is None else _DOLLARS_PER_HOUR.get(cpus)
