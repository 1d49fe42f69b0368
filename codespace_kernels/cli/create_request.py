"""The creation itself: sent once, its permissions settled with the person, its answer waited for even after Ctrl-C."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple

from codespace_kernels.cli import prompts, terminal
from codespace_kernels.cli.prompts import Option
from codespace_kernels.errors import (
    CodespaceKernelsError,
    GitHubError,
    GitHubUnavailableError,
    NotFoundError,
    PaymentRequiredError,
    PermissionsRequiredError,
    SettingsError,
    WaitTimeoutError,
    naming,
)
from codespace_kernels.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.cli.create_attempts import AttemptFile
    from codespace_kernels.providers.base import CreateRequest, Provider, Workspace

GRANT_SECONDS = 600.0
"""For a person to grant permissions on a web page."""

_AGAIN = "Running this again goes on with what was created."

_GRANT_PAUSES = (1.0, 2.0, 5.0)
"""Seconds between looks; the last is that of `gh`, and goes on."""


class Created(NamedTuple):
    """What came of a creation: the workspace, and whether Ctrl-C was pressed meanwhile."""

    workspace: Workspace
    interrupted: bool = False


class Sender:
    """Sends one creation, and keeps the note of it for as long as it is not known what came of it.

    Args:
        provider: Creates.
        note: Where that is written down.
        before: Names of the workspaces that there are.

    Attributes:
        is_open: Whether the workspace may have been created without anybody knowing its name.
    """

    def __init__(self, provider: Provider, note: AttemptFile, before: Sequence[str]) -> None:
        self._provider = provider
        self._note = note
        self._before = before
        self.is_open = False

    async def create(self, request: CreateRequest) -> Created | None:
        """Create a workspace; None where the person gives up for its permissions.

        Raises:
            PermissionsRequiredError: Nobody can be asked about them; names page and flag.
            CodespaceKernelsError: See `Provider.create`.
        """
        while True:
            try:
                return await self._create(request)
            except PermissionsRequiredError as error:
                if not prompts.can_ask():
                    raise _for_scripts(error) from error
                decided = await _settle(self._provider, request, error)
                if decided is None:
                    return None
                request = decided

    async def _create(self, request: CreateRequest) -> Created:
        with terminal.progress() as show:

            def progress(event: ProgressEvent) -> None:
                if event.stage == "create" and not self.is_open:
                    self._begin()
                show(event)

            try:
                created = await self._answered(asyncio.ensure_future(self._provider.create(request, progress)))
            except CodespaceKernelsError as error:
                if is_refusal(error):
                    self._end()
                if self.is_open and isinstance(error, GitHubUnavailableError):
                    with naming(_AGAIN, _AGAIN):
                        raise
                raise
        # Its name is known; the note goes once it can be used.
        self.is_open = False
        return created

    async def _answered(self, creation: asyncio.Future[Workspace]) -> Created:
        try:
            return Created(await asyncio.shield(creation))
        except asyncio.CancelledError:
            if not self.is_open:
                creation.cancel()
                raise
            terminal.say("Waiting for GitHub's answer, to know what was created. Ctrl-C once more does not wait.")
            return Created(await creation, interrupted=True)

    def _begin(self) -> None:
        self.is_open = True
        self._note.write(self._before)

    def _end(self) -> None:
        self.is_open = False
        self._note.remove()


def is_refusal(error: CodespaceKernelsError) -> bool:
    """Tell whether GitHub has said no. A rate limit or a token that expires may come after the creation, too."""
    kinds = (SettingsError, PermissionsRequiredError, PaymentRequiredError, NotFoundError)
    is_client_error = type(error) is GitHubError and 400 <= error.status < 500
    return isinstance(error, kinds) or is_client_error


async def _settle(provider: Provider, request: CreateRequest, error: PermissionsRequiredError) -> CreateRequest | None:
    """Ask about the permissions; gives the request to send then, None to give up."""
    terminal.say("The devcontainer asks for permissions for other repositories, which only you can grant, here:")
    terminal.say(f"  {error.url}")
    answer = await prompts.choose(
        "How to go on?",
        [
            Option("Wait until I have granted them", "wait"),
            Option("Create it without them", "without"),
            Option("Create nothing", "no"),
        ],
    )
    if answer == "no":
        return None
    if answer == "without":
        return dataclasses.replace(request, default_permissions=True)
    with terminal.progress() as progress:
        await _until_granted(provider, request, progress)
    return request


async def _until_granted(provider: Provider, request: CreateRequest, progress: Progress) -> None:
    progress(ProgressEvent("permissions", "Waiting until the permissions are granted (Ctrl-C gives up)"))
    pauses = iter(_GRANT_PAUSES)
    deadline = time.monotonic() + GRANT_SECONDS
    while not await provider.permissions_accepted(request):
        if time.monotonic() > deadline:
            advice = "Nothing was created. Grant them, or decline them with --default-permissions."
            raise WaitTimeoutError.after("the permissions to be granted", GRANT_SECONDS, advice)
        await asyncio.sleep(next(pauses, _GRANT_PAUSES[-1]))


def _for_scripts(error: PermissionsRequiredError) -> PermissionsRequiredError:
    told = PermissionsRequiredError(
        "Nothing was created: the devcontainer asks for permissions that only you can grant. Grant them at "
        f"{error.url} and run this again, or decline them with --default-permissions."
    )
    told.url = error.url
    return told
