"""Waiting for a new codespace: its states, then the last steps of its build; and what Ctrl-C means meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from codespace_kernels.build_steps import FAILED, RUNNING, SUCCEEDED, BuildStep, follow_build
from codespace_kernels.cli import prompts, terminal
from codespace_kernels.cli.prompts import Option
from codespace_kernels.errors import GitHubUnavailableError, WaitTimeoutError, WorkspaceConnectionError
from codespace_kernels.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from codespace_kernels.providers.base import Provider, Workspace

WAIT_SECONDS = 3600.0
"""GitHub cancels a build after an hour."""

OUTAGE_SECONDS = 60.0
"""For which GitHub may be out of reach."""

_OUTAGE_PAUSE = 2.0

_WORDS = {SUCCEEDED: "succeeded", FAILED: "failed"}


async def until_built(provider: Provider, workspace: Workspace, timeout: float) -> Workspace:
    """Wait until a new workspace can be connected to, and show the steps of its build until they end.

    Args:
        provider: Whose workspace.
        workspace: As it was created.
        timeout: Seconds until it can be connected to.

    Raises:
        WorkspaceFailedError: It came to a state that no waiting will mend.
        WaitTimeoutError: It takes longer.
    """
    name = workspace.name
    with terminal.progress() as progress:
        workspace = await _until_running(provider, name, timeout, progress)
        progress(ProgressEvent("ssh", f"Connecting to {name}, to see the steps of its build"))
        failed = await _show_steps(provider, name, progress)
    if failed:
        terminal.say(
            f"The step {failed} of its build failed; the codespace can be used all the same. What happened: "
            f"codespace-kernels logs {name}"
        )
    return workspace


async def _until_running(provider: Provider, name: str, timeout: float, progress: Progress) -> Workspace:
    """Wait as `Provider.ensure_running` does, and through a short outage of the network."""
    deadline = time.monotonic() + timeout
    answered = time.monotonic()

    def hear(event: ProgressEvent) -> None:
        nonlocal answered
        answered = time.monotonic()
        progress(event)

    while True:
        try:
            return await provider.ensure_running(name, hear, timeout=max(1.0, deadline - time.monotonic()))
        except GitHubUnavailableError:
            now = time.monotonic()
            if now - answered > OUTAGE_SECONDS or now > deadline:
                raise
            progress(ProgressEvent("queue", f"GitHub cannot be reached; trying again, {name} goes on meanwhile"))
            await asyncio.sleep(_OUTAGE_PAUSE)


async def _show_steps(provider: Provider, name: str, progress: Progress) -> str:
    """Show the steps; gives the name of the one that failed."""
    failed = ""
    try:
        connection = await provider.connect(name, progress)
        async for step in follow_build(connection):
            _show(step, progress)
            failed = step.name if step.status == FAILED else failed
    except (WorkspaceConnectionError, WaitTimeoutError) as error:
        # The codespace is there; only the rest of its build is not seen.
        terminal.say(f"The steps of its build cannot be shown: {error}")
    return failed


def _show(step: BuildStep, progress: Progress) -> None:
    if step.status == RUNNING:
        progress(ProgressEvent("build", f"Running {step.name}"))
    else:
        terminal.say(f"{step.name} {_WORDS.get(step.status, step.status)}.")


def keep_or_delete(name: str) -> bool:
    """Ask what becomes of a workspace whose creation was interrupted; true: it is deleted. Nobody there: it is kept."""
    if not prompts.can_ask():
        return False
    options = [
        Option(f"Keep {name}: it goes on being created, and costs", value=False),
        Option(f"Delete {name}", value=True),
    ]
    try:
        return asyncio.run(prompts.choose("Interrupted. What becomes of the codespace?", options))
    except (KeyboardInterrupt, EOFError):
        return False
