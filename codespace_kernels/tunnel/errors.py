"""Refusals of the dev-tunnel service, with what a caller can do about them."""

from __future__ import annotations

from codespace_kernels.errors import TunnelError

_ADVICE = {
    401: "Its token has expired or is not valid: connect again to have a new one fetched.",
    403: "The token does not allow this: sign in again with an account that may use the codespace.",
    404: "The codespace may have stopped or its tunnel changed: connect again.",
    429: "Too many connections were tried: wait a minute and connect again.",
}
_RETRY_STATUS = frozenset({429, 500, 502, 503, 504})


class TunnelRefusedError(TunnelError):
    """The tunnel service answered with an HTTP error.

    Attributes:
        status: HTTP status.
        retry_after: Seconds that the service asks to wait, or None.
    """

    def __init__(self, what: str, status: int, detail: str = "", retry_after: float | None = None) -> None:
        advice = _ADVICE.get(status) or ("Try again in a moment." if status in _RETRY_STATUS else "")
        said = f"HTTP {status}{f', {detail}' if detail else ''}"
        super().__init__(f"The dev tunnel service refused {what} ({said}). {advice}".rstrip())
        self.status = status
        self.retry_after = retry_after

    @property
    def token_expired(self) -> bool:
        """Whether new tokens may help."""
        return self.status == 401

    @property
    def may_retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in _RETRY_STATUS


def retry_after_seconds(value: str | None) -> float | None:
    """Read a `Retry-After` header; its date form is not used by this service."""
    return float(value) if value is not None and value.isdecimal() else None
