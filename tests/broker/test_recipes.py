"""From a recipe to a workspace, in an emulated account."""

from __future__ import annotations

import asyncio
import dataclasses
import os

import pytest

from codespace_kernels.broker.recipes import Recipes
from codespace_kernels.errors import (
    GitHubError,
    GitHubUnavailableError,
    PaymentRequiredError,
    SettingsError,
    WorkspaceFailedError,
    WorkspaceNotFoundError,
)
from codespace_kernels.github import Backoff, GitHubClient, Pace, token_sources
from codespace_kernels.progress import silent
from codespace_kernels.providers.github import CodespacesProvider
from codespace_kernels.recipe import Recipe
from codespace_kernels.target import Account

WAIT = 60.0
RECIPE = Recipe("octocat/hello-codespaces", machine="premiumLinux", may_create=True, payer="octocat")


@pytest.fixture(scope="module")
def emulator_options():
    return {"transition_seconds": 0.05, "own_environment": False}


class ForgetfulProvider(CodespacesProvider):
    """Its list shows what was made only later, as a list of many servers may."""

    async def find(self, request):
        return []


@pytest.fixture
async def provider(emulator):
    made = make_provider(emulator)
    yield made
    await made.close()


def make_provider(emulator, kind=CodespacesProvider):
    account = Account(api_url=emulator.api_url)
    tokens = token_sources(account, {**os.environ, **emulator.environment()}, None)
    client = GitHubClient(account, tokens, retry=Backoff(first=0.01))
    return kind(client, env={}, pace=Pace(first=0.02, longest=0.1, lost=0.5))


@pytest.fixture
def made(emulator):
    """Names of the codespaces that were made since the test began."""
    before = set(emulator.account.codespaces)
    return lambda: set(emulator.account.codespaces) - before


class Asking:
    """Somebody who wants a workspace."""

    def __init__(self, recipes, emulator, provider, recipe=RECIPE):
        self.events = []
        self.told = {stage: asyncio.Event() for stage in ("find", "create")}
        account = Account(api_url=emulator.api_url)
        self.task = asyncio.create_task(recipes.have(account, provider, recipe, self._hear))

    def _hear(self, event):
        self.events.append(event)
        if event.stage in self.told:
            self.told[event.stage].set()

    async def result(self):
        return await asyncio.wait_for(self.task, WAIT)


async def test_one_that_is_there_is_taken_and_the_next_is_not_made(emulator, provider, made):
    first = await Asking(Recipes(), emulator, provider).result()
    assert (first.created, first.others) == (True, 0)
    assert made() == {first.workspace.name}
    again = await Asking(Recipes(), emulator, provider).result()
    assert (again.created, again.workspace.name) == (False, first.workspace.name)
    assert len(made()) == 1


async def test_who_comes_meanwhile_gets_the_same_one_and_hears_who_pays(emulator, provider, made):
    recipes = Recipes()
    one, two = Asking(recipes, emulator, provider), Asking(recipes, emulator, provider)
    await asyncio.wait_for(one.told["create"].wait(), WAIT)
    three = Asking(recipes, emulator, provider)
    found = [await asking.result() for asking in (one, two, three)]
    assert {entry.workspace.name for entry in found} == made()
    assert len(made()) == 1
    # Only one of them may delete it again.
    assert [entry.created for entry in found] == [True, False, False]
    for asking in (one, two, three):
        texts = [event.message for event in asking.events if event.stage == "create"]
        assert texts == ["Creating a codespace of octocat/hello-codespaces (8 cores; octocat pays, $0.72/h)"]


async def test_another_payer_is_told_and_nothing_is_made(emulator, provider, made):
    recipe = dataclasses.replace(RECIPE, payer="acme")
    with pytest.raises(WorkspaceNotFoundError, match="octocat would pay for it now") as caught:
        await Asking(Recipes(), emulator, provider, recipe).result()
    assert "allows it for acme" in str(caught.value)
    assert "--as-recipe --allow-create" in str(caught.value)
    assert not made()


async def test_an_answer_that_was_lost_is_no_reason_to_make_another(emulator, provider, made):
    emulator.faults.set("no-answer", on="create", done=1, count=1)
    found = await Asking(Recipes(), emulator, provider).result()
    assert made() == {found.workspace.name}
    assert found.created


REFUSALS = [
    ("server-error", {"on": "create", "status": 503}, GitHubUnavailableError, "look before you repeat"),
    ("payment", {"on": "create"}, PaymentRequiredError, "spending limit"),
    ("too-many", {}, GitHubError, "too many codespaces"),
]


@pytest.mark.parametrize(("fault", "options", "kind", "text"), REFUSALS)
async def test_a_refusal_is_told_and_the_next_try_is_free(emulator, provider, made, fault, options, kind, text):
    recipes = Recipes()
    emulator.faults.set(fault, **options)
    with pytest.raises(kind, match=text):
        await Asking(recipes, emulator, provider).result()
    assert not made()
    emulator.faults.clear()
    assert {(await Asking(recipes, emulator, provider).result()).workspace.name} == made()


async def test_a_machine_that_is_not_offered(emulator, provider, made):
    recipe = dataclasses.replace(RECIPE, machine="cray")
    with pytest.raises(SettingsError, match="standardLinux32gb"):
        await Asking(Recipes(), emulator, provider, recipe).result()
    assert not made()


async def test_a_failed_one_is_never_taken(emulator, provider):
    recipes = Recipes()
    emulator.faults.set("state", state="Failed")
    with pytest.raises(WorkspaceFailedError):
        await Asking(recipes, emulator, provider).result()
    account = Account(api_url=emulator.api_url)
    assert await recipes.find(account, provider, RECIPE, silent) is None


async def test_who_goes_before_the_creation_prevents_it(emulator, provider, made):
    recipes = Recipes()
    asking = Asking(recipes, emulator, provider)
    await asyncio.wait_for(asking.told["find"].wait(), WAIT)
    asking.task.cancel()
    await asyncio.wait({asking.task})
    assert not made()
    assert {(await Asking(recipes, emulator, provider).result()).workspace.name} == made()
    assert len(made()) == 1


async def test_who_goes_after_it_was_asked_for_finds_it_later(emulator, provider, made):
    recipes = Recipes()
    asking = Asking(recipes, emulator, provider)
    await asyncio.wait_for(asking.told["create"].wait(), WAIT)
    asking.task.cancel()
    await asyncio.wait({asking.task})
    account = Account(api_url=emulator.api_url)
    found = await recipes.find(account, provider, RECIPE, silent, join=True)
    assert found is not None
    assert {found.workspace.name} == made()
    # Nobody else wants it: whoever asked for it may delete it.
    assert found.created


async def test_what_others_wait_for_is_nobodys_to_delete(emulator, provider, made):
    recipes = Recipes()
    one, two = Asking(recipes, emulator, provider), Asking(recipes, emulator, provider)
    await asyncio.wait_for(one.told["create"].wait(), WAIT)
    one.task.cancel()
    await asyncio.wait({one.task})
    found = await recipes.find(Account(api_url=emulator.api_url), provider, RECIPE, silent, join=True)
    assert found is not None
    assert {found.workspace.name, (await two.result()).workspace.name} == made()
    assert not found.created


async def test_a_list_that_lags_behind_makes_no_second_one(emulator, made):
    provider = make_provider(emulator, ForgetfulProvider)
    recipes = Recipes()
    first = await Asking(recipes, emulator, provider).result()
    second = await Asking(recipes, emulator, provider).result()
    assert first.workspace.name == second.workspace.name
    await provider.delete(first.workspace.name)
    account = Account(api_url=emulator.api_url)
    assert await asyncio.gather(*(recipes.find(account, provider, RECIPE, silent) for _ in range(2))) == [None, None]
    third = await Asking(recipes, emulator, provider).result()
    assert third.created
    await provider.close()


async def test_of_several_it_is_told_which_was_taken_and_why(emulator, provider):
    account, any_machine = Account(api_url=emulator.api_url), dataclasses.replace(RECIPE, machine="")
    await Asking(Recipes(), emulator, provider).result()
    events = []
    found = await Recipes().find(account, provider, any_machine, events.append)
    assert found is not None
    assert found.others == 1
    (event,) = events
    assert event.message.startswith(f"Taking {found.workspace.name} for octocat/hello-codespaces, ")
    assert event.message.endswith("(1 more would fit)")


async def test_the_end_of_the_broker_waits_for_what_was_asked_for(emulator, provider, made):
    recipes = Recipes()
    asking = Asking(recipes, emulator, provider)
    await asyncio.wait_for(asking.told["create"].wait(), WAIT)
    await recipes.close()
    assert {(await asking.result()).workspace.name} == made()
