"""Refusals in GitHub's shape, and those that a fault orders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tornado.web import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from codespace_kernels.emulator.faults import Fault, FaultBoard
    from codespace_kernels.emulator.rendering import Json

DOCUMENTATION = "https://docs.github.com/rest"


class ApiError(HTTPError):
    """A refusal in GitHub's shape.

    Args:
        status: HTTP status.
        message: For a person.
        errors: Items of a 422, as GitHub has them: `{resource, field, code, message}`.
        headers: Headers of the answer.
        extra: More members of the body.
        documentation: Path below `DOCUMENTATION`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        errors: Sequence[Json] = (),
        headers: Mapping[str, str] | None = None,
        extra: Json | None = None,
        documentation: str = "/codespaces/codespaces",
    ) -> None:
        super().__init__(status)
        self.headers = headers or {}
        self.body: Json = {"message": message}
        if errors:
            self.body["errors"] = list(errors)
        self.body |= {"documentation_url": DOCUMENTATION + documentation, "status": str(status), **(extra or {})}


def not_found() -> ApiError:
    """Give the answer for what is absent, or hidden from the token."""
    return ApiError(404, "Not Found")


def rate_limited(status: int = 403, headers: Mapping[str, str] | None = None) -> ApiError:
    """Give the answer for a primary rate limit that is used up."""
    return ApiError(
        status,
        "API rate limit exceeded for this user.",
        headers=headers,
        documentation="/using-the-rest-api/rate-limits-for-the-rest-api",
    )


def _rate_limit(fault: Fault, base: str) -> ApiError:
    """Build the refusal; only a primary limit says that nothing remains, `retry-after` comes with either."""
    options = fault.options
    status = int(options["status"])
    headers = {} if int(options["retry_after"]) < 0 else {"Retry-After": str(options["retry_after"])}
    if options["limit"] == "secondary":
        return ApiError(
            status,
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            headers=headers,
            documentation="/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits",
        )
    headers["X-RateLimit-Remaining"] = "0"
    headers["X-RateLimit-Reset"] = str(int(time.time()) + int(options["reset_in"]))
    return rate_limited(status, headers)


def _unauthorized(fault: Fault, base: str) -> ApiError:
    return ApiError(401, "Bad credentials", documentation="")


def _sso(fault: Fault, base: str) -> ApiError:
    address = f"{base}/orgs/octo-org/sso?authorization_request=emulated"
    return ApiError(
        403,
        "Resource protected by organization SAML enforcement. "
        "You must grant your OAuth token access to this organization.",
        headers={"X-GitHub-SSO": f"required; url={address}"},
    )


def version_retired(version: str, known: Sequence[str], status: int = 410) -> ApiError:
    """Give the answer for a REST version that is no more, or never was (400)."""
    return ApiError(
        status,
        f"The API version {version!r} is {'no longer' if status == 410 else 'not'} supported. "
        f"Supported: {', '.join(known)}.",
        documentation="/about-the-rest-api/api-versions",
    )


def _server_error(fault: Fault, base: str) -> ApiError:
    status = int(fault.options["status"])
    # The description gives 503, and only that, a body with a `code`.
    return ApiError(status, "Server Error", extra={"code": "unavailable"} if status == 503 else None)


def _payment(fault: Fault, base: str) -> ApiError:
    # GitHub's own words, as people report them.
    return ApiError(
        402,
        "Usage of this codespace is currently disallowed: You seem to have a billing issue. "
        "Please adjust your billing settings to continue using codespaces.",
    )


def _not_allowed(fault: Fault, base: str) -> ApiError:
    return ApiError(403, "Codespaces cannot be created with this repository by you.")


def _conflict(fault: Fault, base: str) -> ApiError:
    return ApiError(409, "The codespace is already running.")


def _unprocessable(fault: Fault, base: str) -> ApiError:
    item = {"resource": "Codespace", "field": str(fault.options["field"]), "code": str(fault.options["code"])}
    if fault.options["message"]:
        item["message"] = str(fault.options["message"])
    return ApiError(422, "Validation Failed", errors=[item])


_REFUSALS: dict[str, Callable[[Fault, str], ApiError]] = {
    "unauthorized": _unauthorized,
    "sso": _sso,
    "rate-limit": _rate_limit,
    "server-error": _server_error,
    "payment": _payment,
    "not-allowed": _not_allowed,
    "conflict": _conflict,
    "unprocessable": _unprocessable,
}


def refusal_of_faults(faults: FaultBoard, operation: str, codespace: str, base: str) -> ApiError | None:
    """Give the refusal that a fault orders for a request, and count that it struck.

    Args:
        faults: The board.
        operation: Which of `faults.OPERATIONS` the request is.
        codespace: Name of the codespace that it is about, or an empty string.
        base: Address of the emulated API.
    """
    for kind, refusal in _REFUSALS.items():
        fault = faults.take(kind, codespace, operation)
        if fault:
            return refusal(fault, base)
    return None
