from __future__ import annotations

import asyncio
import dataclasses

import httpx
import pytest

from codespace_kernels import errors
from codespace_kernels.github import Codespace, CodespacesApi, ConnectableWait, GitHubClient, Pace, wait_until_created
from codespace_kernels.progress import silent
from codespace_kernels.target import Account

from .conftest import CANARY, Script, Tokens, answer, client_for
from .test_models import TUNNEL

FAST = Pace(first=0.001, factor=1.0, longest=0.001, without_tunnel=60, creation=60)
IMPATIENT = dataclasses.replace(FAST, without_tunnel=0.05, creation=0.2)


class FakeCodespace:
    """Goes through the given looks; each is a state, or a whole answer. The last one stays."""

    def __init__(self, *looks, start=None):
        self.looks = list(looks)
        self.start_answer = start or answer(200)
        self.starts = 0

    def __call__(self, request):
        if request.method == "POST":
            self.starts += 1
            return self.start_answer
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return look if not isinstance(look, str) else answer(200, self.document(look))

    def document(self, state):
        connection = {"tunnelProperties": TUNNEL} if state == "Available" else None
        return {"name": "hello", "state": state, "connection": connection, "web_url": "https://web/"}


async def wait_for(fake, *, token=CANARY, progress=silent, **options):
    async with client_for(Script(fake), token) as client:
        options = {"pace": FAST, "timeout": 60.0, **options}
        return await ConnectableWait(CodespacesApi(client), "hello", progress, **options).run()


async def test_an_available_codespace_is_taken_at_once():
    fake = FakeCodespace("Available")
    codespace = await wait_for(fake)
    assert codespace.tunnel is not None
    assert fake.starts == 0


async def test_start_is_sent_once_for_each_visit_of_shutdown():
    fake = FakeCodespace("ShuttingDown", "Shutdown", "Shutdown", "Starting", "Shutdown", "Provisioning", "Available")
    await wait_for(fake)
    assert fake.starts == 2


@pytest.mark.parametrize("state", ["Created", "Queued", "Provisioning", "Awaiting", "Starting", "Rebuilding", "Later"])
async def test_passing_states_are_waited_for_without_a_start(state):
    fake = FakeCodespace(state, state, "Available")
    await wait_for(fake)
    assert fake.starts == 0


async def test_a_conflict_at_start_is_fine():
    await wait_for(FakeCodespace("Shutdown", "Starting", "Available", start=answer(409)))


async def test_progress_tells_the_state():
    events = []
    states = ("ShuttingDown", "Shutdown", "Queued", "Provisioning", "Starting", available(None), "Available")
    await wait_for(FakeCodespace(*states), progress=events.append)
    assert [(event.stage, event.message) for event in events] == [
        ("stop", "Waiting for codespace hello to stop before it can start (ShuttingDown)"),
        ("queue", "Starting codespace hello"),
        ("queue", "Starting codespace hello (Queued)"),
        ("build", "Preparing codespace hello (Provisioning)"),
        ("start", "Starting codespace hello (Starting)"),
        ("start", "Starting codespace hello (Available, its tunnel is not there yet)"),
    ]


async def test_progress_tells_of_another_operation():
    events = []
    await wait_for(FakeCodespace("Rebuilding", "Available"), progress=events.append)
    assert [(event.stage, event.message) for event in events] == [("busy", "Waiting for codespace hello (Rebuilding)")]


@pytest.mark.parametrize("state", ["Failed", "Unavailable", "Deleted", "Moved", "Archived", "Unknown"])
async def test_terminal_states_end_the_wait_at_once(state):
    fake = FakeCodespace(state)
    with pytest.raises(errors.WorkspaceFailedError, match=f"its state is {state}") as caught:
        await wait_for(fake)
    assert caught.value.url == "https://web/"
    assert fake.starts == 0


@pytest.mark.parametrize("state", ["Shutdown", "ShuttingDown"])
async def test_a_stopped_codespace_is_not_started_against_the_caller_s_will(state):
    fake = FakeCodespace(state)
    with pytest.raises(errors.WorkspaceStoppedError, match="hello is stop"):
        await wait_for(fake, start=False)
    assert fake.starts == 0


async def test_a_pending_operation_ends_the_wait():
    look = answer(200, {"name": "hello", "state": "Shutdown", "pending_operation": True})
    with pytest.raises(errors.PendingOperationError):
        await wait_for(FakeCodespace(look))


async def test_payment_required_at_start():
    with pytest.raises(errors.PaymentRequiredError):
        await wait_for(FakeCodespace("Shutdown", start=answer(402, {"message": "no money"})))


async def test_the_wait_is_bounded_and_names_the_last_state():
    with pytest.raises(errors.WaitTimeoutError, match=r"1\.5 s .*last state: Provisioning"):
        await wait_for(FakeCodespace("Provisioning"), timeout=1.5)


async def test_a_github_that_does_not_answer_is_bounded_too():
    async def never(request):
        await asyncio.sleep(60)

    async with GitHubClient(Account(), Tokens(), transport=httpx.MockTransport(never)) as client:
        with pytest.raises(errors.WaitTimeoutError, match="not known yet"):
            await ConnectableWait(CodespacesApi(client), "hello", silent, timeout=0.1).run()


def available(connection):
    return answer(200, {"name": "hello", "state": "Available", "connection": connection})


async def test_a_tunnel_that_comes_late_is_waited_for():
    partial = available({"tunnelProperties": {**TUNNEL, "domain": ""}})
    assert (await wait_for(FakeCodespace(available(None), partial, "Available"))).tunnel


@pytest.mark.parametrize("connection", [None, {}, {"tunnelProperties": {"tunnelId": "t"}}])
async def test_a_tunnel_that_never_comes(connection):
    with pytest.raises(errors.TokenCannotConnectError, match="classic scope codespace") as caught:
        await wait_for(FakeCodespace(available(connection)), pace=IMPATIENT)
    assert "GH_TOKEN" in str(caught.value)


async def test_a_fine_grained_token_is_told_at_once():
    script = Script(available(None))
    async with client_for(script, "github_pat_CANARY") as client:
        with pytest.raises(errors.TokenCannotConnectError, match="fine-grained token") as caught:
            await ConnectableWait(CodespacesApi(client), "hello", silent).run()
    assert len(script.requests) == 1
    assert "CANARY" not in str(caught.value)


async def test_the_internal_form_fails_for_a_fine_grained_token():
    with pytest.raises(errors.TokenCannotConnectError):
        await wait_for(FakeCodespace(answer(500)), token="github_pat_x")
    with pytest.raises(errors.GitHubUnavailableError):
        await wait_for(FakeCodespace(answer(500)))


async def created(*looks, state="Queued", pace=FAST):
    codespace = Codespace.from_json({"name": "hello", "state": state})
    async with client_for(Script(FakeCodespace(*looks))) as client:
        return await wait_until_created(CodespacesApi(client), codespace, silent, pace)


async def test_a_creation_is_followed_until_it_is_under_way():
    assert (await created(answer(404), "Queued", "Created", "Provisioning")).state_text == "Provisioning"
    assert (await created("never asked", state="Available")).state_text == "Available"


async def test_a_creation_that_fails():
    with pytest.raises(errors.WorkspaceFailedError):
        await created("Queued", "Failed")


async def test_a_creation_that_never_shows():
    with pytest.raises(errors.WaitTimeoutError, match="creation of codespace hello"):
        await created(answer(404), pace=IMPATIENT)
