"""The stop of a workspace that had nothing to do. Nothing is ever deleted here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from codespace_kernels.broker.awake import CaredKernel, Presence, minutes
from codespace_kernels.broker.workspaces import SessionState
from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.providers.base import WorkspaceState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codespace_kernels.broker.workspaces import WorkspaceSession

log = logging.getLogger(__name__)

END_SECONDS = 30.0
"""For idle kernels to end politely; what is left ends with the workspace."""

PAUSES = (0.0, 5.0, 20.0)
"""Seconds before each try to have the provider stop a workspace whose kernels have ended already."""


class EndingKernel(CaredKernel, Protocol):
    """A kernel that can wait for its next run."""

    async def suspend(self, reason: str) -> None:
        """End the process there; whoever runs something next is told why, and given a new one."""


async def stop_idle(session: WorkspaceSession, kernels: Sequence[EndingKernel]) -> bool:
    """Stop a workspace whose time has come, unless it is not running, or somebody uses it after all.

    Args:
        session: Of the workspace.
        kernels: Of it.

    Returns:
        Whether it was stopped.
    """
    if not await _is_unused(session):
        return False
    after, used_at = session.care.idle_stop.minutes, session.care.awake.used_at
    reason = (
        f"Codespace {session.name} was stopped after {minutes(after * 60)} without work, as its kernelspec says "
        "(stop_when_idle), and its kernels ended."
    )
    log.info("%s", reason)
    present = [kernel for kernel in kernels if kernel.presence is not Presence.ABSENT]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await asyncio.gather(*(kernel.suspend(reason) for kernel in present))
    if session.care.awake.used_at != used_at:
        log.info("%s: goes on: somebody came while its kernels ended", session.name)
        return False
    await session.close()
    return await _stop(session)


async def _is_unused(session: WorkspaceSession) -> bool:
    """Ask the provider for the state, and look once more for use by others."""
    assert session.provider is not None
    try:
        workspace = await session.provider.resolve(session.name)
    except CodespaceKernelsError as error:
        log.info("%s: is not stopped, as its state is not known: %s", session.name, error)
        session.care.idle_stop.wait()
        return False
    session.meter.learn(workspace)
    if workspace.state is not WorkspaceState.RUNNING:
        session.care.idle_stop.wait()
        return False
    await session.care.look(session.host)
    return session.care.may_stop and session.state is SessionState.CONNECTED


async def _stop(session: WorkspaceSession) -> bool:
    assert session.provider is not None
    for pause in PAUSES:
        await asyncio.sleep(pause)
        if session.state is not SessionState.IDLE:
            return False  # Somebody runs something in it again.
        try:
            workspace = await session.provider.stop(session.name)
        except CodespaceKernelsError as error:
            log.warning("%s: could not be stopped; GitHub does it one idle timeout later: %s", session.name, error)
        else:
            session.meter.stopped()
            session.meter.learn(workspace)
            session.changed()
            return True
    return False
