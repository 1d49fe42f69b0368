"""Where a kernel runs: in the workspace that its kernelspec names, or in one that its recipe comes down to."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.workspaces import PATIENT_START_TIMEOUT
from codespace_kernels.errors import WorkspaceError, WorkspaceNotCreatedError, WorkspaceNotFoundError, naming
from codespace_kernels.target import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.broker.hosts import KernelHost
    from codespace_kernels.broker.recipes import Recipes
    from codespace_kernels.broker.workspaces import WorkspaceSession
    from codespace_kernels.progress import Progress
    from codespace_kernels.providers.base import Provider
    from codespace_kernels.recipe import Recipe
    from codespace_kernels.target import Target


class May(enum.IntEnum):
    """What an attempt to have a running workspace may do; each includes those before it."""

    CONNECT = 0
    """Nothing that costs money."""
    START = 1
    """Start a stopped one."""
    CREATE = 2
    """Make one, where the kernelspec allows that."""


class KernelPlace:
    """The place of one kernel; it may change with each start, where the kernelspec has a recipe.

    Args:
        target: What the kernelspec says.
        provider: Of the account.
        recipes: Finds workspaces.
        session_of: Gives the session of a workspace by its name.
        left: Called with a session that is this kernel's no more.
        changed: Called when what `to_json` gives, or what the kernel says of itself, may have changed.
        shown: Called in its place where only what people are shown may have: nothing that outlives the broker.

    Attributes:
        session: Of the workspace; None as long as a recipe has not come down to one.
    """

    def __init__(
        self,
        target: Target,
        provider: Provider,
        recipes: Recipes,
        session_of: Callable[[str], WorkspaceSession],
        left: Callable[[WorkspaceSession], None],
        changed: Callable[[], None],
        shown: Callable[[], None],
    ) -> None:
        self.changed = changed
        self.shown = shown
        self._target = target
        self._provider = provider
        self._recipes = recipes
        self._session_of = session_of
        self._left = left
        self.session = session_of(target.workspace) if target.recipe is None else None

    @property
    def name(self) -> str:
        """Name of the workspace, or what the recipe says, for people."""
        return self.session.name if self.session is not None else self._target.place

    @property
    def target(self) -> Target:
        """The kernel by the name of its workspace, as far as that is known."""
        return self._target.at(self.session.name) if self.session is not None else self._target

    def move(self, session: WorkspaceSession) -> None:
        """Take note that the kernel is in another workspace."""
        before, self.session = self.session, session
        self.changed()
        if before is not None and before is not session:
            self._left(before)

    async def connected(self, may: May, progress: Progress) -> tuple[WorkspaceSession, KernelHost]:
        """Give the workspace's session and the host of its kernels, connecting first where that is needed.

        Args:
            may: What may be done for it.
            progress: Hears of the steps.

        Raises:
            WorkspaceStoppedError: The workspace is stopped, and may not be started.
            WorkspaceNotCreatedError: There is none yet, and none may be made now.
            CodespaceKernelsError: The workspace cannot be had; says why.
        """
        try:
            return await self._connected(may, progress)
        except WorkspaceNotFoundError:
            if self._target.recipe is None or self.session is None:
                raise
            # It was deleted since it was found; what is found now is another one.
        return await self._connected(may, progress)

    async def _connected(self, may: May, progress: Progress) -> tuple[WorkspaceSession, KernelHost]:
        session = await self._settled(may, progress)
        start = may >= May.START
        # Who asked for a codespace of a kind must learn which one it is about.
        named = naming(session.name, f"This is about codespace {session.name}.")
        with named if self._target.recipe is not None else contextlib.nullcontext():
            host = await session.connected(self._provider, progress, start=start, timeout=PATIENT_START_TIMEOUT)
        return session, host

    async def _settled(self, may: May, progress: Progress) -> WorkspaceSession:
        """Give the session of the workspace that is named, or of the one that fits the recipe now."""
        recipe = self._target.recipe
        if recipe is None:
            assert self.session is not None
            return self.session
        # Whoever meets an error is to know whether the search failed or what came after it.
        self._leave()
        account = self._target.account
        if may is May.CREATE and recipe.may_create:
            found = await self._recipes.have(account, self._provider, recipe, progress)
        else:
            known = await self._recipes.find(account, self._provider, recipe, progress)
            if known is None:
                raise _missing(recipe, self._target.wake)
            found = known
        session = self._session_of(found.workspace.name)
        self.move(session)
        return session

    def _leave(self) -> None:
        before, self.session = self.session, None
        if before is not None:
            self._left(before)

    def to_json(self) -> dict[str, Any]:
        """Give what `status` shows of a kernel's place."""
        recipe = self._target.recipe.title if self._target.recipe is not None else ""
        if self.session is not None:
            return {**self.session.place_json(), "recipe": recipe}
        account = self._target.account
        return {
            "workspace": "",
            "api_url": account.api_url,
            "account": dataclasses.asdict(account),
            "recipe": recipe,
        }


def _missing(recipe: Recipe, wake: str) -> WorkspaceError:
    """Build the error for a recipe that no workspace fits."""
    none = f"There is no codespace of {recipe.title}"
    if not recipe.may_create:
        return WorkspaceNotFoundError(
            f"{none}, and this kernelspec may not create one. Create one with `{recipe.create_command}`, or allow it "
            f"with `{recipe.allow_command}`."
        )
    if wake == NEVER:
        return WorkspaceNotCreatedError(
            f"{none}, and its kernelspec (wake: {NEVER}) starts none. Create one with `{recipe.create_command}`."
        )
    return WorkspaceNotCreatedError(f"{none} yet. The first cell that you run creates one; {recipe.payer} pays for it.")
