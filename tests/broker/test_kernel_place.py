"""What becomes of a recipe when the workspace that was found for it is gone."""

from __future__ import annotations

import os

import pytest

from codespace_kernels.broker.care import Care
from codespace_kernels.broker.kernel_place import KernelPlace, May
from codespace_kernels.broker.ledger import Ledger, key_of
from codespace_kernels.broker.recipes import Recipes
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.broker.workspaces import WorkspaceSession
from codespace_kernels.errors import WorkspaceNotFoundError
from codespace_kernels.github import GitHubClient, token_sources
from codespace_kernels.progress import silent
from codespace_kernels.providers.github import CodespacesProvider
from codespace_kernels.recipe import Recipe
from codespace_kernels.target import Account, Target


class RacedProvider(CodespacesProvider):
    """What it finds is deleted on the web before it can be used."""

    async def find(self, request):
        found = await super().find(request)
        for workspace in found:
            await self.delete(workspace.name)
        return found


@pytest.fixture
def account(emulator):
    return Account(api_url=emulator.api_url)


@pytest.fixture
async def provider(emulator, account):
    tokens = token_sources(account, {**os.environ, **emulator.environment()}, None)
    provider = RacedProvider(GitHubClient(account, tokens), env={})
    yield provider
    await provider.close()


@pytest.fixture
def place_of(provider, tmp_path):
    """Gives the place of a kernel."""
    ledger = Ledger(tmp_path / "usage.json")

    def place_of(target, left):
        def session_of(name):
            meter = UsageMeter(ledger, key_of(target.account, name))
            return WorkspaceSession(target.account, name, meter, care=Care(name, meter), lost=lambda reason: None)

        return KernelPlace(
            target, provider, Recipes(), session_of, left.append, changed=lambda: None, shown=lambda: None
        )

    return place_of


async def test_one_that_is_deleted_before_it_is_used_is_looked_for_anew_once(emulator, account, place_of):
    (name,) = emulator.account.codespaces
    target = Target(account, "", "python3", recipe=Recipe("octocat/hello-codespaces"))
    left = []
    place = place_of(target, left)
    # It was looked for again: the error is the recipe's, not that of the codespace which is gone.
    with pytest.raises(WorkspaceNotFoundError, match=r"no codespace of octocat/hello-codespaces, and this kernelspec"):
        await place.connected(May.START, silent)
    assert [session.name for session in left] == [name]
    assert (place.session, place.name) == (None, "octocat/hello-codespaces")
    assert place.target == target


async def test_one_that_is_named_is_not_looked_for(emulator, account, provider, place_of):
    (name,) = emulator.account.codespaces
    place = place_of(Target(account, name, "python3"), [])
    await provider.delete(name)
    with pytest.raises(WorkspaceNotFoundError, match=f"no codespace '{name}'"):
        await place.connected(May.START, silent)
    assert place.name == name
