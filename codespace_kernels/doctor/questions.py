"""Answers to what is not known of GitHub's own service, as far as looking can give them.

The questions are those that the design's notes list as not settled; none of them is answered by making, starting,
stopping or changing anything.
"""

from __future__ import annotations

import base64
import binascii
import collections
import datetime
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from codespace_kernels.doctor.subject import Subject

NOT_OBSERVED = "not observed"
_REFUSALS = frozenset((401, 402, 403, 404, 410, 422, 429))
_KNOWN_OBJECTS = frozenset(("owner", "billable_owner", "repository"))
"""Long, and described in public."""

_ODD_STATES = ("Awaiting", "Unavailable", "Moved", "Archived", "Unknown")


class Answer(NamedTuple):
    """One open question.

    Attributes:
        question: What is asked.
        answer: What was seen; `NOT_OBSERVED` and why, where nothing was.
    """

    question: str
    answer: str


def answers(subject: Subject) -> list[Answer]:
    """Give all questions, in their order, with what was seen."""
    return [Answer(question, answer(subject)) for question, answer in _QUESTIONS]


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Give every key below a JSON value with the type of what stands there; never a value."""
    if isinstance(value, dict):
        for key, below in value.items():
            where = f"{path}.{key}" if path else key
            if key in _KNOWN_OBJECTS:
                yield where, "object" if isinstance(below, dict) else "null"
            else:
                yield from shape(below, where)
    elif isinstance(value, list):
        yield path, f"list of {len(value)}"
        if value:
            yield from shape(value[0], f"{path}[]")
    else:
        yield (
            path,
            {"str": "text", "NoneType": "null", "int": "number", "float": "number"}.get(
                type(value).__name__, type(value).__name__
            ),
        )


def token_lifetime(token: str) -> int | None:
    """Give `exp` - `iat` of a JSON web token in seconds; None where it is none, or names no times."""
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return int(claims["exp"]) - int(claims["iat"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


def _not(why: str) -> Callable[[Subject], str]:
    return lambda _: f"{NOT_OBSERVED}: {why}"


def _lifetimes(subject: Subject) -> str:
    if subject.properties is None:
        return f"{NOT_OBSERVED}: no tunnel was shown"
    tokens = {
        "connectAccessToken": subject.properties.connect_access_token,
        "managePortsAccessToken": subject.properties.manage_ports_access_token,
    }
    seconds = {name: token_lifetime(token) for name, token in tokens.items()}
    shown = (f"{name}: {f'{n} s' if n is not None else 'not told by the token'}" for name, n in seconds.items())
    return f"{', '.join(shown)} (exp - iat). Whether an open websocket survives them: {NOT_OBSERVED}"


def _internal_form(subject: Subject) -> str:
    status = subject.api.statuses.get("GET /user/codespaces/{name}?internal=true")
    if subject.token is None or status is None:
        return f"{NOT_OBSERVED}: it was not asked for"
    kind = subject.token.value[: subject.token.value.find("_") + 1] if "_" in subject.token.value[:11] else "other"
    if kind not in ("github_", "ghu_"):
        return f"{NOT_OBSERVED}: this token is of another kind; to it, status {status}"
    has = isinstance((subject.internal or {}).get("connection"), dict)
    return f"to a token {kind}…: status {status}, {'with' if has else 'without'} `connection`"


def _running_server(subject: Subject) -> str:
    others = (subject.inside or {}).get("others")
    if not others:
        return f"{NOT_OBSERVED}: no JupyterLab was seen running, and asking would start one"
    shown = (f"port {o['port']}, {o['scheme']}://{o['host']}:PORT{o['path']}" for o in others)
    return f"Jupyter servers that run, by their own files: {'; '.join(shown)}. The call was not made: it may start one"


def _times_to_come(subject: Subject) -> str:
    item = subject.internal or next(iter(subject.codespaces or []), None)
    if item is None:
        return f"{NOT_OBSERVED}: no codespace was seen"
    now = datetime.datetime.now(datetime.UTC)
    fields = sorted(key for key, value in item.items() if (moment := _moment(value)) and moment > now)
    return (
        f"fields with a time to come: {', '.join(fields) or 'none'}; "
        f"`last_known_stop_notice` is {item.get('last_known_stop_notice')!r}"
    )


def _moment(value: object) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _ports(subject: Subject) -> str:
    if subject.description is None:
        return f"{NOT_OBSERVED}: the tunnel was not seen"
    ports = [_port(port) for port in subject.description.get("ports") or [] if isinstance(port, dict)]
    offered = sorted(subject.tunnel.offered_ports) if subject.tunnel else None
    announced = "not seen" if offered is None else ", ".join(map(str, offered)) or "none"
    return f"{'; '.join(ports) or 'none'}. Announced by `tcpip-forward`: {announced}"


def _port(port: Mapping[str, Any]) -> str:
    labels = ", ".join(map(str, port.get("labels") or [])) or "no label"
    return f"{port.get('portNumber')} ({labels}, {port.get('protocol')})"


def _domain(subject: Subject) -> str:
    if subject.properties is None:
        return f"{NOT_OBSERVED}: no tunnel was shown"
    return repr(subject.properties.domain)


def _refusals(subject: Subject) -> str:
    seen = {name: status for name, status in subject.api.statuses.items() if status in _REFUSALS}
    if not seen:
        return f"{NOT_OBSERVED}: nothing was refused"
    sso = (
        "with"
        if any(r is not None and "x-github-sso" in r.headers for r in (subject.user, subject.listed))
        else "without"
    )
    return f"{', '.join(f'{name}: {status}' for name, status in seen.items())}; {sso} X-GitHub-SSO"


def _states(subject: Subject) -> str:
    states = collections.Counter(str(item.get("state")) for item in subject.codespaces or [])
    odd = [f"{state} ({states[state]})" for state in _ODD_STATES if states[state]]
    shown = ", ".join(f"{state} ({count})" for state, count in sorted(states.items())) or "none"
    return f"{'seen: ' + ', '.join(odd) if odd else NOT_OBSERVED}; all states of the account's codespaces: {shown}"


_CREATES = "it would need something to be created"
_QUESTIONS: tuple[tuple[str, Callable[[Subject], str]], ...] = (
    ("Status and body when the number of codespaces, a machine type or an image is refused", _not(_CREATES)),
    ("Body of the real 402, and whether create can answer it", _not(_CREATES)),
    ("Lifetime of the tunnel's tokens", _lifetimes),
    ("What `internal=true` returns to a fine-grained token and to one of a GitHub App", _internal_form),
    ("Whether app.github.dev accepts a client's own token in `X-GitHub-Token`", _not("it would send the token there")),
    ("Port and address of `GetRunningServer`", _running_server),
    ("Whether kernel activity counts for the idle timeout", _not("it would take a codespace that runs idle")),
    ("Whether the cap of 12 hours can be seen in advance", _times_to_come),
    ("Ports and labels that the real agent registers", _ports),
    ("Which `domain` the service returns", _domain),
    ("Shape of refusals by two-factor and IP rules of organisations", _refusals),
    (f"What {', '.join(_ODD_STATES)} mean", _states),
    ("What a PUT of a port that exists is answered", _not("it would be a change")),
    ("Limits of the number of codespaces", _not(_CREATES)),
    ("Idle cut-off, bandwidth and longest connection of the relay", _not("it would take hours of a running codespace")),
    ("Behaviour of gh where it was not measured", _not("it is no matter of an account")),
)
"""In the order of the notes' list, and how each may be answered."""
