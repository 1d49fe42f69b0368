"""Finding, starting, stopping and deleting, against the emulated account."""

from __future__ import annotations

import logging
import traceback

import pytest

from codespace_kernels import errors
from codespace_kernels.progress import silent
from codespace_kernels.providers.base import CreateRequest, WorkspaceState
from codespace_kernels.providers.github import CodespacesProvider
from codespace_kernels.target import Account


async def test_list(provider, name):
    (workspace,) = await provider.list()
    assert workspace.name == name
    assert workspace.title == "hello codespaces"
    assert workspace.state is WorkspaceState.STOPPED
    assert workspace.provider_state == "Shutdown"
    assert workspace.repository == "octocat/hello-codespaces"
    assert workspace.ref == "main"
    assert workspace.machine == "2 cores, 8 GB RAM, 32 GB storage"
    assert workspace.idle_timeout_minutes == 30
    assert workspace.billable_owner == "octocat"
    assert workspace.last_used_at
    assert workspace.web_url


@pytest.mark.parametrize(
    ("api_url", "host"),
    [
        ("https://api.github.com", "github.com"),
        ("https://api.acme.ghe.com", "acme.ghe.com"),
        ("https://ghe.example.com/api/v3", "ghe.example.com"),
        # The emulator plays github.com.
        ("http://127.0.0.1:4711", "github.com"),
    ],
)
async def test_git_host(api_url, host):
    provider = CodespacesProvider.for_account(Account(api_url=api_url), {}, "token", "auto")
    assert provider.git_host == host
    await provider.close()


async def test_list_takes_all_pages(provider, add_codespace):
    for number in range(105):
        add_codespace("octocat/many", f"number {number}")
    names = [workspace.name for workspace in await provider.list()]
    assert len(names) == len(set(names)) == 106


async def test_listing_again_costs_no_quota(provider, emulator):
    await provider.list()
    headers = []
    for _ in range(2):
        import httpx

        token = {"Authorization": f"Bearer {emulator.token}"}
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{emulator.api_url}/user", headers=token)
        headers.append(int(answer.headers["x-ratelimit-remaining"]))
        await provider.list()
    # One for the look itself, none for the list that did not change.
    assert headers[0] - headers[1] == 1


@pytest.mark.parametrize("how", ["name", "title", "TITLE", "repository", "Repository"])
async def test_resolve(provider, name, how):
    words = {
        "name": name,
        "title": "hello codespaces",
        "TITLE": "Hello Codespaces",
        "repository": "octocat/hello-codespaces",
        "Repository": "Octocat/Hello-Codespaces",
    }
    assert (await provider.resolve(words[how])).name == name


async def test_resolve_starts_nothing(provider, name, state_of):
    await provider.resolve(name)
    assert state_of(name) == "Shutdown"


async def test_resolve_names_the_candidates(provider, name, add_codespace):
    other = add_codespace("octocat/hello-codespaces", "another")
    with pytest.raises(errors.WorkspaceNotFoundError, match="more than one") as caught:
        await provider.resolve("octocat/hello-codespaces")
    assert name in str(caught.value)
    assert other in str(caught.value)
    assert (await provider.resolve("another")).name == other


async def test_resolve_says_what_there_is(provider, name, add_codespace):
    for number in range(15):
        add_codespace("octocat/many", f"number {number}")
    with pytest.raises(errors.WorkspaceNotFoundError, match="no codespace 'nowhere'") as caught:
        await provider.resolve("nowhere")
    assert "and 6 more" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert caught.value.exit_code == 3


async def test_resolve_in_an_empty_account(provider, name):
    await provider.delete(name)
    with pytest.raises(errors.WorkspaceNotFoundError, match="none at all"):
        await provider.resolve("octocat/hello-codespaces")


@pytest.mark.parametrize("call", ["ensure_running", "stop", "delete", "connect", "jupyter_url"])
async def test_an_unknown_name(provider, call):
    arguments = () if call in ("stop", "delete") else (silent,)
    with pytest.raises(errors.WorkspaceNotFoundError, match="no codespace 'nowhere'"):
        await getattr(provider, call)("nowhere", *arguments)


async def test_start_and_stop(provider, name, state_of):
    events = []
    workspace = await provider.ensure_running(name, events.append)
    assert workspace.state is WorkspaceState.RUNNING
    assert name in events[0].message
    assert (await provider.ensure_running(name, silent, start=False)).state is WorkspaceState.RUNNING

    assert (await provider.stop(name)).state is WorkspaceState.STOPPING
    assert (await provider.stop(name)).state in (WorkspaceState.STOPPING, WorkspaceState.STOPPED)
    # From ShuttingDown over Shutdown up again.
    assert (await provider.ensure_running(name, silent)).state is WorkspaceState.RUNNING


async def test_stopping_what_is_stopped_is_no_error(provider, emulator, name):
    # GitHub is not asked: what it says to that is not known, gh never asks it either.
    emulator.faults.set("server-error", on="stop")
    assert (await provider.stop(name)).state is WorkspaceState.STOPPED


async def test_a_stopped_codespace_stays_stopped(provider, name, state_of):
    with pytest.raises(errors.WorkspaceStoppedError):
        await provider.ensure_running(name, silent, start=False)
    with pytest.raises(errors.WorkspaceStoppedError):
        await provider.connect(name, silent)
    with pytest.raises(errors.WorkspaceStoppedError):
        await provider.jupyter_url(name, silent)
    assert state_of(name) == "Shutdown"


async def test_a_start_that_takes_too_long(provider, emulator, name):
    emulator.faults.set("slow-start", seconds=30)
    with pytest.raises(errors.WaitTimeoutError, match=r"0\.5 s"):
        await provider.ensure_running(name, silent, timeout=0.5)


async def test_delete(provider, emulator, name):
    await provider.delete(name)
    assert name not in emulator.account.codespaces
    assert await provider.list() == []


async def test_notify_without_a_connection_does_nothing(provider, name):
    await provider.notify_activity(name)


async def test_closing_twice_is_no_error(provider):
    await provider.list()
    await provider.close()
    await provider.close()


# What GitHub may refuse: the fault, the call, the error and a piece of its text.

CALLS = {
    "list": lambda provider, name: provider.list(),
    "start": lambda provider, name: provider.ensure_running(name, silent),
    "stop": lambda provider, name: provider.stop(name),
    "create": lambda provider, name: provider.create(CreateRequest("octocat/hello-codespaces"), silent),
}
REFUSALS = [
    ("unauthorized", {}, "list", errors.BadTokenError, "gh auth login"),
    ("payment", {}, "start", errors.PaymentRequiredError, "billing"),
    ("sso", {}, "list", errors.SsoRequiredError, "Open http"),
    ("rate-limit", {"retry_after": 3600}, "list", errors.RateLimitError, "60 min"),
    ("rate-limit", {"reset_in": 3600}, "list", errors.RateLimitError, "60 min"),
    ("rate-limit", {"limit": "secondary", "status": 429, "retry_after": 3600}, "list", errors.RateLimitError, "60 min"),
    ("unprocessable", {"on": "create"}, "create", errors.GitHubError, "machine"),
    ("server-error", {"status": 503}, "list", errors.GitHubUnavailableError, "503"),
    ("permissions", {}, "create", errors.PermissionsRequiredError, "allow_permissions"),
    ("pending-operation", {}, "start", errors.PendingOperationError, "being updated"),
    ("no-tunnel", {"status": 200}, "start", errors.TokenCannotConnectError, "classic scope codespace"),
    ("no-tunnel", {"status": 500}, "start", errors.GitHubUnavailableError, "500"),
    *(("state", {"state": state}, "start", errors.WorkspaceFailedError, state)
      for state in ("Failed", "Unavailable", "Deleted", "Moved", "Archived", "Unknown")),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "options", "call", "error", "text"), REFUSALS)
async def test_refusals_tell_the_fix_and_no_secret(provider, emulator, name, caplog, fault, options, call, error, text):
    caplog.set_level(logging.DEBUG)
    emulator.faults.set(fault, **options)
    with pytest.raises(error, match=text) as caught:
        await CALLS[call](provider, name)
    assert type(caught.value) is error
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert emulator.token not in shown


async def test_a_passing_server_error_is_not_noticed(provider, emulator, name):
    emulator.faults.set("server-error", status=502, count=2)
    assert (await provider.ensure_running(name, silent)).state is WorkspaceState.RUNNING


async def test_a_short_rate_limit_is_waited_for(provider, emulator):
    emulator.faults.set("rate-limit", limit="secondary", status=429, retry_after=0, count=1)
    assert await provider.list()


async def test_a_conflict_at_start_is_fine(provider, emulator, name):
    emulator.faults.set("conflict", count=2)
    assert (await provider.ensure_running(name, silent)).state is WorkspaceState.RUNNING


async def test_a_pending_operation_keeps_a_codespace_from_being_stopped(provider, emulator, name):
    await provider.ensure_running(name, silent)
    emulator.faults.set("pending-operation", reason="Exporting.")
    with pytest.raises(errors.PendingOperationError, match="Exporting"):
        await provider.stop(name)
    (workspace,) = await provider.list()
    assert workspace.state is WorkspaceState.BUSY


async def test_a_wrong_token(make_provider):
    with pytest.raises(errors.BadTokenError, match="explicit setting"):
        await make_provider(token="ghp_wrong").list()


async def test_a_token_without_the_scope(make_provider, emulator):
    token = emulator.account.add_token(scopes=("repo", "gist")).value
    with pytest.raises(errors.MissingScopeError, match=r"gh auth refresh -h 127\.0\.0\.1 -s codespace"):
        await make_provider(token=token).list()


async def test_a_fine_grained_token_lists_but_cannot_connect(make_provider, emulator, name):
    provider = make_provider(token=emulator.account.add_token("fine-grained").value)
    assert len(await provider.list()) == 1
    with pytest.raises(errors.TokenCannotConnectError, match="fine-grained"):
        await provider.ensure_running(name, silent)


async def test_a_stopped_emulator(provider, emulator):
    await provider.list()
    emulator.close()
    with pytest.raises(errors.GitHubUnavailableError, match="emulator running"):
        await provider.list()
