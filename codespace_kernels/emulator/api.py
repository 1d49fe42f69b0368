"""What every answer of GitHub's REST API has in common: headers, token check, quota, faults, pages, error bodies."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from tornado.httputil import format_timestamp, url_concat
from tornado.web import Finish, RequestHandler

from codespace_kernels.emulator.outage import strike
from codespace_kernels.emulator.refusals import (
    ApiError,
    not_found,
    rate_limited,
    refusal_of_faults,
    version_retired,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from codespace_kernels.emulator.account import Account
    from codespace_kernels.emulator.codespace import Codespace
    from codespace_kernels.emulator.faults import FaultBoard
    from codespace_kernels.emulator.models import Repository, Token
    from codespace_kernels.emulator.quota import Quota
    from codespace_kernels.emulator.rendering import Json

API_VERSIONS = ("2022-11-28", "2026-03-10")
"""REST versions in existence; the first is the one for requests that name none."""

SUNSET_SECONDS = 90 * 86400.0
"""From now to the end of a version that the fault `api-version` calls deprecated."""


@dataclasses.dataclass
class Shared:
    """What all handlers of one emulator share.

    Attributes:
        account: The emulated account.
        faults: Its faults.
        quota: Its primary rate limit.
        base: Address of the emulated API without a trailing slash; known once the server listens.
    """

    account: Account
    faults: FaultBoard
    quota: Quota
    base: str = ""


class ApiHandler(RequestHandler):
    """Base of all handlers of the emulated REST API.

    Attributes:
        accepted_scopes: Value of `X-Accepted-OAuth-Scopes`; where it is `codespace`, the token must have that scope.
        is_counted: Whether requests count against the primary rate limit.
    """

    accepted_scopes: ClassVar[str] = "codespace"
    is_counted: ClassVar[bool] = True
    account: Account
    faults: FaultBoard
    quota: Quota
    base: str
    token: Token

    def initialize(self, shared: Shared, operations: Mapping[str, str]) -> None:
        """Take what all handlers share, and which of `faults.OPERATIONS` each HTTP method is."""
        self.account = shared.account
        self.faults = shared.faults
        self.quota = shared.quota
        self.base = shared.base
        self._operations = operations
        self._kept_headers: dict[str, str] = {}
        self._is_unanswered = False

    @property
    def operation(self) -> str:
        """Which of `faults.OPERATIONS` this request is."""
        return self._operations.get(self.request.method or "", "other")

    def set_default_headers(self) -> None:
        """Set the headers that all answers have, refusals too."""
        self.set_header("Server", "codespace-kernels emulator")
        self.set_header("X-GitHub-Request-Id", uuid.uuid4().hex.upper()[:24])
        self.set_header("X-GitHub-Media-Type", "github.v3; format=json")

    def prepare(self) -> None:
        """Refuse what GitHub would refuse before it looks at the request's aim."""
        if strike(self.faults, self.path_kwargs.get("name", ""), self):
            raise ApiError(503, "Service Unavailable", extra={"code": "unavailable"})
        if self._finished:
            raise Finish
        self._tell_faults()
        self._check_version()
        self._check_token()
        self._count()
        name = self.path_kwargs.get("name", "")
        refusal = refusal_of_faults(self.faults, self.operation, name, self.base)
        if refusal:
            raise refusal
        silence = self.faults.take("no-answer", name, self.operation)
        self._is_unanswered = silence is not None
        if silence and not silence.options["done"]:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection in place of an answer."""
        self._finished = True
        self.detach().close()

    def _check_version(self) -> None:
        version = self.request.headers.get("X-GitHub-Api-Version") or API_VERSIONS[0]
        if version not in API_VERSIONS:
            retired = re.fullmatch(r"\d{4}-\d\d-\d\d", version) and version < API_VERSIONS[0]
            raise version_retired(version, API_VERSIONS, 410 if retired else 400)
        fault = self.faults.take("api-version", "")
        if fault and fault.options["how"] == "retired":
            raise version_retired(version, [known for known in API_VERSIONS if known != version])
        if fault:
            self.keep_header("Deprecation", http_date(0))
            self.keep_header("Sunset", http_date(SUNSET_SECONDS))
        self.keep_header("X-GitHub-Api-Version-Selected", version)

    def _tell_faults(self) -> None:
        """Set what faults put into the headers of an answer that is no refusal."""
        if fault := self.faults.take("clock", ""):
            self.keep_header("Date", http_date(float(fault.options["seconds"])))
        if fault := self.faults.take("token-expiration", ""):
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=float(fault.options["seconds"]))
            self.keep_header("GitHub-Authentication-Token-Expiration", f"{end:%Y-%m-%d %H:%M:%S} UTC")
        if self.faults.take("sso-partial", "", self.operation):
            self.keep_header("X-GitHub-SSO", "partial-results; organizations=4711")

    def _check_token(self) -> None:
        scheme, _, value = self.request.headers.get("Authorization", "").partition(" ")
        if not value:
            raise ApiError(401, "Requires authentication")
        token = self.account.token(value.strip()) if scheme.lower() in {"token", "bearer"} else None
        if token is None:
            raise ApiError(401, "Bad credentials", documentation="")
        self.token = token
        if token.kind == "classic":
            self.keep_header("X-OAuth-Scopes", ", ".join(token.scopes))
            self.keep_header("X-Accepted-OAuth-Scopes", self.accepted_scopes)
        if self.accepted_scopes == "codespace" and not token.may_use_codespaces:
            raise ApiError(403, 'This token needs the "codespace" scope.')

    def _count(self) -> None:
        allowed = not self.is_counted or self.quota.take()
        self.set_quota_headers(self.quota)
        if not allowed:
            raise rate_limited()

    def set_quota_headers(self, quota: Quota) -> None:
        """Set the rate-limit headers of a quota."""
        for name, value in {**quota.to_json(), "resource": "core"}.items():
            self.keep_header(f"X-RateLimit-{name.capitalize()}", str(value))

    def keep_header(self, name: str, value: str) -> None:
        """Set a header that a refusal has as well; tornado drops the others before it writes an error."""
        self._kept_headers[name] = value
        self.set_header(name, value)

    def send(self, data: object, status: int = 200) -> None:
        """Answer with JSON, or with 304 where the client has it already; a 304 is free of the quota."""
        if self._is_unanswered:
            self._hang_up()
            return
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        body = json.dumps(data).encode()
        if self.request.method == "GET":
            self.set_header("ETag", f'W/"{hashlib.sha256(body).hexdigest()}"')
            self.set_header("Cache-Control", "private, max-age=60, s-maxage=60")
            if self.check_etag_header():
                self._send_not_modified()
                return
        self.finish(body)

    def _send_not_modified(self) -> None:
        if self.is_counted:
            self.quota.give_back()
            self.set_quota_headers(self.quota)
        self.clear_header("Content-Type")
        self.set_status(304)
        self.finish()

    def send_page(self, key: str, items: Sequence[Any], render: Callable[[Any], Json], **more: object) -> None:
        """Answer with one page of a list: `per_page` (30, at most 100), `page` (from 1), `Link`.

        Args:
            key: Name of the list in the object that is sent, beside `total_count`; empty: the list itself is sent.
            items: All of it.
            render: Gives an item's JSON.
            more: Further members of the object.
        """
        per_page = max(1, min(100, self._number("per_page", 30)))
        page = max(1, self._number("page", 1))
        last = max(1, -(-len(items) // per_page))
        links = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
        shown = [name for name in links if page < last or name in {"prev", "first"}]
        shown = [name for name in shown if page > 1 or name in {"next", "last"}]
        if shown:
            pages = {name: self._page_url(links[name]) for name in shown}
            self.set_header("Link", ", ".join(f'<{url}>; rel="{name}"' for name, url in pages.items()))
        part = [render(item) for item in items[(page - 1) * per_page : page * per_page]]
        self.send({"total_count": len(items), **more, key: part} if key else part)

    def _number(self, name: str, default: int) -> int:
        text = self.get_query_argument(name, "")
        return int(text) if text.isdecimal() else default

    def _page_url(self, page: int) -> str:
        query = [(name, self.get_query_argument(name)) for name in self.request.query_arguments if name != "page"]
        return str(url_concat(self.base + self.request.path, [*query, ("page", str(page))]))

    def json_body(self) -> Json:
        """Give the JSON object that was sent.

        Raises:
            ApiError: 400, it is none.
        """
        try:
            body = json.loads(self.request.body or b"{}")
        except ValueError:
            raise ApiError(400, "Problems parsing JSON") from None
        if not isinstance(body, dict):
            raise ApiError(400, "Body should be a JSON object")
        return body

    def find_codespace(self, name: str) -> Codespace:
        """Give a codespace of the account.

        Raises:
            ApiError: 404, there is none.
        """
        codespace = self.account.codespaces.get(name)
        if codespace is None:
            raise not_found()
        return codespace

    def find_repository(self, owner: str | None, repo: str | None, number: str | None) -> Repository:
        """Give a repository by owner and name, or by its id.

        Raises:
            ApiError: 404, there is none.
        """
        if number is None:
            found = self.account.repository(f"{owner}/{repo}")
        else:
            found = self.account.repository_by_id(int(number))
        if found is None:
            raise not_found()
        return found

    def write_error(
        self,
        status_code: int,
        **kwargs: tuple[type[BaseException], BaseException, TracebackType] | None,
    ) -> None:
        """Answer with an error body in GitHub's shape."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if not isinstance(error, ApiError):
            # GitHub knows no 405: a method that a path does not have is "Not Found" as well.
            error = ApiError(500, "Server Error") if status_code >= 500 else not_found()
        self.set_status(error.status_code)
        for name, value in {**self._kept_headers, **error.headers}.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(error.body))


def http_date(seconds_ahead: float) -> str:
    """Give a moment, counted from now, as HTTP headers have it."""
    return format_timestamp(time.time() + seconds_ahead)


class NotFoundHandler(ApiHandler):
    """Answers every path that the emulated API does not have."""

    accepted_scopes = ""

    def prepare(self) -> None:
        """Refuse: a path that is not there is so for everybody."""
        raise not_found()
