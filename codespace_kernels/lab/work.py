"""What a page may have done that takes a while; each function is the work of a job (see `jobs`)."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from codespace_kernels.broker.client import BrokerClient
from codespace_kernels.broker.protocol import Access
from codespace_kernels.build_steps import follow_build
from codespace_kernels.errors import (
    CodespaceKernelsError,
    SettingsError,
    WaitTimeoutError,
    WorkspaceConnectionError,
    naming,
)
from codespace_kernels.github.keyrings import in_daemon_thread
from codespace_kernels.lab.broker_calls import stream
from codespace_kernels.progress import ProgressEvent

if TYPE_CHECKING:
    from codespace_kernels.lab.jobs import Job
    from codespace_kernels.providers.base import CreateRequest, Provider, Workspace

log = logging.getLogger(__name__)

NAME_SECONDS = 30.0
"""For GitHub to list the codespace of a creation that is cancelled."""

NAME_PAUSE = 0.5

BUILD_SECONDS = 3600.0
"""For a new codespace to run: GitHub cancels a build after an hour."""


def access() -> Access:
    """Give whose codespaces the server's environment means, as for the command line.

    Raises:
        SettingsError: The address in the environment cannot be used.
    """
    from codespace_kernels.github import account_from_environment

    return Access.of(account_from_environment(os.environ), os.environ)


async def connect(job: Job, name: str, install_ipykernel: str = "") -> dict[str, Any]:
    """Connect to a codespace, starting it where it is stopped, and tell of its kernels."""
    job.progress(ProgressEvent("find", f"Connecting to {name}"))
    job.tell(workspace=name)
    body = {"workspace": name, "start": True, "install_ipykernel": install_ipykernel, "access": access().to_json()}
    answer = await stream("workspaces/connect", body, job.progress)
    job.kept = answer
    kernels = [
        {key: spec[key] for key in ("name", "display_name", "language")} for spec in answer["kernelspecs"].values()
    ]
    return {
        "workspace": answer["workspace"],
        "connection": answer["connection"],
        "offers": answer["offers"],
        "kernels": kernels,
    }


async def create(job: Job, request: CreateRequest) -> dict[str, Any]:
    """Create a codespace, wait for its build, then go on as `connect`."""
    from codespace_kernels.cli.options import open_provider

    async with open_provider(access()) as provider:
        before = {workspace.name for workspace in await provider.list()}
        creation = asyncio.create_task(provider.create(request, job.progress))
        try:
            workspace = await asyncio.shield(creation)
        except asyncio.CancelledError:
            await _name_what_is_left(job, provider, creation, before)
            raise
        job.tell(workspace=workspace.name)
        with naming(workspace.name, f"Codespace {workspace.name} was created, and is kept."):
            await provider.ensure_running(workspace.name, job.progress, timeout=BUILD_SECONDS)
            await _follow_build(job, provider, workspace.name)
    return await connect(job, workspace.name)


async def _name_what_is_left(job: Job, provider: Provider, creation: asyncio.Task[Workspace], before: set[str]) -> None:
    """End a creation; where GitHub was asked already, find out what it makes: a person must know the name."""
    asked = bool(job.steps) and job.steps[-1]["stage"] == "create"
    job.progress(ProgressEvent("cancel", "Cancelling"))
    try:
        async with asyncio.timeout(NAME_SECONDS):
            while asked:
                made = {workspace.name for workspace in await provider.list()} - before
                if made or creation.done():
                    job.tell(workspace=" ".join(made))
                    break
                await asyncio.sleep(NAME_PAUSE)
    except (CodespaceKernelsError, TimeoutError):
        job.tell(unnamed=True)
    creation.cancel()
    await asyncio.gather(creation, return_exceptions=True)


async def _follow_build(job: Job, provider: Provider, name: str) -> None:
    """Tell of the last steps of a build, which go on while the codespace can be connected to already."""
    try:
        connection = await provider.connect(name, job.progress)
        async for step in follow_build(connection):
            job.progress(ProgressEvent(f"build {step.name}", f"Build: {step.name} ({step.status})"))
    except (WorkspaceConnectionError, WaitTimeoutError) as error:
        # The codespace is there; only the rest of its build is not seen.
        log.info("%s: the build is not seen: %s", name, error)


async def stop(job: Job, name: str) -> dict[str, Any]:
    """End a codespace's kernels and stop it, by the broker that is connected to it."""
    from codespace_kernels.cli.disconnect import TIMEOUT

    job.tell(workspace=name)
    job.progress(ProgressEvent("stop", f"Stopping {name}"))
    body = {"access": access().to_json(), "workspace": name, "end_kernels": True}
    done = await in_daemon_thread(lambda: BrokerClient().call("POST", "workspaces/stop", body, timeout=TIMEOUT))
    return {"workspace": done["workspace"]}


async def login(job: Job) -> dict[str, Any]:
    """Sign in by GitHub's device flow; the code that a person must enter is told meanwhile."""
    from codespace_kernels.cli.login import CLIENT_ID, SCOPE
    from codespace_kernels.github.device_flow import DeviceFlow
    from codespace_kernels.github.sign_in import SignIns

    client_id = os.environ.get(CLIENT_ID, "").strip()
    if not client_id:
        raise SettingsError(
            f"Run `codespace-kernels login` or `gh auth login -s {SCOPE}` in a terminal, then try again. Signing in "
            f"from here needs the client id of an app in {CLIENT_ID} (docs/sign-in.md says how to get one)."
        )
    api_url = access().account.api_url
    flow = DeviceFlow(api_url, client_id)
    try:
        code = await flow.begin()
        job.tell(user_code=code.user_code, verification_uri=code.verification_uri, expires_in=code.expires_in)
        job.progress(ProgressEvent("sign-in", f"Waiting for the code {code.user_code} to be entered"))
        token = await flow.wait(code)
    finally:
        await flow.close()
    await SignIns(api_url).save(token, in_file=False)
    return {}
