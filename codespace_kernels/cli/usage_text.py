"""A workspace's `usage` in words: since when it runs, when it stops, what it costs."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from codespace_kernels.target import ALWAYS, NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

CAP_WARNING = 3600.0
"""Seconds before the end of its longest session at which a person is told of it."""


def remark(usage: Mapping[str, Any]) -> str:
    """Say what costs are worth."""
    return f"Costs are an estimate from published prices of {usage['prices_date']}; see docs/costs.md."


def uptime(usage: Mapping[str, Any], now: float) -> str:
    """Say how long the workspace has run; empty where that is not known."""
    since = _moment(usage["running_since"])
    if since is None:
        return ""
    return f"{'' if usage['running_since_exact'] else 'at least '}{duration(now - since)}"


def stops(usage: Mapping[str, Any], now: float) -> str:
    """Say when the workspace will be stopped, by the provider or by us; empty where that is not known.

    Args:
        usage: The usage.
        now: Unix time.
    """
    cap, before = _moment(usage["capped_at"]), _moment(usage.get("capped_before"))
    if cap is not None and cap - now < CAP_WARNING:
        return f"{_in(cap - now)}, at its longest session"
    if before is not None and 0 < before - now < CAP_WARNING:
        return f"in {duration(before - now)} at the latest, at its longest session"
    awake = _moment(usage.get("awake_until"))
    if awake is not None and awake > now:
        return _kept_awake(usage, awake - now)
    return _when_idle(usage, now, over=awake is not None)


def _kept_awake(usage: Mapping[str, Any], left: float) -> str:
    how = "kept awake" if usage.get("keep_awake") != ALWAYS else "kept awake, even if idle"
    return how if left >= CAP_WARNING else f"{how}, for {duration(left)} more"


def _when_idle(usage: Mapping[str, Any], now: float, *, over: bool) -> str:
    idle, ours = _moment(usage["idle_stops_at"]), _moment(usage.get("stop_when_idle_at"))
    if ours is not None and (idle is None or ours < idle):
        return f"{_in(ours - now)} if idle, as its kernelspec says"
    if idle is None:
        return "kept awake no longer" if over else ""
    if over:
        return f"{_in(idle - now)}: kept awake no longer, as nobody uses it"
    never = ", and no kernel keeps it awake" if usage.get("keep_awake") == NEVER else ""
    return f"{_in(idle - now)} if idle{never}"


def price(dollars_per_hour: float | None) -> str:
    """Give a price an hour; empty where it is not known."""
    return "" if dollars_per_hour is None else f"${dollars_per_hour:.2f} an hour"


def session_cost(usage: Mapping[str, Any]) -> str:
    """Give what the session has cost; empty where that is not known."""
    return "" if usage["session_dollars"] is None else _dollars(usage["session_dollars"])


def month_cost(usage: Mapping[str, Any]) -> str:
    """Give hours and cost of the month; empty where it was not seen running."""
    if not usage["month_hours"]:
        return ""
    hours = duration(usage["month_hours"] * 3600)
    return hours if usage["month_dollars"] is None else f"{_dollars(usage['month_dollars'])} for {hours}"


def duration(seconds: float) -> str:
    """Give a time in its two largest units."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _in(seconds: float) -> str:
    return "any moment" if seconds <= 0 else f"in {duration(seconds)}"


def _dollars(amount: float) -> str:
    return "under $0.01" if 0 < amount < 0.01 else f"${amount:.2f}"


def _moment(text: str | None) -> float | None:
    return None if text is None else datetime.datetime.fromisoformat(text).timestamp()
