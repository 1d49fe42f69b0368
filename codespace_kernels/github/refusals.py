"""GitHub's refusals as errors that tell the fix: the one seam between HTTP answers and the exception tree."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.errors import (
    BadTokenError,
    CodespaceKernelsError,
    GitHubError,
    GitHubUnavailableError,
    MissingScopeError,
    NotFoundError,
    PaymentRequiredError,
    PendingOperationError,
    PermissionsRequiredError,
    RateLimitError,
    SsoRequiredError,
)
from codespace_kernels.github.hosts import is_loopback
from codespace_kernels.github.retry import rate_limit_pause

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from codespace_kernels.github.tokens import Token

_LONGEST_MESSAGE = 400
"""Characters of GitHub's own text that are passed on."""

_FIELD_CODES = {
    "missing": "does not exist",
    "missing_field": "is missing",
    "invalid": "is not valid",
    "unprocessable": "is not valid",
    "already_exists": "exists already",
}
"""Codes of validation errors in words (https://docs.github.com/rest, "Validation failed")."""


class Refusal:
    """One refused request: what was asked, with which token, and what GitHub said.

    Args:
        response: The answer, read to its end.
        what: What was to be done, an infinitive: "start codespace hello".
        host: Host that the token belongs to.
        token: The token that was sent; its source is named, its value is kept out of every text.
        repeatable: Whether doing it twice does no harm.
    """

    def __init__(
        self, response: httpx.Response, what: str, host: str, token: Token, *, repeatable: bool = True
    ) -> None:
        self.response = response
        self.status = response.status_code
        self.what = what
        self.host = host
        self.token = token
        self.repeatable = repeatable
        self.body = json_object(response)

    def error(self) -> CodespaceKernelsError:
        """Give the error to raise."""
        error = self._by_status()
        if isinstance(error, GitHubError):
            error.status = self.status
        return error

    def _by_status(self) -> CodespaceKernelsError:
        if self.status >= 500:
            return self._server_error()
        if rate_limit_pause(self.response) is not None:
            return self._rate_limit()
        handler = _HANDLERS.get(self.status)
        return handler(self) if handler else self._other()

    @property
    def message(self) -> str:
        """GitHub's own words in one line, validation errors included; the status where it said nothing."""
        parts = [str(self.body.get("message") or ""), *_field_errors(self.body.get("errors"))]
        text = "; ".join(" ".join(part.split()) for part in parts if part).replace(self.token.value, "…")
        return text[:_LONGEST_MESSAGE].rstrip(" .") or f"HTTP status {self.status}"

    def _other(self, advice: str = "") -> GitHubError:
        return GitHubError(f"GitHub refused to {self.what}: {self.message}. {advice}".rstrip())

    def _server_error(self) -> GitHubUnavailableError:
        said = f": {self.message}" if self.body.get("message") else ""
        why = f"server error {self.status}{said}"
        return unavailable(self.what, self.response.url.netloc.decode(), why, repeatable=self.repeatable)

    def _unauthorized(self) -> CodespaceKernelsError:
        url = self.body.get("allow_permissions_url")
        if isinstance(url, str) and url:
            error = PermissionsRequiredError(
                f"To {self.what}, the devcontainer asks for permissions that only you can grant. "
                f"Open {url}, or create it with default permissions only."
            )
            error.url = url
            return error
        return self._bad_token("expired, revoked, or of another host")

    def _bad_token(self, why: str) -> BadTokenError:
        return BadTokenError(
            f"{self.host} does not accept the token from {self.token.source} ({why}). "
            f"Sign in with `gh auth login -h {self.host} -s codespace`, or put a valid token there."
        )

    def _payment(self) -> PaymentRequiredError:
        return PaymentRequiredError(
            f"GitHub refused to {self.what}, as nobody pays for it: {self.message}. "
            f"Check the spending limit and payment method at https://{self.host}/settings/billing of whoever pays."
        )

    def _forbidden(self) -> CodespaceKernelsError:
        if sso := _sso_url(self.response):
            error = SsoRequiredError(
                f"To {self.what}, the organisation wants the token from {self.token.source} authorised for single "
                f"sign-on. Open {sso} within the hour, then try again."
            )
            error.url = sso
            return error
        if "login attempts" in self.message.lower():
            return self._bad_token("too many failed attempts; GitHub pauses the account for a while")
        return self._missing_scope() or self._not_permitted()

    def _missing_scope(self) -> MissingScopeError | None:
        accepted, granted = (_words(self.response, f"x-{name}oauth-scopes") for name in ("accepted-", ""))
        if not accepted or not granted or accepted & granted:
            return None
        scope = "codespace" if "codespace" in accepted else min(accepted)
        return MissingScopeError(
            f"The token from {self.token.source} may not {self.what}: it lacks the scope {scope}. "
            f"Add it with `gh auth refresh -h {self.host} -s {scope}`, or make a token that has it."
        )

    def _not_permitted(self) -> CodespaceKernelsError:
        needed = self.response.headers.get("x-accepted-github-permissions", "")
        if not needed and "not accessible by" not in self.message.lower():
            return self._other()
        permissions = f" ({needed})" if needed else ""
        return MissingScopeError(
            f"The token from {self.token.source} lacks the permission{permissions} to {self.what}: {self.message}. "
            f"Use a token with the classic scope codespace: `gh auth login -h {self.host} -s codespace`."
        )

    def _not_found(self) -> CodespaceKernelsError:
        missing = self._missing_scope()
        if missing is not None and "codespace" in _words(self.response, "x-accepted-oauth-scopes"):
            return missing
        return NotFoundError(
            f"Could not {self.what}: it does not exist, or is hidden from the account of the token from "
            f"{self.token.source}. Check the name and the account."
        )

    def _gone(self) -> GitHubError:
        return self._other("This REST version may have been retired: upgrade codespace-kernels.")

    def _unprocessable(self) -> GitHubError:
        if self.body.get("pending_operation") is True or "pending operation" in self.message.lower():
            return PendingOperationError(
                f"Could not {self.what}: another operation on it is still running ({self.message}). "
                "Wait until it ends, then try again."
            )
        return self._other()

    def _rate_limit(self) -> RateLimitError:
        pause = rate_limit_pause(self.response) or 0.0
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + pause))
        return RateLimitError(
            f"GitHub's rate limit stops us from trying to {self.what}: {self.message}. "
            f"Try again after {until} ({_duration(pause)} from now)."
        )


_HANDLERS: dict[int, Callable[[Refusal], CodespaceKernelsError]] = {
    401: Refusal._unauthorized,
    402: Refusal._payment,
    403: Refusal._forbidden,
    404: Refusal._not_found,
    410: Refusal._gone,
    422: Refusal._unprocessable,
}


def unavailable(what: str, host: str, why: str, *, repeatable: bool = True) -> GitHubUnavailableError:
    """Build the error for a server that fails or does not answer.

    Args:
        what: What was to be done, an infinitive.
        host: The host that was asked, with its port where it has one.
        why: "server error 502", "no answer within 60 s", ….
        repeatable: False where it may have been done all the same.
    """
    advice = "Is the emulator running?" if is_loopback(f"http://{host}") else "Try again in a moment."
    if not repeatable:
        advice = "It may have been done: look before you repeat it."
    return GitHubUnavailableError(f"Could not {what}: {host} cannot be used now ({why}). {advice}")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Give the answer's JSON object; empty where the body is something else, as behind some proxies."""
    value = json_value(response)
    return value if isinstance(value, dict) else {}


def json_value(response: httpx.Response) -> Any:
    """Give the answer's JSON value; None where the body is something else."""
    try:
        return response.json()
    except ValueError:
        return None


def _field_errors(errors: object) -> list[str]:
    """Put validation errors into words; items are strings or `{resource, field, code, message}`."""
    return [_field_error(item) for item in errors] if isinstance(errors, list) else []


def _field_error(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    code, message = str(item.get("code") or ""), str(item.get("message") or "")
    if code in ("custom", ""):
        return message
    subject = ".".join(str(item[key]) for key in ("resource", "field") if item.get(key))
    return f"{subject} {_FIELD_CODES.get(code, code)}".strip()


def _words(response: httpx.Response, header: str) -> set[str]:
    return {word for word in re.split(r"[,\s]+", response.headers.get(header, "")) if word}


def _sso_url(response: httpx.Response) -> str:
    """Give the address in `X-GitHub-SSO: required; url=…`; where the header comes twice, the last counts, as in gh."""
    for value in reversed(response.headers.get_list("x-github-sso")):
        if match := re.search(r"url=(https?://[^\s;,]+)", value):
            return match[1]
    return ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
