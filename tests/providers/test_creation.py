"""Creating a codespace in the emulated account."""

from __future__ import annotations

import pytest

from codespace_kernels import errors
from codespace_kernels.progress import silent
from codespace_kernels.providers.base import CreateRequest, WorkspaceState

REPOSITORY = "octocat/hello-codespaces"


@pytest.fixture
def count(emulator):
    return lambda: len(emulator.account.codespaces)


async def test_who_pays(provider, emulator):
    assert await provider.payer(CreateRequest(REPOSITORY)) == "octocat"

    async def add():
        emulator.account.add_repository("acme/ml", paid_by="acme")

    emulator.call(add())
    assert await provider.payer(CreateRequest("acme/ml")) == "acme"
    with pytest.raises(errors.NotFoundError, match="acme/unknown"):
        await provider.payer(CreateRequest("acme/unknown"))


async def test_create_with_everything(provider, emulator):
    request = CreateRequest(
        REPOSITORY,
        ref="main",
        machine="premiumLinux",
        display_name="my machine",
        idle_timeout_minutes=60,
        retention_period_minutes=1440,
        location="WestEurope",
        default_permissions=True,
    )
    events = []
    workspace = await provider.create(request, events.append)
    made = emulator.account.codespaces[workspace.name]
    assert workspace.title == "my machine"
    assert made.machine_type.name == "premiumLinux"
    assert (made.idle_timeout_minutes, made.retention_period_minutes) == (60, 1440)
    assert made.location == "WestEurope"
    assert made.devcontainer_path == ".devcontainer/devcontainer.json"
    assert [event.stage for event in events] == ["find", "create"]
    assert (await provider.ensure_running(workspace.name, silent)).state is WorkspaceState.RUNNING


async def test_create_that_goes_on_in_the_background(provider, emulator):
    emulator.faults.set("create-accepted")
    workspace = await provider.create(CreateRequest(REPOSITORY), silent)
    assert workspace.provider_state not in ("Queued", "Created")


async def test_a_machine_type_that_is_not_offered_names_the_offered_ones(provider, count):
    before = count()
    with pytest.raises(errors.SettingsError, match="standardLinux32gb") as caught:
        await provider.create(CreateRequest(REPOSITORY, machine="cray"), silent)
    assert "4 cores, 16 GB RAM" in str(caught.value)
    assert count() == before


async def test_machine_types_that_cannot_be_listed_are_judged_by_github(provider, emulator, count):
    emulator.faults.set("server-error", on="machines,devcontainers")
    await provider.create(CreateRequest(REPOSITORY, machine="premiumLinux"), silent)
    with pytest.raises(errors.GitHubError, match=r"Codespace\.machine|cray is not a machine type"):
        await provider.create(CreateRequest(REPOSITORY, machine="cray"), silent)


async def test_a_repository_without_the_default_devcontainer(provider, emulator):
    async def add():
        repository = emulator.account.add_repository("octocat/gpu")
        repository.files.clear()
        repository.files[".devcontainer/gpu/devcontainer.json"] = "{}"

    emulator.call(add())
    events = []
    workspace = await provider.create(CreateRequest("octocat/gpu"), events.append)
    assert emulator.account.codespaces[workspace.name].devcontainer_path is None
    assert any(".devcontainer/gpu/devcontainer.json" in event.message for event in events)
    chosen = CreateRequest("octocat/gpu", devcontainer_path=".devcontainer/gpu/devcontainer.json")
    workspace = await provider.create(chosen, silent)
    assert emulator.account.codespaces[workspace.name].devcontainer_path == chosen.devcontainer_path


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"display_name": "é" * 25}, "50 bytes"),
        ({"idle_timeout_minutes": 4}, "5 to 240"),
        ({"idle_timeout_minutes": 241}, "5 to 240"),
        ({"retention_period_minutes": -1}, "0 to 43200"),
        ({"retention_period_minutes": 43201}, "0 to 43200"),
    ],
)
async def test_values_outside_the_limits_ask_nobody(provider, count, values, text):
    before = count()
    with pytest.raises(errors.SettingsError, match=text):
        await provider.create(CreateRequest(REPOSITORY, **values), silent)
    assert count() == before


@pytest.mark.parametrize(
    "values", [{"display_name": "é" * 24}, {"idle_timeout_minutes": 5}, {"retention_period_minutes": 0}]
)
async def test_values_at_the_limits(provider, values):
    await provider.create(CreateRequest(REPOSITORY, **values), silent)


async def test_an_unknown_repository(provider):
    with pytest.raises(errors.NotFoundError, match="find repository octocat/nowhere"):
        await provider.create(CreateRequest("octocat/nowhere"), silent)
    with pytest.raises(errors.SettingsError, match="OWNER/NAME"):
        await provider.create(CreateRequest("nowhere"), silent)


async def test_extra_permissions(provider, emulator, count):
    emulator.faults.set("permissions")
    before = count()
    with pytest.raises(errors.PermissionsRequiredError) as caught:
        await provider.create(CreateRequest(REPOSITORY), silent)
    assert caught.value.url.startswith(emulator.api_url)
    assert count() == before
    await provider.create(CreateRequest(REPOSITORY, default_permissions=True), silent)
    assert count() == before + 1


async def test_a_creation_that_failed(provider, emulator):
    emulator.faults.set("state", state="Failed")
    with pytest.raises(errors.WorkspaceFailedError):
        await provider.create(CreateRequest(REPOSITORY), silent)


@pytest.mark.parametrize("fault", ["no-answer", "create-accepted"])
async def test_a_creation_whose_answer_is_lost_is_found(provider, emulator, count, fault):
    emulator.faults.set(fault, **({"on": "create", "done": 1} if fault == "no-answer" else {}))
    before = count()
    events = []
    workspace = await provider.create(CreateRequest(REPOSITORY, machine="premiumLinux"), events.append)
    assert count() == before + 1
    assert emulator.account.codespaces[workspace.name].machine_type.name == "premiumLinux"
    assert any("GitHub did not answer, but" in event.message for event in events) == (fault == "no-answer")


async def test_a_request_that_never_arrived_makes_nothing_and_says_so(provider, emulator, count):
    emulator.faults.set("no-answer", on="create")
    before = count()
    with pytest.raises(errors.GitHubUnavailableError, match="none is in the list of your codespaces so far"):
        await provider.create(CreateRequest(REPOSITORY), silent)
    assert count() == before


async def test_an_error_after_the_creation_names_the_codespace(provider, emulator):
    emulator.faults.set("create-accepted")
    emulator.faults.set("unauthorized", on="get")
    with pytest.raises(errors.BadTokenError) as caught:
        await provider.create(CreateRequest(REPOSITORY), silent)
    made = list(emulator.account.codespaces)[-1]
    assert made in str(caught.value)


async def test_too_many_codespaces_are_named(provider, emulator, name, count):
    emulator.faults.set("too-many")
    with pytest.raises(errors.GitHubError, match=r"codespace-kernels delete NAME") as caught:
        await provider.create(CreateRequest(REPOSITORY), silent)
    assert f"{name} ({REPOSITORY}, stopped)" in str(caught.value)
    assert count() == 1


@pytest.mark.parametrize(
    ("fault", "options", "error", "said"),
    [
        ("payment", {"on": "create"}, errors.PaymentRequiredError, "billing issue"),
        ("not-allowed", {"on": "create"}, errors.GitHubError, "cannot be created with this repository"),
        ("policy", {"images": "ghcr.io/octo-org/"}, errors.GitHubError, "not allowed by a policy of octocat"),
    ],
)
async def test_what_is_forbidden(provider, emulator, count, fault, options, error, said):
    emulator.faults.set(fault, **options)
    with pytest.raises(error, match=said):
        await provider.create(CreateRequest(REPOSITORY), silent)
    assert count() == 1


async def test_policies_that_change_the_times(provider, emulator):
    emulator.faults.set("policy", idle_timeout=15, retention=1440)
    request = CreateRequest(REPOSITORY, idle_timeout_minutes=60, retention_period_minutes=43200)
    workspace = await provider.create(request, silent)
    assert (workspace.idle_timeout_minutes, workspace.retention_period_minutes) == (15, 1440)
    assert "15 minutes" in workspace.idle_timeout_notice


async def test_an_unknown_devcontainer_or_region(provider, count):
    for values, said in (
        ({"devcontainer_path": "x.json"}, ".devcontainer/devcontainer.json"),
        ({"location": "M"}, "EastUs"),
    ):
        with pytest.raises(errors.SettingsError, match=said):
            await provider.create(CreateRequest(REPOSITORY, **values), silent)
    assert count() == 1


async def test_a_server_error_makes_no_second_machine(provider, emulator, count):
    emulator.faults.set("server-error", on="create", status=503)
    before = count()
    with pytest.raises(errors.GitHubUnavailableError, match="look before you repeat"):
        await provider.create(CreateRequest(REPOSITORY), silent)
    assert count() == before
