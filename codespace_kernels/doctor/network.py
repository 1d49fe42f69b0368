"""Checks of the network: names, connections, proxies, TLS, and what GitHub's API says of itself."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
import urllib.parse
from typing import TYPE_CHECKING

import httpx

from codespace_kernels.doctor.findings import Check, Finding, Group, Verdict, fail, note, ok
from codespace_kernels.doctor.reach import Place, Reach, Step, reach, trust
from codespace_kernels.errors import TunnelError
from codespace_kernels.github.client import API_VERSION
from codespace_kernels.github.hosts import is_loopback, web_url
from codespace_kernels.tunnel.management import management_url
from codespace_kernels.tunnel.relay import proxy_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codespace_kernels.doctor.subject import Subject

GITHUB = "github.com"
TUNNELS = "global.rel.tunnels.api.visualstudio.com"
"""What a firewall must allow for codespaces of github.com besides GitHub itself and the tunnel's cluster
(https://docs.github.com/en/codespaces/troubleshooting/troubleshooting-your-connection-to-github-codespaces)."""

PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
CLOCK_SECONDS = 60.0
"""How wrong the local clock may be. Tunnel tokens carry times, and last for hours at most."""

_REACH_SECONDS = 45.0
_MOST_NAMES = 20


def proxies_of(env: Mapping[str, str]) -> dict[str, str]:
    """Give the proxy variables that are set, in either letter case, without the logins in them."""
    names = [name for upper in PROXY_VARIABLES for name in (upper, upper.lower())]
    return {name: without_login(env[name]) for name in names if env.get(name)}


def without_login(address: str) -> str:
    """Give an address with what stands before its `@` replaced."""
    scheme, slashes, rest = address.rpartition("://")
    login, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}***@{host}" if at and login else address


async def proxy(subject: Subject) -> Sequence[Finding]:
    """Tell which proxy is set, and whether it can be used and answers."""
    shown = proxies_of(subject.env)
    api = Place.of(subject.api_url)
    try:
        chosen = proxy_for(api.host, secure=api.secure)
    except TunnelError as error:
        return [fail(str(error).rstrip("."), "Set HTTPS_PROXY to the proxy's http:// address.")]
    said = ", ".join(f"{name}={value}" for name, value in shown.items())
    if chosen is None:
        return [ok(f"{said or 'none is set'}{f'; not used for {api.host}' if said else ''}")]
    if not said:
        said = f"{chosen.hostname}:{chosen.port or 80}, from the system's settings"
    place = Place(chosen.hostname or "", chosen.port or 80, secure=False)
    reached = await reach(place, through_proxy=False)
    if reached.failed:
        fix = "Correct the variable, or ask whoever runs the proxy; without a proxy, unset it."
        return [fail(f"{said}: {place.host}:{place.port} does not answer ({reached.why})", fix)]
    return [ok(said)]


async def way_to_api(subject: Subject) -> Sequence[Finding]:
    """Go to the API's host, step by step."""
    return _shown(subject, [await reach(Place.of(subject.api_url))])


async def other_names(subject: Subject) -> Sequence[Finding]:
    """Go to the other hosts that codespaces of this account need."""
    return await _reached(subject, _places(subject))


def _places(subject: Subject) -> list[Place]:
    if is_loopback(subject.api_url):
        return []
    places = [Place.of(web_url(subject.api_url))]
    return [*places, Place(TUNNELS)] if subject.host == GITHUB else places


async def names_of_meta(subject: Subject) -> Sequence[Finding]:
    """Go to the hosts that `GET /meta` names for codespaces; patterns such as `*.github.com` cannot be tried."""
    response = await subject.api.ask("/meta", subject.token)
    domains = subject.api.document(response).get("domains") if response.is_success else None
    names = domains.get("codespaces") if isinstance(domains, dict) else None
    if not isinstance(names, list):
        return [note("this GitHub does not list them")]
    plain = sorted({str(name) for name in names if "*" not in str(name)})
    patterns = sorted(str(name) for name in names if "*" in str(name))
    known = {Place.of(subject.api_url).host, *(place.host for place in _places(subject))}
    places = [Place(name) for name in plain if name not in known]
    findings = await _reached(subject, places[:_MOST_NAMES])
    if patterns:
        findings.append(ok(f"allow these patterns, too, where a firewall asks: {', '.join(patterns)}"))
    return findings


async def tunnel_names(subject: Subject) -> Sequence[Finding]:
    """Go to the hosts of the tunnel's cluster: the management API, and the relay."""
    assert subject.properties is not None
    management = management_url(subject.properties.service_uri, subject.properties.cluster_id)
    places = [Place.of(str(management))]
    cluster, host = subject.properties.cluster_id, management.host
    if host.endswith(TUNNELS.removeprefix("global")):
        places.append(Place(host.replace(cluster, f"{cluster}-data", 1)))
    return await _reached(subject, places)


async def unreached(subject: Subject, url: str) -> list[Finding]:
    """Go to the host of an address unless that was done; give what is wrong, nothing where it is reached."""
    place = Place.of(url)
    if any(known.place == place for known in subject.reaches):
        return []
    return [finding for finding in await _reached(subject, [place]) if finding.verdict is Verdict.FAIL]


async def _reached(subject: Subject, places: Iterable[Place]) -> list[Finding]:
    return _shown(subject, await asyncio.gather(*map(reach, places)))


def _shown(subject: Subject, reaches: Sequence[Reach]) -> list[Finding]:
    """Say what was reached in one line, and what was not in one each."""
    subject.reaches += reaches
    findings = [_unreached(r) for r in reaches if r.failed]
    reached = [r for r in reaches if not r.failed]
    if reached:
        plain = "" if all(r.place.secure for r in reached) else " (not encrypted, on this machine)"
        through = f" through the proxy {reached[0].proxy}" if reached[0].proxy else ""
        names = ", ".join(str(r.place) for r in reached)
        findings.insert(0, ok(f"{names} {'is' if len(reached) == 1 else 'are'} reached{plain}{through}"))
    return findings or [ok("there are none besides the API's")]


def _unreached(reached: Reach) -> Finding:
    place = str(reached.place)
    if reached.failed is Step.NAME:
        fix = "Look at this computer's DNS and VPN; a network that allows names one by one must allow this one."
        return fail(f"the name is not found ({reached.why})", fix, place)
    if reached.failed is Step.CONNECTION:
        fix = f"Have the firewall allow connections to {reached.place.host}, port {reached.place.port}."
        return fail(f"no connection ({reached.why})", fix, place)
    if reached.failed is Step.PROXY:
        fix = f"Ask whoever runs the proxy to let CONNECT {reached.place.host}:{reached.place.port} through."
        return fail(f"the proxy {reached.proxy} does not lead there ({reached.why})", fix, place)
    if reached.issuer:
        return fail(f"its certificate is not trusted ({reached.why})", 'See "TLS".', place)
    return fail(f"TLS fails ({reached.why})", "Something in between cuts TLS: try another network or VPN.", place)


async def tls(subject: Subject) -> Sequence[Finding]:
    """Tell whether somebody in between signs certificates in place of the hosts."""
    trust()
    certified = [r for r in subject.reaches if r.issuer]
    if not certified and any(r.failed for r in subject.reaches):
        return [note("not seen: no host was reached by it")]
    untrusted = [r for r in certified if r.failed]
    if untrusted:
        return [_untrusted(untrusted)]
    inspected = [r for r in certified if not r.is_public]
    if inspected:
        where = ", ".join(sorted({str(r.place) for r in inspected}))
        said = f"{where}: signed by {inspected[0].issuer}, which is no public authority but trusted here"
        return [note(f"TLS is inspected. {said}", "Nothing, as long as SSL_CERT_FILE names its certificate.")]
    issuers = sorted({r.issuer for r in certified})
    return [ok(f"certificates of {'; '.join(issuers)}" if issuers else "not spoken: everything is on this machine")]


def _untrusted(reaches: Sequence[Reach]) -> Finding:
    where = ", ".join(sorted({str(r.place) for r in reaches}))
    found = f"{where}: signed by {reaches[0].issuer}, which is not trusted ({reaches[0].why})"
    file = ssl.get_default_verify_paths().cafile
    if file and any(r.trusted_by_system for r in reaches):
        return fail(found, f"The operating system trusts it. Set SSL_CERT_FILE={file}")
    fix = (
        "If your organisation inspects TLS, get its certificate, put it together with the public ones "
        "(`python -m certifi` names their file) into a file, and set SSL_CERT_FILE to that."
    )
    return fail(found, fix)


async def api(subject: Subject) -> Finding:
    """Ask GitHub's API the first question; whatever it answers, it is there."""
    subject.user = await subject.api.ask("/user", subject.token)
    if "x-github-request-id" not in subject.user.headers:
        host = httpx.URL(subject.api_url).host
        return fail(
            f"{host} answers, but not like GitHub (status {subject.user.status_code})",
            "A proxy or portal may answer in its place: open a page in the browser, and check GITHUB_API_URL.",
        )
    return ok(f"{Place.of(subject.api_url)} answers")


async def api_version(subject: Subject) -> Finding:
    """Tell whether GitHub still speaks the REST version that is asked for."""
    assert subject.user is not None
    headers = subject.user.headers
    upgrade = "Upgrade codespace-kernels."
    if subject.user.status_code == 410:
        return fail(f"{API_VERSION} is retired", upgrade)
    message = str(subject.api.document(subject.user).get("message") or "")
    if subject.user.status_code == 400 and "version" in message.lower():
        return fail(
            f"{API_VERSION} is not known there: {message.rstrip('.')}", f"{upgrade} Or the server, if it is yours."
        )
    if "deprecation" in headers or "sunset" in headers:
        since, until = headers.get("deprecation", "a date that is not told"), headers.get("sunset", "")
        return note(f"{API_VERSION} is deprecated since {since}{f', and ends on {until}' if until else ''}", upgrade)
    selected = headers.get("x-github-api-version-selected", "")
    return ok(f"{API_VERSION} is accepted{'' if selected in ('', API_VERSION) else f', answered by {selected}'}")


async def clock(subject: Subject) -> Finding:
    """Compare this computer's clock with GitHub's."""
    assert subject.user is not None
    try:
        theirs = email.utils.parsedate_to_datetime(subject.user.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return note("GitHub does not say what time it is")
    # GitHub's has whole seconds.
    off = time.time() - theirs - 0.5
    if abs(off) > CLOCK_SECONDS:
        which = "ahead" if off > 0 else "behind"
        return fail(
            f"this computer's clock is {_duration(abs(off))} {which}",
            "Set it, best by the network's time (NTP): tokens would be taken for expired, or used when they are.",
        )
    return ok("right to the second" if abs(off) < 2 else f"right within {abs(off):.0f} s")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


def proxy_hosts(env: Mapping[str, str]) -> set[str]:
    """Give the names of proxies, which are the network's own affair."""
    parsed = (urllib.parse.urlsplit(v if "://" in v else f"http://{v}") for n, v in env.items() if _is_proxy(n) and v)
    return {address.hostname for address in parsed if address.hostname}


def _is_proxy(name: str) -> bool:
    return name.upper() in PROXY_VARIABLES[:3]


CHECKS = (
    Check("proxy", "Proxy", Group.NETWORK, proxy),
    Check("api-host", "API's host", Group.NETWORK, way_to_api, needs=("proxy",), seconds=_REACH_SECONDS),
    Check("hosts", "Other hosts", Group.NETWORK, other_names, needs=("proxy",), seconds=_REACH_SECONDS),
    Check("api", "API", Group.NETWORK, api, needs=("api-host",), after=("token",)),
    Check("api-version", "API version", Group.NETWORK, api_version, needs=("api",)),
    Check("clock", "Clock", Group.NETWORK, clock, needs=("api",)),
    Check("meta", "Hosts in /meta", Group.NETWORK, names_of_meta, needs=("api-version",), seconds=_REACH_SECONDS),
)
NAMED_CHECKS = (
    Check("tunnel-hosts", "Tunnel's hosts", Group.NETWORK, tunnel_names, needs=("properties",), seconds=_REACH_SECONDS),
)
TLS_CHECK = Check("tls", "TLS", Group.NETWORK, tls, after=("api-host", "hosts", "meta", "tunnel-hosts"))
