"""Checks of the account: the token, what it may do, and how long."""

from __future__ import annotations

import collections
import datetime
import email.utils
import json
import math
import re
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels.doctor.findings import Check, Finding, Group, fail, note, ok
from codespace_kernels.doctor.programs import run_program
from codespace_kernels.errors import GitHubError, SsoRequiredError
from codespace_kernels.github.auth import find_gh, gh_environment, token_sources
from codespace_kernels.github.hosts import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.doctor.subject import Subject

SCOPE = "codespace"
EXPIRES_SOON = 7 * 86400.0
"""Seconds. A week is time enough to make another token."""

FEW_REQUESTS = 100
"""Of GitHub's limit; a morning's work with kernels takes some dozens."""

_MOST_PAGES = 10
_GH_SECONDS = 15.0

_KINDS = {
    "ghp_": "a classic personal access token",
    "github_pat_": "a fine-grained personal access token",
    "gho_": "a token of an OAuth app",
    "ghu_": "a token of a GitHub App for a user",
    "ghs_": "a token of a GitHub App's installation",
}
"""Prefixes: https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github"""


def kind_of(value: str) -> str:
    """Say of which kind a token is, by its prefix."""
    known = next((kind for prefix, kind in _KINDS.items() if value.startswith(prefix)), "")
    if not known and re.fullmatch(r"[0-9a-f]{40}", value):
        return "a token of the form that GitHub used until 2021"
    return known or "a token of an unknown kind"


async def token(subject: Subject) -> Finding:
    """Tell where the token comes from and of which kind it is."""
    # NoTokenError and BadTokenError say themselves what was found.
    subject.token = await token_sources(subject.access.account, subject.env).find()
    return ok(f"{kind_of(subject.token.value)}, from {subject.token.source}")


async def can_connect(subject: Subject) -> Finding:
    """Tell whether GitHub gives this kind of token a way into a codespace."""
    assert subject.token is not None
    sign_in = (
        f"Sign in with `gh auth login -h {subject.host} -s {SCOPE}`, or use a classic token with the scope {SCOPE}."
    )
    if subject.token.fine_grained:
        return fail("fine-grained tokens list codespaces, but are given no tunnel to them", sign_in)
    if subject.token.value.startswith("ghs_"):
        return fail("a token of an installation, such as that of GitHub Actions, has no codespaces", sign_in)
    return ok("this kind of token is given tunnels")


async def signed_in(subject: Subject) -> Finding:
    """Tell who is signed in."""
    assert subject.token is not None
    assert subject.user is not None
    if not subject.user.is_success:
        raise subject.api.refusal(subject.user, "find out who is signed in", subject.token)
    if not subject.login:
        raise GitHubError(
            f"{subject.host} answers with something that is not GitHub's JSON. Check GITHUB_API_URL and proxies."
        )
    return ok(f"{subject.login} at {subject.host}")


async def scopes(subject: Subject) -> Finding:
    """Tell whether a token with scopes has the one that is needed."""
    assert subject.user is not None
    given = subject.user.headers.get("x-oauth-scopes")
    if given is None:
        return note("GitHub names no scopes for this token: it has permissions instead")
    names = [scope.strip() for scope in given.split(",") if scope.strip()]
    if SCOPE not in names:
        fix = f"Run `gh auth refresh -h {subject.host} -s {SCOPE}`, or `codespace-kernels login --force`."
        return fail(f"{SCOPE} is missing; there is {', '.join(names) or 'none'}", fix)
    return ok(", ".join(names))


async def expiry(subject: Subject) -> Finding:
    """Tell when the token expires."""
    assert subject.user is not None
    text = subject.user.headers.get("github-authentication-token-expiration", "")
    end = _moment(text)
    if end is None:
        return ok("GitHub names no end of the token" if not text else f"at {text}")
    left = (end - datetime.datetime.now(datetime.UTC)).total_seconds()
    fix = f"Make a new one, or sign in with `gh auth login -h {subject.host} -s {SCOPE}`."
    if left <= 0:
        return fail(f"it expired at {text}", fix)
    if left < EXPIRES_SOON:
        return note(f"in {_time_left(left)}, at {text}", fix)
    return ok(f"in {_time_left(left)}")


def _moment(text: str) -> datetime.datetime | None:
    """Read `2026-12-01 12:00:00 UTC` or `… +0100`, the forms that the header has had."""
    for form in ("%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S %Z"):
        try:
            moment = datetime.datetime.strptime(text, form)  # noqa: DTZ007  (without a zone it is UTC)
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None


def _time_left(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


async def rate_limit(subject: Subject) -> Finding:
    """Tell what is left of GitHub's rate limit."""
    assert subject.user is not None
    headers = subject.user.headers
    if subject.user.status_code in (403, 429) and subject.token:
        error = subject.api.refusal(subject.user, "find out who is signed in", subject.token)
        if isinstance(error, GitHubError):
            raise error
    try:
        left, limit = int(headers["x-ratelimit-remaining"]), int(headers["x-ratelimit-limit"])
        pause = max(0.0, int(headers["x-ratelimit-reset"]) - _server_time(headers))
    except (KeyError, ValueError):
        return ok("GitHub names none")
    shown = f"{left} of {limit} requests left, all again in {math.ceil(pause / 60)} min"
    if left < min(FEW_REQUESTS, limit):
        return note(shown, "Look which other program uses this account's tokens.")
    return ok(shown)


def _server_time(headers: Any) -> float:
    try:
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return time.time()


async def single_sign_on(subject: Subject) -> Finding:
    """List the codespaces, and tell whether an organisation's single sign-on stands in the way."""
    assert subject.token is not None
    response = await subject.api.ask("/user/codespaces", subject.token, {"per_page": "100"})
    subject.listed = response
    if response.status_code == 403:
        error = subject.api.refusal(response, "list codespaces", subject.token)
        if isinstance(error, SsoRequiredError):
            raise error
    said = response.headers.get("x-github-sso", "")
    if "partial-results" in said:
        page = "https://github.com/settings/tokens"
        fix = f"Authorise the token for them: at {page} (Configure SSO), or with `gh auth refresh -h {subject.host}`."
        return note(f"organisations are left out that want the token authorised ({_organizations(said)})", fix)
    return ok("no organisation asks for it")


def _organizations(said: str) -> str:
    found = re.search(r"organizations=([\d,]+)", said)
    return f"ids {found[1]}" if found else "GitHub does not say which"


async def codespaces(subject: Subject) -> Finding:
    """Count the codespaces by their state."""
    assert subject.token is not None
    assert subject.listed is not None
    response, found = subject.listed, []
    for _ in range(_MOST_PAGES):
        if not response.is_success:
            raise subject.api.refusal(response, "list codespaces", subject.token)
        found += [item for item in subject.api.document(response).get("codespaces") or [] if isinstance(item, dict)]
        following = response.links.get("next", {}).get("url", "")
        if not following.startswith(subject.api_url):
            break
        path = following.removeprefix(subject.api_url)
        response = await subject.api.ask(path, subject.token, shown="/user/codespaces")
    subject.codespaces = found
    if not found:
        return note("there is none yet", "Make one with `codespace-kernels create OWNER/REPO`.")
    states = collections.Counter(str(item.get("state") or "without a state") for item in found)
    return ok(f"{len(found)} ({', '.join(f'{count} {state}' for state, count in sorted(states.items()))})")


async def gh(subject: Subject) -> Finding:
    """Tell whether `gh`, the second way into a codespace, is there and signed in, and with which scopes."""
    env = gh_environment(subject.env)
    program = find_gh(env)
    if program is None:
        return note("not installed; it is not needed, but would be a second way to sign in and to connect")
    version = (await run_program([program, "--version"], env, _GH_SECONDS)).output.splitlines()
    shown = version[0] if version else "gh without a version"
    if is_loopback(subject.api_url):
        # Its logins are those of hosts without a port: of the emulator it takes the token from the environment.
        return ok(f"{shown}; is given the emulator's token")
    status = await run_program([program, "auth", "status", "-h", subject.host, "--json", "hosts"], env, _GH_SECONDS)
    return _judged_gh(shown, subject.host, _gh_accounts(status.output))


def _judged_gh(shown: str, host: str, accounts: Sequence[dict[str, Any]]) -> Finding:
    active = next((entry for entry in accounts if entry.get("active")), None)
    if active is None:
        return note(
            f"{shown}; not signed in to {host}", f"If you want to use it: `gh auth login -h {host} -s {SCOPE}`."
        )
    who = f"{shown}; {active.get('login') or 'somebody'} by {active.get('tokenSource') or 'its own means'}"
    if active.get("state") != "success":
        return note(f"{who}, which GitHub does not accept", f"Run `gh auth login -h {host} -s {SCOPE}`.")
    given = str(active.get("scopes") or "")
    if given and SCOPE not in re.split(r"[,\s]+", given):
        return note(f"{who}, without the scope {SCOPE}", f"Run `gh auth refresh -h {host} -s {SCOPE}`.")
    return ok(f"{who}{f' ({given})' if given else ''}")


def _gh_accounts(text: str) -> list[dict[str, Any]]:
    """Read `gh auth status --json hosts`: `{"hosts": {HOST: [{state, active, login, tokenSource, scopes}]}}`."""
    try:
        hosts = json.loads(text)["hosts"]
        return [entry for entries in hosts.values() for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


CHECKS = (
    # Keyrings and gh have their own time, one after the other.
    Check("token", "Token", Group.ACCOUNT, token, seconds=40.0),
    Check("rate-limit", "Rate limit", Group.ACCOUNT, rate_limit, needs=("token", "api-version")),
    Check("signed-in", "Signed in", Group.ACCOUNT, signed_in, needs=("token", "api-version", "rate-limit")),
    Check("scopes", "Scopes", Group.ACCOUNT, scopes, needs=("signed-in",)),
    Check("expiry", "Expiry", Group.ACCOUNT, expiry, needs=("signed-in",)),
    Check("connecting", "Connecting", Group.ACCOUNT, can_connect, needs=("token",)),
    Check("sso", "Single sign-on", Group.ACCOUNT, single_sign_on, needs=("signed-in", "scopes")),
    Check("codespaces", "Codespaces", Group.ACCOUNT, codespaces, needs=("sso",)),
    Check("gh", "gh", Group.ACCOUNT, gh, seconds=3 * _GH_SECONDS),
)
