"""Faults that an emulated account can be told to have, from a test, the command line or the control endpoint."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from codespace_kernels.emulator.models import CodespaceState
from codespace_kernels.errors import EmulatorError

OptionValue = str | int | float
Options = Mapping[str, OptionValue]


@dataclasses.dataclass(frozen=True)
class FaultKind:
    """What a fault does and which options it takes.

    Attributes:
        description: For `emulator fault --help`.
        options: Name and default of every option; the default's type is the option's type. Every kind also takes
            `count`: how often the fault strikes before it is gone (0: until it is cleared).
        choices: The only values that an option may have.
    """

    description: str
    options: Options = dataclasses.field(default_factory=dict)
    choices: Mapping[str, Collection[OptionValue]] = dataclasses.field(default_factory=dict)


OPERATIONS = (
    "list", "get", "get-internal", "create", "start", "stop", "patch", "delete", "codespace-machines",
    "repository", "repository-list", "new", "devcontainers", "machines", "permissions-check", "contents",
    "branches", "user-repositories", "search-repositories", "user", "rate-limit", "meta", "other",
)  # fmt: skip
"""What a request to the REST API does; `get-internal` is the form with `internal=true`."""

_ON: dict[str, str] = {"on": ""}

KINDS: dict[str, FaultKind] = {
    "slow-start": FaultKind("starting takes this many seconds more", {"seconds": 10.0}),
    "session-over": FaultKind("the session has lasted as long as one may: within a minute the codespace is stopped"),
    "state": FaultKind(
        "the codespace is in this state, whatever it does", {"state": "Failed"}, {"state": list(CodespaceState)}
    ),
    "permissions": FaultKind("create answers 401 with allow_permissions_url"),
    "payment": FaultKind("402, as for a payer without budget", {"on": "start"}),
    "policy": FaultKind(
        "the owner who pays (empty: anyone) allows these machine types and images only, separated by commas, and these "
        "minutes at most (0: any)",
        {"owner": "", "machines": "", "images": "", "idle_timeout": 0, "retention": 0},
    ),
    "too-many": FaultKind(
        "an account that has this many codespaces gets no more (which status GitHub has for it is not known)",
        {"most": 1, "status": 403},
    ),
    "not-allowed": FaultKind("403: this account may not create codespaces", {"on": "new,create"}),
    "no-answer": FaultKind(
        "the connection is closed without an answer (done=1: after doing what was asked)", {"done": 0, **_ON}
    ),
    "build-step": FaultKind(
        "a step of the first build ends like this; `running`: it goes on until this is cleared",
        {"step": "postCreateCommand", "status": "failed"},
        {"status": ("running", "succeeded", "failed")},
    ),
    "sso": FaultKind("403 with an X-GitHub-SSO address", _ON),
    "sso-partial": FaultKind("answers leave an organisation out that wants single sign-on, and say so", _ON),
    "token-expiration": FaultKind("the token expires after this many seconds, and answers say so", {"seconds": 3600.0}),
    "api-version": FaultKind(
        "the REST version that clients ask for is retired (410), or will be at a date that answers name",
        {"how": "retired"},
        {"how": ("retired", "deprecated")},
    ),
    "clock": FaultKind("the Date of answers is this many seconds ahead", {"seconds": 3600.0}),
    "network-names": FaultKind(
        "`GET /meta` says that codespaces need these names, separated by commas", {"names": "codespaces.invalid"}
    ),
    "rate-limit": FaultKind(
        "the primary or secondary limit is used up; times are in seconds, retry_after=-1 sends no such header",
        {"limit": "primary", "status": 403, "retry_after": -1, "reset_in": 60, **_ON},
        {"limit": ("primary", "secondary"), "status": (403, 429)},
    ),
    "conflict": FaultKind("409, as for a codespace that runs already", {"on": "start"}),
    "unprocessable": FaultKind(
        "422 with one item in `errors`", {"on": "create,patch", "field": "machine", "code": "invalid", "message": ""}
    ),
    "server-error": FaultKind("a 5xx answer", {"status": 500, **_ON}),
    "unauthorized": FaultKind("401 as for a wrong token", _ON),
    "no-tunnel": FaultKind("the internal form has no connection (status 500: it fails)", {"status": 200}),
    "pending-operation": FaultKind(
        "an operation is pending, only delete is allowed", {"reason": "The codespace is being updated."}
    ),
    "unsaved-changes": FaultKind("the clone has uncommitted changes and unpushed commits"),
    "no-sshd": FaultKind("the image has no SSH server"),
    "no-jupyter": FaultKind("the image has no Jupyter"),
    "no-agent": FaultKind("nothing listens on the port of the codespace's services"),
    "host-key": FaultKind(
        "the tunnel publishes another host key than its host has, or none",
        {"publishes": "other"},
        {"publishes": ("other", "none")},
    ),
    "relay-refusal": FaultKind("the relay answers with this status", {"status": 403}),
    "relay-drop": FaultKind("open relays are cut at once; new ones get through"),
    "relay-blackhole": FaultKind(
        "relays stay open but carry nothing, until cleared or for these seconds (0: until cleared)",
        {"seconds": 0.0, "direction": "both"},
        {"direction": ("both", "to-host", "to-client")},
    ),
    "relay-half-open": FaultKind(
        "open relays have lost their other end, which nobody tells the client; new ones get through. When this is "
        "cleared, the old ones are reset"
    ),
    "relay-slow": FaultKind("relays carry so many Mbit/s in each direction", {"mbit": 5.0}),
    "token-expired": FaultKind(
        "the tunnel tokens have expired (which=old: those of now, new ones are good)",
        {"which": "all"},
        {"which": ("all", "old")},
    ),
    "api-down": FaultKind(
        "the REST API answers 503, hangs or hangs up; with tunnels=1 the dev-tunnel service, too, open relays excepted",
        {"how": "unavailable", "tunnels": 0},
        {"how": ("unavailable", "hang", "close")},
    ),
    "sshd-down": FaultKind("the codespace's SSH server is killed with its connections; it comes back when cleared"),
    "signal": FaultKind(
        "processes in the codespace get this signal at once: our Jupyter server, its link process, kernels or the SSH "
        "server's. Those that are stopped go on when this is cleared",
        {"which": "server", "signal": "KILL"},
        {"which": ("server", "link", "kernel", "sshd"), "signal": ("KILL", "TERM", "STOP", "CONT")},
    ),
    "login-error": FaultKind(
        "the device flow answers with this error",
        {"error": "slow_down"},
        {
            "error": (
                "slow_down",
                "expired_token",
                "access_denied",
                "incorrect_client_credentials",
                "device_flow_disabled",
            )
        },
    ),
    "expiring-tokens": FaultKind("tokens that are signed in for expire after this many seconds", {"seconds": 28800}),
    "create-accepted": FaultKind("create answers 202 and goes on in the background"),
}
"""All kinds of fault. `on` names the `OPERATIONS` that are struck, separated by commas (empty: all)."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One active fault.

    Attributes:
        kind: One of `KINDS`.
        codespace: Name of the only codespace that has it; None: all, and requests that name no codespace.
        options: Every option of the kind, defaults filled in.
        remaining: How often it will still strike; None: until it is cleared.
        since: When it was set, seconds of the monotonic clock.
    """

    kind: str
    codespace: str | None
    options: Options
    remaining: int | None
    since: float = dataclasses.field(default_factory=time.monotonic)

    def strikes(self, operation: str) -> bool:
        """Tell whether the fault's `on` names this operation, or all."""
        names = str(self.options.get("on", ""))
        return not names or operation in names.split(",")

    def to_json(self) -> dict[str, Any]:
        """Give the fault for `emulator status --json`."""
        return {
            "kind": self.kind,
            "codespace": self.codespace,
            "options": dict(self.options),
            "remaining": self.remaining,
        }


Listener = Callable[[Fault, bool], None]
"""Called with a fault, and whether it was set (true) or is gone (false), in the thread that changed the board."""


class FaultBoard:
    """The active faults of one emulator. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._faults: dict[tuple[str, str | None], Fault] = {}
        self._listeners: list[Listener] = []

    def __iter__(self) -> Iterator[Fault]:
        with self._lock:
            return iter(list(self._faults.values()))

    def set(self, kind: str, codespace: str | None = None, **options: OptionValue) -> None:
        """Set a fault, in place of one of the same kind for the same codespace.

        Args:
            kind: One of `KINDS`.
            codespace: Name of the codespace that has it; None: all.
            options: The kind's options and `count`; texts are converted, so that they may come from a command line.

        Raises:
            EmulatorError: Kind or option is not known, or a value has the wrong type.
        """
        values = _checked(kind, options)
        count = int(values.pop("count"))
        fault = Fault(kind, codespace, values, count or None)
        with self._lock:
            self._faults[kind, codespace] = fault
        self._tell(fault, active=True)

    def clear(self, kind: str | None = None, codespace: str | None = None) -> None:
        """Clear the faults of a kind (None: of all kinds) and of a codespace (None: of all).

        Raises:
            EmulatorError: The kind is not known.
        """
        if kind is not None:
            _kind(kind)
        with self._lock:
            gone = [
                fault
                for fault in self._faults.values()
                if kind in (None, fault.kind) and codespace in (None, fault.codespace)
            ]
            for fault in gone:
                del self._faults[fault.kind, fault.codespace]
        for fault in gone:
            self._tell(fault, active=False)

    def get(self, kind: str, codespace: str) -> Fault | None:
        """Give the fault that a codespace has: its own before one that all have."""
        with self._lock:
            return self._faults.get((kind, codespace)) or self._faults.get((kind, None))

    def take(self, kind: str, codespace: str, operation: str | None = None) -> Fault | None:
        """Give the fault as `get` does and count that it struck; the last strike clears it.

        Args:
            kind: One of `KINDS`.
            codespace: Name of the codespace that the request is about, or an empty string.
            operation: What is being done; a fault whose `on` does not name it is neither given nor counted.
        """
        with self._lock:
            fault = self.get(kind, codespace)
            if fault is None or (operation is not None and not fault.strikes(operation)):
                return None
            if fault.remaining is None:
                return fault
            key = (fault.kind, fault.codespace)
            if fault.remaining > 1:
                self._faults[key] = dataclasses.replace(fault, remaining=fault.remaining - 1)
                return fault
            del self._faults[key]
        self._tell(fault, active=False)
        return fault

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have a function called when a fault is set or gone; the result ends the subscription."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def _tell(self, fault: Fault, *, active: bool) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(fault, active)


def _kind(kind: str) -> FaultKind:
    known = KINDS.get(kind)
    if known is None:
        raise EmulatorError(f"There is no fault {kind!r}. The emulator knows: {', '.join(sorted(KINDS))}.")
    return known


def _checked(kind: str, options: Options) -> dict[str, OptionValue]:
    defaults: dict[str, OptionValue] = {**_kind(kind).options, "count": 0}
    for name in options:
        if name not in defaults:
            raise EmulatorError(f"Fault {kind!r} has no option {name!r}. It takes: {', '.join(defaults)}.")
    values = {
        name: _converted(kind, name, options[name], type(default)) if name in options else default
        for name, default in defaults.items()
    }
    for name, choices in _kind(kind).choices.items():
        _check_choice(kind, name, values[name], choices)
    for operation in filter(None, str(values.get("on", "")).split(",")):
        _check_choice(kind, "on", operation, OPERATIONS)
    return values


def _check_choice(kind: str, name: str, value: OptionValue, choices: Collection[OptionValue]) -> None:
    if value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        raise EmulatorError(f"Option {name!r} of fault {kind!r} is one of {allowed}, not {value!r}.")


def _converted(kind: str, name: str, value: OptionValue, wanted: type) -> OptionValue:
    try:
        converted: OptionValue = wanted(value)
    except (TypeError, ValueError):
        raise EmulatorError(f"Option {name!r} of fault {kind!r} must be a number, not {value!r}.") from None
    return converted
