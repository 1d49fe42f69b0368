"""The primary rate limit of an account."""

from __future__ import annotations

import dataclasses
import time

WINDOW_SECONDS = 3600


@dataclasses.dataclass
class Quota:
    """Counts requests in windows of an hour, over all tokens of a user together.

    Attributes:
        limit: Requests in a window; GitHub gives users 5000.
        used: Requests counted in this window.
        reset: Unix time at which the window ends.
    """

    limit: int = 5000
    used: int = 0
    reset: int = dataclasses.field(default_factory=lambda: int(time.time()) + WINDOW_SECONDS)

    def take(self) -> bool:
        """Count one request; false where the limit is used up."""
        if time.time() >= self.reset:
            self.used, self.reset = 0, int(time.time()) + WINDOW_SECONDS
        if self.used >= self.limit:
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        """Take back the last count: an answer 304 is free."""
        self.used = max(0, self.used - 1)

    @property
    def remaining(self) -> int:
        """Requests left in this window."""
        return self.limit - self.used

    def to_json(self) -> dict[str, int | str]:
        """Give the object that `GET /rate_limit` has for a resource."""
        return {"limit": self.limit, "used": self.used, "remaining": self.remaining, "reset": self.reset}
