"""A provider of an emulated account."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from codespace_kernels.github import Backoff, GitHubClient, Pace, token_sources
from codespace_kernels.providers.github import CodespacesProvider
from codespace_kernels.target import Account

PACE = Pace(first=0.02, factor=1.1, longest=0.1, without_tunnel=0.3, creation=10.0, lost=0.5)


@pytest.fixture(scope="session")
def emulator_options():
    return {"transition_seconds": 0.05, "own_environment": False}


@pytest.fixture
def env(emulator):
    """The environment of somebody who wants the emulated account, gh in its PATH."""
    return {**os.environ, **emulator.environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
async def make_provider(emulator, env):
    """Make providers as the registry does, but in a hurry."""
    made = []

    def make(*, token=None, transport="auto", env=env):
        account = Account(api_url=emulator.api_url)
        client = GitHubClient(account, token_sources(account, env, token), retry=Backoff(first=0.01))
        made.append(CodespacesProvider(client, env=env, transport=transport, pace=PACE))
        return made[-1]

    yield make
    for provider in made:
        await provider.close()


@pytest.fixture
def provider(make_provider):
    return make_provider()


@pytest.fixture
def name(emulator):
    """The codespace that the account begins with."""
    return next(iter(emulator.account.codespaces))


@pytest.fixture
def add_codespace(emulator):
    """Add a codespace to the account; gives its name."""
    from codespace_kernels.emulator.account import NewCodespace

    def add(repository, display_name):
        async def work():
            known = emulator.account.repository(repository) or emulator.account.add_repository(repository)
            return emulator.account.add_codespace(NewCodespace(known, display_name=display_name)).name

        return emulator.call(work())

    return add


@pytest.fixture
def state_of(emulator):
    return lambda name: str(emulator.account.codespaces[name].actual_state)
