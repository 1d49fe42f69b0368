"""GitHub's device flow: a person types a short code into a web page, and this program is given a token.

Protocol: https://docs.github.com/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps#device-flow (RFC 8628). No
secret takes part: an app's client id is public.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Self

import httpx

from codespace_kernels.errors import AuthError, GitHubUnavailableError, WaitTimeoutError
from codespace_kernels.github.hosts import is_loopback, web_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SCOPES = ("codespace",)
"""All that the codespaces endpoints want. Private repositories are looked up with it, too, as far as codespaces go."""

SLOW_DOWN_SECONDS = 5.0
"""What `slow_down` adds to the interval where GitHub names no new one."""

_TIMEOUT = httpx.Timeout(30.0)

_ENDS = {
    "expired_token": "the code was not entered in time. Sign in again",
    "access_denied": "the request was turned down in the browser. Sign in again if that was a mistake",
    "incorrect_client_credentials": "the client id is not known there. Check CODESPACE_KERNELS_CLIENT_ID",
    "device_flow_disabled": "the app of this client id has no device flow. Switch it on in the app's settings",
    "bad_refresh_token": "its refresh token is not valid any more. Sign in again",
}
"""What GitHub's words mean for a person."""


@dataclasses.dataclass(frozen=True)
class DeviceCode:
    """What a person must do.

    Attributes:
        user_code: To be typed in.
        verification_uri: Page to type it into.
        device_code: Secret of this attempt; `repr` leaves it out.
        expires_in: Seconds until the code is worth nothing.
        interval: Seconds between questions whether it was typed in.
    """

    user_code: str
    verification_uri: str
    device_code: str = dataclasses.field(repr=False)
    expires_in: float = 900.0
    interval: float = 5.0


@dataclasses.dataclass(frozen=True)
class IssuedToken:
    """A token that GitHub gave out. `repr` shows no secret.

    Attributes:
        access_token: For requests.
        scopes: That it has.
        expires_at: Unix time; None where it does not expire.
        refresh_token: To have a new one; empty where it does not expire.
        refresh_expires_at: Unix time at which a new sign-in is needed; None where it is not known.
        client_id: Of the app, which alone can refresh it.
    """

    access_token: str = dataclasses.field(repr=False)
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    refresh_token: str = dataclasses.field(default="", repr=False)
    refresh_expires_at: float | None = None
    client_id: str = ""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], client_id: str) -> Self:
        """Read an answer of the token address."""
        now = time.time()
        scopes = tuple(part for part in str(answer.get("scope") or "").replace(",", " ").split() if part)
        return cls(
            str(answer["access_token"]),
            scopes,
            _after(now, answer.get("expires_in")),
            str(answer.get("refresh_token") or ""),
            _after(now, answer.get("refresh_token_expires_in")),
            client_id,
        )

    def to_json(self) -> dict[str, Any]:
        """Give what is stored; holds secrets."""
        return {**dataclasses.asdict(self), "scopes": list(self.scopes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_json`.

        Raises:
            KeyError, TypeError: Not of that form.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in data.items() if name in names}
        return cls(**{**values, "access_token": str(data["access_token"]), "scopes": tuple(data.get("scopes") or ())})


class DeviceFlow:
    """Signs in to one GitHub host.

    Args:
        api_url: Of the host's REST API.
        client_id: Of an OAuth or GitHub app with the device flow switched on.
    """

    def __init__(self, api_url: str, client_id: str) -> None:
        self._base = web_url(api_url)
        self._client_id = client_id
        self._http = httpx.AsyncClient(
            headers={"Accept": "application/json"}, timeout=_TIMEOUT, trust_env=not is_loopback(api_url)
        )

    async def begin(self, scopes: Sequence[str] = SCOPES) -> DeviceCode:
        """Ask for a code.

        Raises:
            AuthError: GitHub refuses.
            GitHubUnavailableError: It does not answer.
        """
        answer = await self._post("/login/device/code", client_id=self._client_id, scope=" ".join(scopes))
        try:
            return DeviceCode(
                str(answer["user_code"]),
                str(answer["verification_uri"]),
                str(answer["device_code"]),
                float(answer.get("expires_in") or 900),
                float(answer.get("interval") or 5),
            )
        except (KeyError, ValueError):
            raise self._refused(answer) from None

    async def wait(self, code: DeviceCode) -> IssuedToken:
        """Ask, as often as GitHub likes it, until the person has decided.

        Raises:
            AuthError: The person, or GitHub, refuses.
            WaitTimeoutError: Nothing was decided before the code expired.
            GitHubUnavailableError: GitHub does not answer any more.
        """
        interval = code.interval
        try:
            async with asyncio.timeout(code.expires_in):
                while True:
                    await asyncio.sleep(interval)
                    answer = await self._token(device_code=code.device_code, grant_type=GRANT)
                    if "access_token" in answer:
                        return IssuedToken.from_answer(answer, self._client_id)
                    if answer.get("error") == "slow_down":
                        interval = float(answer.get("interval") or interval + SLOW_DOWN_SECONDS)
                    elif answer.get("error") != "authorization_pending":
                        raise self._refused(answer)
        except TimeoutError:
            raise WaitTimeoutError.after(
                f"the code {code.user_code} to be entered", code.expires_in, "Sign in again."
            ) from None

    async def refresh(self, refresh_token: str) -> IssuedToken:
        """Have a new token in place of one that expires; both old ones are worth nothing afterwards.

        Raises:
            AuthError: GitHub refuses.
            GitHubUnavailableError: It does not answer.
        """
        answer = await self._token(refresh_token=refresh_token, grant_type="refresh_token")
        if "access_token" not in answer:
            raise self._refused(answer)
        return IssuedToken.from_answer(answer, self._client_id)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _token(self, **fields: str) -> dict[str, Any]:
        return await self._post("/login/oauth/access_token", client_id=self._client_id, **fields)

    async def _post(self, path: str, **fields: str) -> dict[str, Any]:
        """Send a form; errors come as a JSON object too, mostly with status 200."""
        try:
            response = await self._http.post(self._base + path, data=fields)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise GitHubUnavailableError(
                f"{httpx.URL(self._base).host} did not answer the sign-in ({type(error).__name__}). Try again."
            ) from None
        return answer if isinstance(answer, dict) else {}

    def _refused(self, answer: Mapping[str, Any]) -> AuthError:
        word = str(answer.get("error") or answer.get("message") or "an answer without a token")
        why = _ENDS.get(word) or str(answer.get("error_description") or word).rstrip(".")
        return AuthError(f"{httpx.URL(self._base).host} did not sign you in: {why}.")


def _after(now: float, seconds: Any) -> float | None:
    return now + float(seconds) if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else None
