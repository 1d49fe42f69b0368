"""The codespace that a notebook is run in: found or created, and in the end kept, stopped or deleted."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.cli import connect, recipes, terminal
from codespace_kernels.cli import options as shared
from codespace_kernels.cli.broker_status import kernel_line, kernels_of
from codespace_kernels.cli.disconnect import end_connection
from codespace_kernels.cli.view import unsaved
from codespace_kernels.errors import (
    BrokerError,
    CodespaceKernelsError,
    GitHubUnavailableError,
    WaitTimeoutError,
    WorkspaceNotFoundError,
    naming,
)
from codespace_kernels.providers.base import Workspace

if TYPE_CHECKING:
    from codespace_kernels.broker.protocol import Access
    from codespace_kernels.recipe import Recipe

KEEP, STOP, DELETE = "keep", "stop", "delete"
THENS = (KEEP, STOP, DELETE)
"""What may become of the codespace."""

_DONE = {KEEP: "kept", STOP: "stopped", DELETE: "deleted"}
_END_SECONDS = 90.0
"""For GitHub to take a stop or a deletion."""


class Released(NamedTuple):
    """What became of the codespace.

    Attributes:
        asked: One of `THENS`.
        done: `kept`, `stopped`, `deleted`, or empty where there was none.
        why: A sentence where that is not what was asked.
    """

    asked: str
    done: str = ""
    why: str = ""


class RunCodespace:
    """The codespace of one run.

    Args:
        access: Whose.
        recipe: What it is like; None where it is named.
        name: Its name; empty where there is a recipe.

    Attributes:
        workspace: As it was when it was found or connected to; None before.
        created: Whether it was made for this run.
    """

    def __init__(self, access: Access, recipe: Recipe | None, name: str = "") -> None:
        self.access = access
        self.workspace: Workspace | None = None
        self.created = False
        self._recipe = recipe
        self._name = name
        self._creating: Recipe | None = None
        self._since = time.monotonic()

    @property
    def name(self) -> str:
        """Its name, empty before it is known."""
        return self.workspace.name if self.workspace is not None else ""

    @property
    def hours(self) -> float:
        """For how long it has been this run's."""
        return (time.monotonic() - self._since) / 3600

    def connect(self, *, yes: bool) -> dict[str, Any] | None:
        """Find or create it, and connect; give the broker's answer, None where a person would not pay.

        Args:
            yes: Whether to create without asking.

        Raises:
            CodespaceKernelsError: It cannot be had; says why.
        """
        if self._recipe is None:
            # Known before it is started: who interrupts that wants it stopped all the same.
            self.workspace = asyncio.run(self._resolved())
            return self._connected(self.name)
        if not self._found(self._recipe, yes=yes):
            return None
        try:
            return self._connected(self.name)
        except WorkspaceNotFoundError:
            # It was deleted since it was found; what is found now is another one.
            terminal.say(f"{self.name} is gone.")
            self.workspace, self.created = None, False
            return self._connected(self.name) if self._found(self._recipe, yes=yes) else None

    def _connected(self, name: str) -> dict[str, Any]:
        if not self.created:
            self._since = time.monotonic()
        with naming(name, f"This is about codespace {name}."):
            answer = connect.ask_broker(self.access, name)
        self.workspace = Workspace.from_json(answer["workspace"])
        return answer

    async def _resolved(self) -> Workspace:
        async with shared.open_provider(self.access) as provider:
            return await provider.resolve(self._name)

    def _found(self, recipe: Recipe, *, yes: bool) -> bool:
        found = recipes.find(self.access, recipe)
        if found is None:
            terminal.say(f"There is no codespace of {recipe.title}.")
            agreed = recipes.allowed(self.access, recipe, "Create one?", yes=yes)
            if agreed is None:
                return False
            found = self._create(agreed[0])
        assert found is not None
        self.workspace, self.created = found.workspace, found.created
        terminal.say(f"{'Created' if found.created else 'Taking'} {self.name} of {recipe.title}.")
        return True

    def _create(self, recipe: Recipe) -> recipes.Found | None:
        """Have one made; where the answer is missing, `release` looks for it."""
        self._creating, self._since = recipe, time.monotonic()
        try:
            found = recipes.find(self.access, recipe, create=True)
        except (GitHubUnavailableError, WaitTimeoutError, BrokerError):
            raise
        except CodespaceKernelsError:
            # It was refused: what may be there all the same is somebody else's.
            self._creating = None
            raise
        self._creating = None
        return found

    def release(self, then: str, kernel_id: str) -> Released:
        """Do with it what was asked for, as far as that harms nobody.

        Args:
            then: One of `THENS`.
            kernel_id: Of this run's own kernel.

        Raises:
            CodespaceKernelsError: It could not be done; names the codespace.
        """
        if self._creating is not None:
            self._find_interrupted(self._creating)
        if self.workspace is None:
            return Released(then)
        if then == KEEP:
            return Released(then, _DONE[KEEP])
        if others := self._others(kernel_id):
            return Released(then, _DONE[KEEP], f"others use it: {'; '.join(map(kernel_line, others))}")
        advice = f"End it with `codespace-kernels stop {self.name}`."
        try:
            end_connection(self.access, self.name)
            return asyncio.run(self._end(then))
        except TimeoutError:
            raise WaitTimeoutError.after(f"GitHub to {then} codespace {self.name}", _END_SECONDS, advice) from None
        except CodespaceKernelsError as error:
            error.args = (f"Codespace {self.name} may go on to cost money. {error} {advice}",)
            raise

    def _find_interrupted(self, recipe: Recipe) -> None:
        """Learn what came of a creation that was asked for and not waited for."""
        found = recipes.find(self.access, recipe, join=True)
        if found is not None:
            self.workspace, self.created = found.workspace, found.created

    def _others(self, kernel_id: str) -> list[dict[str, Any]]:
        """Give the kernels in it that are not ours; one that waits for a first run needs no codespace yet."""
        return [
            kernel
            for kernel in kernels_of(self.name, self.access.account)
            if kernel["id"] != kernel_id
            and not (kernel["state"] == "waiting" and not kernel["messages"].get("queued_requests"))
        ]

    async def _end(self, then: str) -> Released:
        async with asyncio.timeout(_END_SECONDS), shared.open_provider(self.access) as provider:
            why = self._reason_to_keep(await provider.resolve(self.name)) if then == DELETE else ""
            if then == DELETE and not why:
                await provider.delete(self.name)
                return Released(then, _DONE[DELETE])
            await provider.stop(self.name)
            return Released(then, _DONE[STOP], why)

    def _reason_to_keep(self, workspace: Workspace) -> str:
        if not self.created:
            return "it was there before this run"
        lost = unsaved(workspace)
        return f"deleting it would lose {lost}" if lost else ""
