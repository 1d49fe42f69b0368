"""The broker as front ends and the command line see it: found, or started, and asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels import __version__, platforms
from codespace_kernels.broker.endpoint import endpoints
from codespace_kernels.broker.protocol import ALREADY_RUNNING, API, MAX_LINE
from codespace_kernels.errors import BrokerError, error_from_json
from codespace_kernels.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from codespace_kernels.broker.endpoint import Endpoint

log = logging.getLogger(__name__)

START_TIMEOUT = 20.0
"""Seconds for a new broker to answer."""

CALL_TIMEOUT = 30.0
"""Seconds for a short request."""

LOOK_INTERVAL = 2.0
"""Seconds between two looks of `BrokerClient.watch` for a broker: each tries to open a socket and no more."""


class BrokerGoneError(BrokerError):
    """No broker, or one that ended before it answered: the next one may know more."""


_SYSTEM_VARIABLES = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV",
     "CODESPACE_KERNELS_HOME", "CODESPACE_KERNELS_BROKER_ENDPOINT", "CODESPACE_KERNELS_LINK_SECONDS",
     "DBUS_SESSION_BUS_ADDRESS",
     # Windows: where things are. Without some of these no socket can be opened and no `gh` or `ssh` runs.
     "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROGRAMDATA", "PROGRAMFILES", "APPDATA",
     "LOCALAPPDATA", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "USERNAME", "USERDOMAIN")
)  # fmt: skip
_NETWORK_VARIABLES = frozenset(
    ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
     "SSL_CERT_FILE", "SSL_CERT_DIR")
)  # fmt: skip
_KEPT_PREFIXES = ("LC_", "XDG_", "PYTHON")


def broker_environment(environment: Any = os.environ) -> dict[str, str]:
    """Give the environment a broker is born with: no account, no address, no token, nothing of one front end."""
    kept = _SYSTEM_VARIABLES | _NETWORK_VARIABLES
    return {k: v for k, v in environment.items() if k in kept or k.startswith(_KEPT_PREFIXES)}


class BrokerClient:
    """Requests to this user's broker. Every method but `watch` blocks: coroutines call it through a thread.

    Args:
        places: Where a broker may listen; by default this user's.

    Raises:
        SettingsError: As `endpoints`.
    """

    def __init__(self, places: Sequence[Endpoint] | None = None) -> None:
        self._places = endpoints() if places is None else places

    def running(self) -> bool:
        """Tell whether a broker answers."""
        try:
            self.call("GET", "", timeout=5.0)
        except BrokerError:
            return False
        return True

    def ensure(self) -> None:
        """Start a broker unless one answers; an older one is replaced, without ending its kernels.

        Raises:
            BrokerError: It did not start; the text says why.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not self._usable():
            code, reason = self._start()
            if code == 0:
                return
            # Somebody else's broker may hold the lock and not listen yet.
            if code != ALREADY_RUNNING or time.monotonic() > deadline:
                raise BrokerError(f"The broker did not start: {reason}")
            time.sleep(0.05)

    def _usable(self) -> bool:
        """Tell whether a broker answers that need not be replaced; ask one that must be to leave."""
        try:
            about = self.call("GET", "", timeout=5.0)
        except BrokerError:
            return False
        if not _is_older(str(about.get("version", ""))):
            return True
        try:
            self.call("POST", "handover", {})
        except BrokerGoneError:
            return False
        except BrokerError as error:
            # It is too old to know how.
            log.warning("the broker of version %s is used as it is: %s", about.get("version"), error)
            return True
        log.info("the broker of version %s hands over", about.get("version"))
        return False

    def _start(self) -> tuple[int, str]:
        """Start a broker; give its starter's exit code and its last words."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "codespace_kernels.broker", "--daemon"],
                env=broker_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_TIMEOUT,
                check=False,
                # Ctrl-C in the terminal of a front end must not end a broker that is just starting.
                **platforms.own_terminal_group(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 1, str(error)
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return done.returncode, words[-1] if words else f"exit code {done.returncode}"

    def connect(self, timeout: float | None) -> http.client.HTTPConnection:
        """Open a connection.

        Args:
            timeout: Seconds for each read; None waits for ever.

        Raises:
            BrokerError: Nobody listens.
        """
        problems = []
        for place in self._places:
            try:
                return place.connect(timeout)
            except OSError as error:
                problems.append(f"{place.path} ({error.strerror or error})")
        raise BrokerGoneError(f"No broker answers at {problems[0]}.")

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = CALL_TIMEOUT) -> Any:
        """Make one short request and give its JSON answer.

        Args:
            method: HTTP method.
            path: Below the API's version, without a leading slash.
            body: Sent as JSON; None sends none.
            timeout: Seconds.

        Raises:
            CodespaceKernelsError: What the broker answered, as it was raised there.
            BrokerGoneError: No broker, or it ended before it answered.
            BrokerError: No sound answer in time.
        """
        connection = self.connect(timeout)
        try:
            response = send(connection, method, path, body)
            data = read_json(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            kind = BrokerError if isinstance(error, TimeoutError) else BrokerGoneError
            raise kind(f"The broker gave no sound answer to {method} /{API}/{path}: {error!r}.") from None
        finally:
            connection.close()
        return check(response.status, data)

    def stream(self, path: str, body: Any, progress: Progress = silent, *, timeout: float = 1800.0) -> dict[str, Any]:
        """Make a long request: hand its progress on, give its result.

        Raises:
            CodespaceKernelsError: As `call`.
        """
        connection = self.connect(timeout)
        try:
            response = send(connection, "POST", path, body)
            if response.status != 200:
                check(response.status, read_json(response))
            for event in events(response):
                if event["event"] == "progress":
                    progress(ProgressEvent.from_json(event["progress"]))
                elif event["event"] == "error":
                    raise error_from_json(event["error"])
                elif event["event"] == "result":
                    return dict(event["result"])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokerError(f"The broker gave no sound answer to POST /{API}/{path}: {error!r}.") from None
        finally:
            connection.close()
        raise BrokerError(f"The broker ended in the middle of POST /{API}/{path}. Its log is beside its socket.")

    async def watch(self, *, look_interval: float = LOOK_INTERVAL) -> AsyncGenerator[dict[str, Any]]:
        """Give the broker's `status` now and whenever it changed, at least every 15 s, without end.

        Never starts a broker. While none runs, that is told once, as a status whose `broker` is None and whose lists
        are empty; the next broker's status follows when there is one. Who is slow gets the newest status only. This
        keeps a broker alive only while something in it is connected. To end it, close the generator
        (`contextlib.aclosing`).

        Args:
            look_interval: Seconds between two looks for a broker while none is there.

        Raises:
            BrokerError: The broker that runs is of another version, and cannot be watched.
        """
        # Imported here: launchers, which watch nothing, start without asyncio.
        import asyncio

        from codespace_kernels.broker.watch_reader import WatchReader

        told_missing = False
        while True:
            reader, seen = WatchReader(self), False
            try:
                while (document := await reader.next()) is not None:
                    seen, told_missing = True, False
                    yield document
            finally:
                reader.close()
            # The end of a broker's stream is often that of the broker; the next look tells.
            if not seen:
                if not told_missing:
                    told_missing = True
                    yield no_broker()
                await asyncio.sleep(look_interval)


def _is_older(version: str) -> bool:
    """Tell whether a broker's version is older than this one; not where they cannot be compared."""
    if version == __version__:
        return False
    # Imported here: launchers, which mostly need it not, are to start fast.
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version) < Version(__version__)
    except InvalidVersion:
        return False


def no_broker() -> dict[str, Any]:
    """Give what `status` is where no broker runs."""
    return {"broker": None, "workspaces": [], "kernels": []}


def send(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> http.client.HTTPResponse:
    """Send a request and give the response, its body unread."""
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, f"/{API}/{path}", data, {"Content-Type": "application/json"})
    return connection.getresponse()


def read_json(response: http.client.HTTPResponse) -> Any:
    """Read a whole JSON body."""
    return json.loads(response.read() or b"null")


def check(status: int, data: Any) -> Any:
    """Give the answer's data, or raise the error that it carries."""
    if status < 400:
        return data
    if isinstance(data, dict) and "error" in data:
        raise error_from_json(data["error"])
    raise BrokerError(
        f"The broker answered with status {status}; it may be of another version. Run `codespace-kernels quit`."
    )


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Read a stream's events until it ends."""
    while line := response.readline(MAX_LINE):
        if line.strip():
            yield json.loads(line)


def hang_up(connection: http.client.HTTPConnection | None) -> None:
    """End a connection whose answer another thread is reading: closing it would leave that thread waiting."""
    if connection is not None and connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
