"""What a running workspace costs, as far as this computer saw it run."""

from __future__ import annotations

from typing import Any

from codespace_kernels.providers.prices import PRICES_DATE, PRICES_SOURCE


def unknown_usage() -> dict[str, Any]:
    """Give the usage of a workspace of which nothing is known yet; see docs/command-line.md for its fields."""
    return {
        "running_since": None,
        "running_since_exact": False,
        "capped_at": None,
        "idle_stops_at": None,
        "idle_timeout_minutes": None,
        "machine": "",
        "cores": None,
        "dollars_per_hour": None,
        "session_dollars": None,
        "month_dollars": None,
        "month_hours": 0.0,
        "prices_source": PRICES_SOURCE,
        "prices_date": PRICES_DATE,
    }
