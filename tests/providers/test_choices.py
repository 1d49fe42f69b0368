"""What can be chosen for a new codespace, of an emulated account."""

from __future__ import annotations

import json

import pytest

from codespace_kernels import errors
from codespace_kernels.progress import silent
from codespace_kernels.providers.base import CreateRequest
from codespace_kernels.providers.choices import Bounds, Payer
from codespace_kernels.providers.codespace_checks import check_chosen
from codespace_kernels.providers.codespace_choices import MOST_BRANCHES

HELLO = "octocat/hello-codespaces"
GPU = ".devcontainer/gpu/devcontainer.json"


@pytest.fixture
def repository(emulator):
    """A repository that an organisation pays for, with two branches and two devcontainers."""

    async def add():
        made = emulator.account.add_repository("octo-org/ml", paid_by="octo-org")
        made.branches.append("experiment")
        made.files[GPU] = '{"name": "With a GPU"}'
        return made

    return emulator.call(add())


async def test_everything(provider, repository):
    choices = await provider.choices(CreateRequest("octo-org/ml"))
    assert (choices.repository, choices.default_branch) == ("octo-org/ml", "main")
    assert choices.payer == Payer("octo-org", "Organization")
    assert choices.branches == ["main", "experiment"]
    assert [(one.path, one.title, one.is_default) for one in choices.devcontainers] == [
        (".devcontainer/devcontainer.json", "ml", True),
        (GPU, "With a GPU", False),
    ]
    small, *_, large = choices.machines
    assert (small.name, small.cpus, small.memory_bytes >> 30, small.storage_bytes >> 30) == ("basicLinux32gb", 2, 8, 32)
    assert (small.prebuild, small.dollars_per_hour, large.dollars_per_hour) == ("none", 0.18, 1.44)
    assert choices.locations[0] == "EastUs"
    assert choices.idle_timeout_minutes == Bounds(5, 240, 30)
    assert choices.permissions_accepted is True
    assert (choices.unlisted, choices.notes) == ([], [])
    shown = json.loads(json.dumps(choices.to_json()))
    assert shown["payer"] == {"login": "octo-org", "kind": "Organization"}
    assert shown["retention_minutes"] == {"lowest": 0, "highest": 43200, "default": 43200}


async def test_of_a_branch_a_devcontainer_and_a_region(provider, repository):
    request = CreateRequest("octo-org/ml", ref="experiment", devcontainer_path=GPU, location="WestUs2")
    assert (await provider.choices(request)).branches == ["main", "experiment"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ref": "experimnt"}, "Did you mean experiment"),
        ({"ref": "zzz"}, "It has main, experiment"),
        ({"devcontainer_path": "gpu.json"}, f"at main has no devcontainer 'gpu.json'. It has .*, {GPU}"),
        ({"location": "Mars"}, "WestEurope"),
        ({"machine": "cray"}, "largePremiumLinux"),
    ],
)
async def test_what_is_not_there_says_what_is(provider, repository, values, said):
    request = CreateRequest("octo-org/ml", **values)
    with pytest.raises(errors.SettingsError, match=said):
        check_chosen(request, await provider.choices(request))


async def test_lists_that_github_does_not_give_become_notes(provider, emulator):
    emulator.faults.set("server-error", on="branches,devcontainers,machines,permissions-check", status=502)
    choices = await provider.choices(CreateRequest(HELLO, ref="anything", machine="anything"))
    assert (choices.branches, choices.devcontainers, choices.machines) == (["main"], [], [])
    assert choices.unlisted == ["branches", "devcontainers", "machines"]
    assert choices.permissions_accepted is None
    assert all("server error 502" in note for note in choices.notes)
    check_chosen(CreateRequest(HELLO, ref="anything", machine="anything"), choices)


async def test_very_many_branches(provider, emulator):
    emulator.account.repository(HELLO).branches.extend(f"branch-{number}" for number in range(MOST_BRANCHES + 50))
    choices = await provider.choices(CreateRequest(HELLO, ref="branch-1049"))
    assert len(choices.branches) in (MOST_BRANCHES, MOST_BRANCHES + 1)
    assert choices.unlisted == ["branches"]
    assert str(MOST_BRANCHES) in choices.notes[0]


async def test_permissions_that_are_not_granted(provider, emulator):
    emulator.faults.set("permissions")
    request = CreateRequest(HELLO)
    choices = await provider.choices(request)
    assert choices.permissions_accepted is False
    assert "permissions" in choices.notes[0]
    assert await provider.permissions_accepted(request) is False
    emulator.faults.clear("permissions")
    assert await provider.permissions_accepted(request) is True


async def test_machine_types_that_are_missing_are_told(provider, emulator, repository):
    emulator.faults.set("policy", owner="octo-org", machines="standardLinux32gb")
    few, many = (await provider.choices(CreateRequest("octo-org/ml"))).notes
    assert "fewer than 4 cores" in few
    assert "octo-org" in many
    assert "at most 4 cores" in many
    with pytest.raises(errors.SettingsError, match="no machine type 'premiumLinux'"):
        await provider.create(CreateRequest("octo-org/ml", machine="premiumLinux"), silent)
    assert (await provider.choices(CreateRequest(HELLO))).notes == []


async def test_a_repository_of_which_nothing_may_be_created(provider, emulator):
    emulator.faults.set("not-allowed", on="new")
    with pytest.raises(errors.GitHubError, match="No codespace can be created with octocat/hello-codespaces"):
        await provider.choices(CreateRequest(HELLO))


async def test_an_unknown_repository(provider):
    with pytest.raises(errors.NotFoundError, match="octocat/nowhere"):
        await provider.choices(CreateRequest("octocat/nowhere"))


async def test_suggestions(provider, add_codespace, emulator, repository):
    emulator.account.codespaces[add_codespace("acme/tools", "the one used last")].touch()
    assert await provider.suggest_repositories() == ["acme/tools", HELLO, "octo-org/ml"]
    assert await provider.suggest_repositories("ML") == ["octo-org/ml"]
    assert await provider.suggest_repositories("octo-org/m") == ["octo-org/ml"]
    assert await provider.suggest_repositories("nothing like it") == []
    emulator.faults.set("server-error", on="user-repositories,search-repositories")
    assert await provider.suggest_repositories("tools") == ["acme/tools"]
