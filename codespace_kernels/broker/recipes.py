"""From a recipe to a workspace: one that is there, or a new one, and never two new ones for want of asking at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from codespace_kernels.errors import CodespaceKernelsError, WorkspaceNotFoundError
from codespace_kernels.progress import Progress, ProgressEvent
from codespace_kernels.providers.base import WorkspaceState
from codespace_kernels.providers.terms import terms_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from codespace_kernels.providers.base import Provider, Workspace
    from codespace_kernels.recipe import Recipe
    from codespace_kernels.target import Account

log = logging.getLogger(__name__)

LIST_LAG = 120.0
"""Seconds for which a workspace that was made here is asked for by name where the list does not show it."""

CLOSE_SECONDS = 5.0
"""How long the end of the broker waits for the answer to a creation: whatever came of it is found by the next one."""


class FoundWorkspace(NamedTuple):
    """What a recipe came down to.

    Attributes:
        workspace: The workspace.
        created: Whether it was made just now, for whoever asked first.
        others: How many more there are that fit.
    """

    workspace: Workspace
    created: bool
    others: int

    def to_json(self) -> dict[str, Any]:
        """Give what the broker's API answers."""
        return {"workspace": self.workspace.to_json(), "created": self.created, "others": self.others}


class Recipes:
    """Finds the workspaces of recipes, and makes them, one creation at a time for each recipe.

    Two brokers know nothing of each other: where both list before either has created, both create.
    """

    def __init__(self) -> None:
        self._creations: dict[str, _Creation] = {}
        self._made: dict[str, tuple[str, float]] = {}

    async def find(
        self, account: Account, provider: Provider, recipe: Recipe, progress: Progress, *, join: bool = False
    ) -> FoundWorkspace | None:
        """Find the best workspace that is there; makes and starts nothing.

        Args:
            account: Whose.
            provider: Of that account.
            recipe: What it is like.
            progress: Hears which one was taken, where several fit.
            join: Whether the end of a creation that is under way is waited for; what comes of it counts as created for
                this caller where nobody else waits for it any more.

        Raises:
            CodespaceKernelsError: The account cannot be looked at.
        """
        creation = self._creations.get(_key(account, recipe))
        if creation is not None and join:
            with contextlib.suppress(CodespaceKernelsError):
                joined = await creation.share(progress)
                return joined._replace(created=joined.created and not creation.shared)
        found = await provider.find(recipe.request())
        if not found:
            return await self._unlisted(account, provider, recipe)
        if len(found) > 1:
            progress(ProgressEvent("find", _choice(recipe, found)))
        return FoundWorkspace(found[0], created=False, others=len(found) - 1)

    async def have(self, account: Account, provider: Provider, recipe: Recipe, progress: Progress) -> FoundWorkspace:
        """Find the best workspace that is there, or make one. Whoever comes meanwhile gets the same one.

        Whoever goes away before the creation was asked for prevents it; afterwards it goes on, and is found later.

        Raises:
            WorkspaceNotFoundError: There is none, and somebody else would pay for a new one than the recipe says.
            CodespaceKernelsError: The account cannot be looked at, or no workspace can be had.
        """
        key = _key(account, recipe)
        if (creation := self._creations.get(key)) is not None:
            return (await creation.share(progress))._replace(created=False)
        creation = self._creations[key] = _Creation(
            lambda ask, report: self._find_or_create(account, provider, recipe, ask, report),
            ended=lambda: self._creations.pop(key, None),
        )
        return await creation.share(progress)

    async def close(self) -> None:
        """Give up what is under way; what was asked for already is waited for, for a moment."""
        tasks = [creation.task for creation in self._creations.values() if creation.asked]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for creation in list(self._creations.values()):
            creation.task.cancel()

    async def _find_or_create(
        self, account: Account, provider: Provider, recipe: Recipe, ask: Callable[[], None], report: Progress
    ) -> FoundWorkspace:
        report(ProgressEvent("find", f"Looking for a codespace of {recipe.title}"))
        if (found := await self.find(account, provider, recipe, report)) is not None:
            return found
        request = recipe.request()
        terms = await terms_of(provider, request)
        if terms.payer.lower() != recipe.payer.lower():
            raise _other_payer(recipe, terms.payer)
        report(ProgressEvent("create", f"Creating a codespace of {recipe.repository} ({terms})"))
        ask()
        workspace = await provider.create(request, _news_only(report))
        self._made[_key(account, recipe)] = (workspace.name, time.monotonic())
        return FoundWorkspace(workspace, created=True, others=0)

    async def _unlisted(self, account: Account, provider: Provider, recipe: Recipe) -> FoundWorkspace | None:
        """Find by name what was made here just now: a list may show it late."""
        key = _key(account, recipe)
        made = name, made_at = self._made.get(key, ("", 0.0))
        if not name or time.monotonic() - made_at > LIST_LAG:
            return None
        try:
            workspace = await provider.resolve(name)
        except WorkspaceNotFoundError:
            # Whoever looked at the same time was told so, too, and another one may have been made since.
            if self._made.get(key) == made:
                del self._made[key]
            return None
        return None if workspace.state is WorkspaceState.FAILED else FoundWorkspace(workspace, created=False, others=0)


class _Creation:
    """One search that may end in a creation, shared by all who want it.

    Args:
        work: Does it; is given what to call before the creation is asked for, and who hears of the steps.
        ended: Called at the end.

    Attributes:
        asked: Whether the creation was asked for: from then on nobody can call it back.
        shared: Whether more than one waited for it at its end.
    """

    def __init__(
        self, work: Callable[[Callable[[], None], Progress], Awaitable[FoundWorkspace]], ended: Callable[[], object]
    ) -> None:
        self.asked = False
        self.shared = False
        self._listeners: set[Progress] = set()
        self._waiting = 0
        self._last: ProgressEvent | None = None
        self._ended = ended
        self.task = asyncio.create_task(self._run(work))
        self.task.add_done_callback(_notice)

    async def _run(self, work: Callable[[Callable[[], None], Progress], Awaitable[FoundWorkspace]]) -> FoundWorkspace:
        try:
            return await work(self._ask, self._report)
        finally:
            self.shared = self._waiting > 1
            self._ended()

    async def share(self, progress: Progress) -> FoundWorkspace:
        """Wait for the end together with others."""
        self._listeners.add(progress)
        self._waiting += 1
        if self._last is not None:
            progress(self._last)
        try:
            return await asyncio.shield(self.task)
        finally:
            self._listeners.discard(progress)
            self._waiting -= 1
            if self._waiting == 0 and not self.asked and not self.task.done():
                self.task.cancel()
                # Whoever comes while it ends begins anew.
                self._ended()

    def _ask(self) -> None:
        self.asked = True

    def _report(self, event: ProgressEvent) -> None:
        self._last = event
        for listener in list(self._listeners):
            listener(event)


def _notice(task: asyncio.Task[FoundWorkspace]) -> None:
    """Take note of an end that nobody may have waited for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("no workspace was had: %s", error)


def _key(account: Account, recipe: Recipe) -> str:
    return f"{account.key}|{recipe.key}"


def _news_only(report: Progress) -> Progress:
    """Leave out what was told already, in more words: what is created, and at whose cost."""

    def pass_on(event: ProgressEvent) -> None:
        if event.stage != "find" and not event.message.startswith("Creating a codespace of "):
            report(event)

    return pass_on


def _choice(recipe: Recipe, found: Sequence[Workspace]) -> str:
    """Say which of several workspaces was taken, and by which rule."""
    runs = found[0].state is WorkspaceState.RUNNING
    rest = len(found) - 1
    why = "which runs" if runs and found[1].state is not WorkspaceState.RUNNING else "the one that was used last"
    return f"Taking {found[0].name} for {recipe.title}, {why} ({rest} more would fit)"


def _other_payer(recipe: Recipe, payer: str) -> WorkspaceNotFoundError:
    now = f"{payer} would pay for it now" if payer else "GitHub does not say who would pay for it now"
    agreed = f"the kernelspec allows it for {recipe.payer}" if recipe.payer else "the kernelspec names no payer"
    return WorkspaceNotFoundError(
        f"There is no codespace of {recipe.title}, and none was created: {now}, while {agreed}. "
        f"To allow it all the same: `{recipe.allow_command}`."
    )
