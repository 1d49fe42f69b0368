"""Which codespaces fit a request, and which of them is taken."""

from __future__ import annotations

import pytest

from codespace_kernels.errors import NotFoundError
from codespace_kernels.github.models import Codespace, CodespaceState, Machine
from codespace_kernels.progress import silent
from codespace_kernels.providers.base import CreateRequest
from codespace_kernels.providers.fitting import fitting

GPU = ".devcontainer/gpu/devcontainer.json"
DEFAULT = ".devcontainer/devcontainer.json"


def codespace(name="one", state="Shutdown", *, used="2026-11-23T08:00:00Z", ref="main", devcontainer="", machine=""):
    return Codespace(
        name,
        CodespaceState.parse(state),
        state,
        ref=ref,
        devcontainer_path=devcontainer,
        machine=Machine(machine, machine) if machine else None,
        last_used_at=used,
    )


def names(codespaces, **wanted):
    return [found.name for found in fitting(codespaces, CreateRequest("octocat/ml", **wanted), "main")]


@pytest.mark.parametrize(
    ("wanted", "has", "fits"),
    [
        ({}, {}, True),
        ({}, {"machine": "premiumLinux"}, True),
        ({"machine": "premiumLinux"}, {"machine": "premiumLinux"}, True),
        ({"machine": "premiumLinux"}, {"machine": "basicLinux32gb"}, False),
        ({"machine": "premiumLinux"}, {}, False),
        ({}, {"ref": "dev"}, False),
        ({"ref": "dev"}, {"ref": "dev"}, True),
        ({"ref": "dev"}, {}, False),
        ({}, {"ref": ""}, False),
        ({}, {"devcontainer": DEFAULT}, True),
        ({}, {"devcontainer": GPU}, False),
        ({"devcontainer_path": GPU}, {"devcontainer": GPU}, True),
        ({"devcontainer_path": GPU}, {"devcontainer": DEFAULT}, False),
        ({"devcontainer_path": GPU}, {}, False),
        ({"devcontainer_path": DEFAULT}, {}, True),
        ({"location": "WestEurope", "idle_timeout_minutes": 5}, {}, True),
    ],
)
def test_what_is_compared(wanted, has, fits):
    assert bool(names([codespace(**has)], **wanted)) is fits


def test_running_before_stopped_then_the_last_used_and_never_a_failed_one():
    found = [
        codespace("stopped-early", used="2026-11-21T08:00:00Z"),
        codespace("stopped-late", used="2026-11-23T08:00:00Z"),
        codespace("failed", "Failed", used="2026-11-23T09:00:00Z"),
        codespace("running-early", "Available", used="2026-11-20T08:00:00Z"),
        codespace("running-late", "Available", used="2026-11-22T08:00:00Z"),
        codespace("starting", "Provisioning", used="2026-11-19T08:00:00Z"),
        codespace("rebuilding", "Rebuilding", used="2026-11-24T08:00:00Z"),
        codespace("gone", "Deleted"),
    ]
    order = ["running-late", "running-early", "starting", "rebuilding", "stopped-late", "stopped-early"]
    assert names(found) == names(found[::-1]) == order


async def test_what_was_created_is_found_again(provider, name):
    repository = "octocat/hello-codespaces"
    request = CreateRequest(repository, machine="premiumLinux", idle_timeout_minutes=10)
    assert not await provider.find(request)
    made = await provider.create(request, silent)
    assert [found.name for found in await provider.find(request)] == [made.name]
    assert {found.name for found in await provider.find(CreateRequest(repository.upper()))} == {made.name, name}
    assert not await provider.find(CreateRequest(repository, ref="dev"))


@pytest.mark.parametrize("ref", ["", "main"])
async def test_an_unknown_repository(provider, ref):
    with pytest.raises(NotFoundError, match="octocat/nowhere"):
        await provider.find(CreateRequest("octocat/nowhere", ref=ref))
