"""Checks of one codespace: its state, the tunnel to it, and the SSH server behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from paramiko import PKey

from codespace_kernels.doctor import network
from codespace_kernels.doctor.findings import Check, Finding, Group, fail, note, ok
from codespace_kernels.errors import (
    HostKeyError,
    TunnelError,
    WaitTimeoutError,
    WorkspaceConnectionError,
)
from codespace_kernels.github.models import Codespace, Phase
from codespace_kernels.providers.base import WorkspaceState
from codespace_kernels.providers.github import pin_name
from codespace_kernels.providers.registry import make_provider
from codespace_kernels.ssh.hostkeys import HostKeyPins, PinnedKey
from codespace_kernels.ssh.keys import load_or_create_user_key
from codespace_kernels.ssh.threads import run_blocking
from codespace_kernels.tunnel.codespace import log_in
from codespace_kernels.tunnel.management import TunnelEndpoint, TunnelManagement
from codespace_kernels.tunnel.properties import TunnelProperties
from codespace_kernels.tunnel.tunnel import open_tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.doctor.subject import Subject
    from codespace_kernels.ssh.connection import SshConnection

START_SECONDS = 300.0
_STEP_SECONDS = 10.0
_SFTP_INIT, _SFTP_VERSION = b"\0\0\0\5\1\0\0\0\3", 2
"""SFTP's first packets: https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02#section-4"""


async def state(subject: Subject) -> Finding:
    """Find the codespace and its state; start it where that was asked for."""
    access = subject.access
    provider = make_provider(access.account, env=subject.env, transport=access.transport)
    subject.closing.push_async_callback(provider.close)
    workspace = await provider.resolve(subject.name)
    if workspace.state is not WorkspaceState.RUNNING and subject.may_start:
        workspace = await provider.ensure_running(workspace.name, subject.progress, timeout=START_SECONDS)
    subject.workspace = workspace
    shown = f"{workspace.name} is {workspace.provider_state}"
    if workspace.state is WorkspaceState.RUNNING:
        return ok(shown)
    if workspace.state is WorkspaceState.FAILED:
        return fail(shown, f"Look at its page {workspace.web_url}, or delete it and create another.")
    stopped = workspace.state in (WorkspaceState.STOPPED, WorkspaceState.STOPPING)
    blocks = "the codespace is stopped, and --start was not given" if stopped else "the codespace does not run yet"
    reason = f" ({workspace.stop_notice.rstrip('.')})" if workspace.stop_notice else ""
    fix = (
        "To have it started, which costs what a running codespace costs, add --start." if stopped else "Wait a moment."
    )
    return note(f"{shown}{reason}", fix, blocks=blocks)


async def properties(subject: Subject) -> Finding:
    """Fetch the internal form, which alone says where the tunnel is."""
    assert subject.workspace is not None
    assert subject.token is not None
    path = f"/user/codespaces/{quote(subject.workspace.name, safe='')}"
    params = {"internal": "true", "refresh": "true"}
    response = await subject.api.ask(path, subject.token, params, shown="/user/codespaces/{name}?internal=true")
    sign_in = f"Use a token with the classic scope codespace: `gh auth login -h {subject.host} -s codespace`."
    if response.status_code >= 500:
        return fail(f"GitHub answers {response.status_code} to the question where its tunnel is", sign_in)
    if not response.is_success:
        raise subject.api.refusal(response, f"find codespace {subject.workspace.name}", subject.token)
    subject.internal = subject.api.document(response)
    found = _mapping(_mapping(subject.internal, "connection"), "tunnelProperties")
    if not found:
        if Codespace.from_json(subject.internal).phase is not Phase.READY:
            return fail("it has no tunnel any more", "It was stopped meanwhile: try again.")
        return fail("GitHub shows the codespace, but no tunnel to it", sign_in)
    subject.properties = TunnelProperties.from_json(found)
    return ok(f"complete; cluster {subject.properties.cluster_id}")


async def management(subject: Subject) -> Finding:
    """Ask the tunnel management API for the tunnel and its ports."""
    assert subject.properties is not None
    context = await run_blocking("TLS settings", _STEP_SECONDS, httpx.create_ssl_context)
    client = TunnelManagement(subject.properties, context)
    try:
        subject.description = await client.describe()
    finally:
        await client.close()
    TunnelEndpoint.from_json(subject.description)
    ports = sorted(int(port["portNumber"]) for port in subject.description.get("ports") or [])
    return ok(f"its API answers; ports {', '.join(map(str, ports)) or 'none'}")


async def relay(subject: Subject) -> Finding | Sequence[Finding]:
    """Open the tunnel: the relay's websocket, and the SSH session in it."""
    assert subject.properties is not None
    assert subject.description is not None
    if unreached := await network.unreached(subject, TunnelEndpoint.from_json(subject.description).relay_uri):
        return unreached
    try:
        subject.tunnel = await open_tunnel(subject.properties, subject.progress)
    except HostKeyError as error:
        # The relay has done its part; who is at the other end is the next check's affair.
        subject.tunnel_key_problem = error
        return ok("its websocket opens")
    subject.closing.push_async_callback(subject.tunnel.close)
    return ok("its websocket opens, and the codespace answers")


async def tunnel_key(subject: Subject) -> Finding:
    """Tell whether the tunnel's host showed the key that is published for it."""
    if subject.tunnel_key_problem is not None:
        raise subject.tunnel_key_problem
    assert subject.tunnel is not None
    if not subject.tunnel.verified:
        return note("the tunnel service publishes none: only its TLS and token vouch for the codespace")
    return ok("is the one that the tunnel service publishes")


async def agent(subject: Subject) -> Finding:
    """Call the codespace's services as every connection does first: this counts as use of the codespace."""
    assert subject.tunnel is not None
    try:
        await subject.tunnel.services.notify_activity(["connected"])
    except (TunnelError, WorkspaceConnectionError, WaitTimeoutError) as error:
        return fail(
            f"the codespace's agent does not answer: {str(error).rstrip('.')}",
            "Stop the codespace and start it again; if that does not help, rebuild it.",
        )
    return ok("the codespace's agent answers")


async def ssh_server(subject: Subject) -> Sequence[Finding]:
    """Log in, and tell what can be done in the session."""
    assert subject.tunnel is not None
    assert subject.workspace is not None
    key = await run_blocking("the SSH key", _STEP_SECONDS, load_or_create_user_key)
    pins = HostKeyPins(pin_name(subject.workspace.name, subject.access.account))

    def check(shown: PKey) -> None:
        """Refuse what a connection would refuse, but pin nothing."""
        subject.ssh_key = PinnedKey(subject.name, shown.get_name(), shown.asbytes())
        pinned = pins.pinned()
        if pinned is not None and pinned.key != subject.ssh_key.key and subject.tunnel and not subject.tunnel.verified:
            pins.check(shown)

    session = subject.ssh = await log_in(subject.tunnel, key, check, subject.progress)
    subject.closing.push_async_callback(session.close)
    return [ok(f"a session opens ({session.description})"), *await _abilities(session)]


async def _abilities(session: SshConnection) -> list[Finding]:
    """Tell which of exec, scp and sftp there are. Kernels need the first; files may be brought by the others."""
    done = await session.run("command -v scp", timeout=_STEP_SECONDS)
    if done.exit_status not in (0, 1, 127):
        fix = "Look at the login files of the user there (.profile, .bashrc): they end the shell."
        return [fail(f"commands do not run (exit status {done.exit_status})", fix)]
    able = ["exec", *(["scp"] if done.exit_status == 0 else []), *(["sftp"] if await _has_sftp(session) else [])]
    lacking = [name for name in ("scp", "sftp") if name not in able]
    without = f"; no {', no '.join(lacking)} (kernels need neither)" if lacking else ""
    return [ok(f"it has {', '.join(able)}{without}")]


async def _has_sftp(session: SshConnection) -> bool:
    try:
        stream = await session.open_subsystem("sftp", timeout=_STEP_SECONDS)
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                await stream.write(_SFTP_INIT)
                answer = await stream.read()
        finally:
            stream.close()
    except (WorkspaceConnectionError, WaitTimeoutError, TimeoutError):
        return False
    return len(answer) > 4 and answer[4] == _SFTP_VERSION


async def ssh_key(subject: Subject) -> Finding:
    """Compare the SSH server's key with the one that is pinned."""
    assert subject.workspace is not None
    assert subject.ssh_key is not None
    pinned = HostKeyPins(pin_name(subject.workspace.name, subject.access.account)).pinned()
    if pinned is None:
        return ok(f"{subject.ssh_key.fingerprint}; the first connection pins it")
    if pinned.key != subject.ssh_key.key:
        changed = f"it was {pinned.fingerprint} and is {subject.ssh_key.fingerprint} now"
        return note(f"{changed}, as after a rebuild", "Nothing: the tunnel was verified, so the new one is taken.")
    return ok("is the one that was pinned")


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _check(name: str, title: str, run: Any, *needs: str, seconds: float = 15.0) -> Check:
    return Check(name, title, Group.CODESPACE, run, needs=needs, seconds=seconds)


CHECKS = (
    _check("state", "State", state, "codespaces", "connecting", seconds=START_SECONDS + 30.0),
    _check("properties", "Tunnel's address", properties, "state"),
    _check("tunnel", "Tunnel", management, "properties", "tunnel-hosts", seconds=30.0),
    _check("relay", "Relay", relay, "tunnel", seconds=60.0),
    _check("tunnel-key", "Tunnel's host key", tunnel_key, "relay"),
    _check("agent", "gRPC", agent, "tunnel-key", seconds=45.0),
    _check("ssh", "SSH server", ssh_server, "agent", seconds=60.0),
    _check("ssh-key", "SSH host key", ssh_key, "ssh"),
)
