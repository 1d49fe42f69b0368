"""What front ends and the broker say to each other: HTTP/1.1 with JSON on a Unix socket or a loopback port.

Long requests answer with a stream of JSON objects, one a line, each with an `event`: `progress` any number of times,
then one `result` or `error`. The stream of `POST /v1/kernels` goes on after its `ready`: that open request *is* the
handle, and the kernel lives as long as it (`bound`, `progress`, `ready`, then `dead`, `notice`, `error` or `end`). A
stream that ends without one of the last two is that of a broker that died: the handle asks the next one to `resume`.
`GET /v1/watch` has no events: each line is the document of `GET /v1/status`, whenever that has changed.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

from codespace_kernels.clones import ClonePlace
from codespace_kernels.errors import BrokerError, CodespaceKernelsError, SettingsError
from codespace_kernels.target import Account, Target

log = logging.getLogger(__name__)

PASSED_ON = ("JPY_SESSION_NAME", "PYDEVD_IPYTHON_COMPATIBLE_DEBUGGING")
"""The only variables of the front end that reach the remote kernel: the rest may be secret."""

API = "v1"
"""First path segment of every request; a broker of another version answers 404 to it."""

ALREADY_RUNNING = 3
"""Exit code of a broker that found another one of this user alive."""

MAX_LINE = 64 * 1024 * 1024
"""Bytes. No line of a stream is longer."""

SHUT_DOWN = "The kernel was shut down."
"""The reason of a `dead` event whose end was asked for."""

CREDENTIAL_VARIABLES = (
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GITHUB_ENTERPRISE_TOKEN",
    "GH_CONFIG_DIR",
    "XDG_CONFIG_HOME",
    "HOME",
    "APPDATA",
    "PATH",
    "DBUS_SESSION_BUS_ADDRESS",
    "PYTHON_KEYRING_BACKEND",
)
"""What a handle passes on so that tokens are looked up as in the front end's own environment."""


@dataclasses.dataclass(frozen=True)
class Access:
    """Whose workspaces a request means, and where its token may be found. Never logged.

    Attributes:
        account: The account.
        environment: The caller's `CREDENTIAL_VARIABLES`.
        transport: `auto`, `tunnel` or `gh`: how to reach a codespace.
    """

    account: Account
    environment: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    transport: str = "auto"

    @classmethod
    def of(cls, account: Account, environment: Any, transport: str = "auto") -> Access:
        """Take from a whole environment only what finding a token needs."""
        kept = {name: environment[name] for name in CREDENTIAL_VARIABLES if environment.get(name)}
        return cls(account, kept, transport)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form, environment included: for the broker's private socket only."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Access:
        """Rebuild from `to_json`.

        Raises:
            KeyError, TypeError: Not of that form.
        """
        environment = {str(k): str(v) for k, v in dict(data.get("environment") or {}).items()}
        return cls(Account(**data["account"]), environment, str(data.get("transport") or "auto"))


@dataclasses.dataclass(frozen=True)
class KernelRequest:
    """A front end's wish for a kernel.

    Attributes:
        target: Which kernelspec of which workspace.
        access: Whose, and how a token is found.
        owner: `provisioner` (its kernel manager restarts it through the broker) or `launcher` (a restart is a new
            request).
        key: The connection file's signing key.
        signature_scheme: As in the connection file.
        curve_publickey, curve_secretkey: As in the connection file; empty where clients do not use CurveZMQ.
        ip: Where the local sockets listen.
        ports: `shell_port`, `iopub_port`, `stdin_port`, `control_port`, `hb_port`, or empty: the broker chooses.
        env: Variables for the kernel's process.
        session: What the front end calls it (a notebook's path), for the status.
        place: Where the notebook stands in a clone of a repository; the kernel starts there, too.
        manager: Id of the session in which the front end's kernel manager speaks; empty for a launcher.
        parent: Process id of the program that started the launcher; 0 for a provisioner.
        started: Unix time at which the launcher was started; 0 for a provisioner.
        take: Id of a kept kernel that is wanted, and no other; empty where the notebook decides.
        connection_file: That the front end writes, to be removed with the kernel; empty where it is not known yet.
        in_terminal: Whether the front end prints what it is told, so that nothing can be replaced.
        replaces_output: Whether it shows cells to a person and replaces a display in place; one that only collects
            outputs for a file would write the last state of each display.
        runs_at_once: Whether it starts the kernel only to run something, and gives that little time: the kernel is then
            there before it is told so, and a stopped workspace is started for it where the target's `wake` allows that.
        resume: Id of the kernel that the handle had at a broker which is no more; empty for a new one.
    """

    target: Target
    access: Access
    owner: str = "provisioner"
    key: str = dataclasses.field(default="", repr=False)
    signature_scheme: str = "hmac-sha256"
    curve_publickey: str = dataclasses.field(default="", repr=False)
    curve_secretkey: str = dataclasses.field(default="", repr=False)
    ip: str = "127.0.0.1"
    ports: dict[str, int] = dataclasses.field(default_factory=dict)
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    session: str = ""
    place: ClonePlace = dataclasses.field(default_factory=ClonePlace)
    manager: str = ""
    parent: int = 0
    started: float = 0.0
    take: str = ""
    connection_file: str = ""
    in_terminal: bool = False
    replaces_output: bool = True
    runs_at_once: bool = False
    resume: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form, for the broker's private socket only."""
        data = dataclasses.asdict(self)
        if not self.resume:
            # An older broker, which does not know it, takes all other requests.
            del data["resume"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> KernelRequest:
        """Rebuild from `to_json`.

        Raises:
            KeyError, TypeError: Not of that form.
        """
        values = {
            **data,
            "target": Target.from_json(data["target"]),
            "access": Access.from_json(data["access"]),
            "place": ClonePlace.from_json(data.get("place") or {}),
        }
        return cls(**values)


def json_object(body: bytes, refusal: str) -> dict[str, Any]:
    """Give the JSON object of a request; no body is an empty one.

    Args:
        body: Of the request.
        refusal: What is said where it is something else.

    Raises:
        SettingsError: It is.
    """
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise SettingsError(refusal)
    return value


def as_known_error(error: BaseException) -> CodespaceKernelsError:
    """Give an error that a person may be shown; what is not ours is logged whole and named in short."""
    if isinstance(error, CodespaceKernelsError):
        return error
    log.error("a request failed inside", exc_info=error)
    return BrokerError(f"The broker failed inside ({error!r}). Its log says more.")
