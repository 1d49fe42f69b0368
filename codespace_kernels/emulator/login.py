"""Signing in to the emulated account: GitHub's device flow, its page, and tokens that expire."""

from __future__ import annotations

import dataclasses
import html
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tornado.web import RequestHandler

if TYPE_CHECKING:
    from codespace_kernels.emulator.api import Shared

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_EXPIRES_IN = 900
_REFRESH_SECONDS = 15_811_200
"""The life of a refresh token in GitHub's documented example."""

AT_ONCE = frozenset({"device_flow_disabled", "incorrect_client_credentials"})
"""Errors that GitHub tells before it gives a code."""

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclasses.dataclass
class Attempt:
    """One sign-in that was begun.

    Attributes:
        user_code: What the person types in.
        scopes: That were asked for.
        interval: Seconds that must lie between two questions.
        decision: `authorize` or `deny`; empty while the person has not decided.
    """

    user_code: str
    scopes: tuple[str, ...]
    interval: float
    decision: str = ""
    expires_at: float = dataclasses.field(default_factory=lambda: time.monotonic() + _EXPIRES_IN)
    asked_at: float = 0.0


class SignIns:
    """The sign-ins of one emulated account."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.refresh_tokens: dict[str, tuple[str, ...]] = {}

    def begin(self, scopes: tuple[str, ...], interval: float) -> tuple[str, Attempt]:
        """Begin one; give its secret and itself."""
        letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
        device_code = secrets.token_hex(20)
        self.attempts[device_code] = Attempt(f"{letters[:4]}-{letters[4:]}", scopes, interval)
        return device_code, self.attempts[device_code]

    def by_user_code(self, code: str) -> Attempt | None:
        """Find one by what a person types in."""
        wanted = code.strip().upper()
        return next((attempt for attempt in self.attempts.values() if attempt.user_code == wanted), None)


class _Handler(RequestHandler):
    def initialize(self, shared: Shared) -> None:
        self.shared = shared
        self.sign_ins = shared.account.sign_ins

    def check_xsrf_cookie(self) -> None:
        """Programs post here, as they do to GitHub."""

    def answer(self, values: dict[str, Any]) -> None:
        """Answer as a form, or as JSON where that is asked for; GitHub tells errors with status 200, too."""
        if "json" in self.request.headers.get("Accept", ""):
            self.finish(values)
        else:
            self.set_header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
            self.finish(urlencode(values))


class DeviceCodeHandler(_Handler):
    """`/login/device/code`: begins a sign-in."""

    def post(self) -> None:
        """Answer with the two codes."""
        fault = self.shared.faults.get("login-error", "")
        if fault and fault.options["error"] in AT_ONCE:
            self.shared.faults.take("login-error", "")
            self.answer({"error": fault.options["error"]})
            return
        if not self.get_argument("client_id", ""):
            self.answer({"error": "incorrect_client_credentials"})
            return
        scopes = tuple(self.get_argument("scope", "").replace(",", " ").split())
        device_code, attempt = self.sign_ins.begin(scopes, self.shared.account.host.timing.sign_in_interval)
        base = f"{self.request.protocol}://{self.request.host}"
        self.answer(
            {
                "device_code": device_code,
                "user_code": attempt.user_code,
                "verification_uri": f"{base}/login/device",
                "expires_in": _EXPIRES_IN,
                "interval": attempt.interval,
            }
        )


class TokenHandler(_Handler):
    """`/login/oauth/access_token`: gives a token once the person has decided, or a new one for one that expires."""

    def post(self) -> None:
        """Answer."""
        grant = self.get_argument("grant_type", "")
        if grant == "refresh_token":
            self._refresh()
        elif grant == DEVICE_GRANT:
            self.answer(self._device())
        else:
            self.answer({"error": "unsupported_grant_type"})

    def _device(self) -> dict[str, Any]:
        code = self.get_argument("device_code", "")
        attempt = self.sign_ins.attempts.get(code)
        if attempt is None:
            return {"error": "incorrect_device_code"}
        fault = self.shared.faults.take("login-error", "")
        if fault:
            return {"error": str(fault.options["error"]), **self._interval(attempt, str(fault.options["error"]))}
        now = time.monotonic()
        if now > attempt.expires_at:
            return {"error": "expired_token"}
        early, attempt.asked_at = now - attempt.asked_at < attempt.interval, now
        if early:
            return {"error": "slow_down", **self._interval(attempt, "slow_down")}
        if not attempt.decision:
            return {"error": "authorization_pending"}
        del self.sign_ins.attempts[code]
        return {"error": "access_denied"} if attempt.decision == "deny" else self._issue(attempt.scopes)

    def _interval(self, attempt: Attempt, error: str) -> dict[str, float]:
        if error != "slow_down":
            return {}
        # GitHub adds as much as the first interval is long.
        attempt.interval += self.shared.account.host.timing.sign_in_interval
        return {"interval": attempt.interval}

    def _refresh(self) -> None:
        scopes = self.sign_ins.refresh_tokens.pop(self.get_argument("refresh_token", ""), None)
        self.answer({"error": "bad_refresh_token"} if scopes is None else self._issue(scopes))

    def _issue(self, scopes: tuple[str, ...]) -> dict[str, Any]:
        token = self.shared.account.add_token("classic", scopes)
        answer: dict[str, Any] = {"access_token": token.value, "token_type": "bearer", "scope": ",".join(scopes)}
        fault = self.shared.faults.get("expiring-tokens", "")
        if fault is None:
            return answer
        refresh_token = f"ghr_{secrets.token_hex(18)}"
        self.sign_ins.refresh_tokens[refresh_token] = scopes
        return {
            **answer,
            "expires_in": int(fault.options["seconds"]),
            "refresh_token": refresh_token,
            "refresh_token_expires_in": _REFRESH_SECONDS,
        }


class DevicePage(_Handler):
    """`/login/device`: where a person types the code and decides."""

    def get(self) -> None:
        """Ask."""
        self.finish(
            "<!doctype html><meta charset=utf-8><title>Device activation</title><form method=post>"
            "<input name=user_code placeholder=XXXX-XXXX><button name=decision value=authorize>Authorize</button>"
            "<button name=decision value=deny>Cancel</button></form>"
        )

    def post(self) -> None:
        """Decide."""
        attempt = self.sign_ins.by_user_code(self.get_argument("user_code", ""))
        if attempt is None:
            self.set_status(422)
            self.finish("<p>This code is not known, or has expired.</p>")
            return
        attempt.decision = "deny" if self.get_argument("decision", "authorize") == "deny" else "authorize"
        who = html.escape(self.shared.account.user.login)
        self.finish(f"<p>{who}, your device is {'refused' if attempt.decision == 'deny' else 'connected'}.</p>")


LOGIN_ROUTES: list[tuple[str, type[_Handler]]] = [
    (r"/login/device/code", DeviceCodeHandler),
    (r"/login/oauth/access_token", TokenHandler),
    (r"/login/device", DevicePage),
]
