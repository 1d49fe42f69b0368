"""Waiting for a codespace: until it can be connected to, and until a creation that takes long is under way."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from typing import TYPE_CHECKING

from codespace_kernels.errors import (
    GitHubUnavailableError,
    NotFoundError,
    TokenCannotConnectError,
    WaitTimeoutError,
    WorkspaceFailedError,
    WorkspaceStoppedError,
)
from codespace_kernels.github.codespaces import pending_operation
from codespace_kernels.github.models import Codespace, CodespaceState, Phase
from codespace_kernels.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codespace_kernels.github.codespaces import CodespacesApi

_random = random.SystemRandom()

_ADVICE = {
    CodespaceState.FAILED: "Its creation log tells why; rebuild it on its web page, or delete it and create it anew.",
    CodespaceState.UNAVAILABLE: "Its machine does not answer GitHub. Try again in some minutes, or restart it there.",
    CodespaceState.DELETED: "Create a new one.",
    CodespaceState.MOVED: "List your codespaces to find where it went.",
    CodespaceState.ARCHIVED: "Restore it on its web page, if GitHub offers that.",
    CodespaceState.UNKNOWN: "GitHub itself does not know more. Try again in some minutes, or look at its web page.",
}

_MAY_PASS = frozenset({CodespaceState.UNAVAILABLE, CodespaceState.UNKNOWN})
"""States of which GitHub does not know more itself; what runs there may run on."""

_OTHER_STEP = ("busy", "Waiting for codespace {name} ({state})")

_STEPS = {
    # It was asked to start; GitHub takes a moment to say so.
    CodespaceState.SHUTDOWN: ("queue", "Starting codespace {name}"),
    CodespaceState.CREATED: ("queue", "Starting codespace {name} ({state})"),
    CodespaceState.QUEUED: ("queue", "Starting codespace {name} ({state})"),
    CodespaceState.PROVISIONING: ("build", "Preparing codespace {name} ({state})"),
    CodespaceState.AWAITING: ("start", "Starting codespace {name} ({state})"),
    CodespaceState.STARTING: ("start", "Starting codespace {name} ({state})"),
    CodespaceState.AVAILABLE: ("start", "Starting codespace {name} ({state}, its tunnel is not there yet)"),
    CodespaceState.SHUTTING_DOWN: ("stop", "Waiting for codespace {name} to stop before it can start ({state})"),
}
"""Stage and message of each state that is waited for. GitHub tells these states and nothing more of a start or a first
build: the log of a build can be read only inside the codespace, once it is there."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often a wait looks, and for how long.

    `gh` starts at 1 s and grows slowly to 10 s; a first look after a fraction of that costs little of the quota of 5000
    requests an hour and makes a warm start feel like one.

    Attributes:
        first: Seconds between the first two looks.
        factor: Growth from look to look; each pause has jitter of half up or down.
        longest: Seconds that a pause grows to.
        without_tunnel: Seconds for which a codespace may be available without a tunnel.
        creation: Seconds that a creation may take until it is under way.
        lost: Seconds within which a codespace must show whose creation was not answered.
    """

    first: float = 0.25
    factor: float = 1.3
    longest: float = 4.0
    without_tunnel: float = 20.0
    creation: float = 120.0
    lost: float = 10.0

    def pauses(self) -> Iterator[float]:
        """Give the pauses between looks, without end."""
        pause = self.first
        while True:
            yield pause * _random.uniform(0.5, 1.5)
            pause = min(pause * self.factor, self.longest)


class ConnectableWait:
    """One wait until a codespace is available and has a tunnel.

    Args:
        api: Whose codespace.
        name: Its name.
        progress: Told each look's state.
        start: Whether a stopped codespace is started.
        timeout: Seconds in all.
        pace: How often to look.
    """

    def __init__(
        self,
        api: CodespacesApi,
        name: str,
        progress: Progress,
        *,
        start: bool = True,
        timeout: float = 300.0,
        pace: Pace | None = None,
    ) -> None:
        self._api = api
        self._name = name
        self._progress = progress
        self._start = start
        self._timeout = timeout
        self._pace = pace or Pace()
        self._available_since: float | None = None
        self._started = False
        self._state_text = "not known yet"

    async def run(self) -> Codespace:
        """Wait; gives the codespace in the internal form, its tunnel complete.

        Raises:
            WorkspaceStoppedError: It is stopped or stopping, and may not be started.
            WorkspaceFailedError: It is in a state that no waiting will mend; raised at once (`gh` polls on).
            PendingOperationError: An operation on it allows nothing else.
            TokenCannotConnectError: It is available, but this token gets no tunnel to it.
            WaitTimeoutError: The time is over.
            AuthError: GitHub does not accept the token.
            GitHubError: GitHub refused something on the way.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._until_connectable()
        except TimeoutError:
            what = f"codespace {self._name} to become available (last state: {self._state_text})"
            advice = "A first start may take longer: try again, or look at its web page."
            raise WaitTimeoutError.after(what, self._timeout, advice) from None

    async def _until_connectable(self) -> Codespace:
        pauses = self._pace.pauses()
        while True:
            codespace = await self._look()
            if codespace.tunnel is not None and codespace.phase is Phase.READY:
                return codespace
            await self._react(codespace)
            self._report(codespace)
            await asyncio.sleep(next(pauses))

    async def _look(self) -> Codespace:
        try:
            codespace = await self._api.get_internal(self._name)
        except GitHubUnavailableError as error:
            # Fine-grained tokens have been answered with 500 here (cli/cli#9003) where the public form works.
            if error.status and (await self._api.client.token()).fine_grained:
                raise await self._cannot_connect() from error
            raise
        self._state_text = codespace.state_text
        return codespace

    async def _react(self, codespace: Codespace) -> None:
        """Start what is stopped; raise where waiting is of no use."""
        phase = codespace.phase
        if codespace.pending_operation:
            raise pending_operation(codespace)
        if phase is Phase.TERMINAL:
            raise failed(codespace)
        if phase in (Phase.STOPPED, Phase.DOWN) and not self._start:
            raise WorkspaceStoppedError(
                f"Codespace {self._name} is {'stopped' if phase is Phase.STOPPED else 'stopping'}. Start it first, "
                f"for example with `codespace-kernels connect {self._name}`."
            )
        await self._check_tunnel(codespace)
        # Once for each visit of this state, which GitHub takes a moment to leave.
        if phase is Phase.STOPPED and not self._started:
            self._started = await self._api.start(self._name)
        elif phase is not Phase.STOPPED:
            self._started = False

    async def _check_tunnel(self, codespace: Codespace) -> None:
        if codespace.phase is not Phase.READY:
            self._available_since = None
            return
        now = time.monotonic()
        if self._available_since is None:
            self._available_since = now
        too_long = now - self._available_since >= self._pace.without_tunnel
        hidden = not codespace.has_connection and (await self._api.client.token()).fine_grained
        if too_long or hidden:
            raise await self._cannot_connect()

    async def _cannot_connect(self) -> TokenCannotConnectError:
        token, host = await self._api.client.token(), self._api.client.host
        kind = "the fine-grained token" if token.fine_grained else "the token"
        return TokenCannotConnectError(
            f"GitHub shows codespace {self._name} to {kind} from {token.source}, but gives it no tunnel to connect "
            f"through. Use a token with the classic scope codespace: `gh auth login -h {host} -s codespace`."
        )

    def _report(self, codespace: Codespace) -> None:
        stage, message = _STEPS.get(codespace.state, _OTHER_STEP)
        self._progress(ProgressEvent(stage, message.format(name=self._name, state=self._state_text)))


async def wait_until_created(
    api: CodespacesApi, codespace: Codespace, progress: Progress, pace: Pace | None = None
) -> Codespace:
    """Wait until a creation that was answered 202 is under way: found, and no longer only queued.

    Args:
        api: Whose codespace.
        codespace: As the creation's answer described it.
        progress: Told each look's state.
        pace: How often to look.

    Raises:
        WorkspaceFailedError: The creation failed.
        WaitTimeoutError: Nothing of it is seen in time.
    """
    pace = pace or Pace()
    try:
        async with asyncio.timeout(pace.creation):
            pauses = pace.pauses()
            while not _under_way(codespace):
                progress(ProgressEvent("create", f"Creating codespace {codespace.name} ({codespace.state_text})"))
                await asyncio.sleep(next(pauses))
                codespace = await _found(api, codespace)
    except TimeoutError:
        what = f"the creation of codespace {codespace.name} (last state: {codespace.state_text})"
        raise WaitTimeoutError.after(
            what, pace.creation, "Look with `codespace-kernels list` whether it came."
        ) from None
    return codespace


def failed(codespace: Codespace) -> WorkspaceFailedError:
    """Build the error for a codespace in a terminal state."""
    page = f" Web page: {codespace.web_url}" if codespace.web_url else ""
    error = WorkspaceFailedError(
        f"Codespace {codespace.name} cannot be used: its state is {codespace.state_text}. "
        f"{_ADVICE.get(codespace.state, '')}{page}"
    )
    error.url = codespace.web_url
    error.may_pass = codespace.state in _MAY_PASS
    return error


def _under_way(codespace: Codespace) -> bool:
    if codespace.phase is Phase.TERMINAL and codespace.state is not CodespaceState.UNKNOWN:
        raise failed(codespace)
    return codespace.state not in (CodespaceState.CREATED, CodespaceState.QUEUED, CodespaceState.UNKNOWN)


async def _found(api: CodespacesApi, codespace: Codespace) -> Codespace:
    """Look once more; what GitHub does not know yet stays as it was."""
    try:
        return await api.get(codespace.name)
    except NotFoundError:
        return codespace
