"""What a broker does so that the next one can take its kernels back, and how it takes those of the one before."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from codespace_kernels.bridge import UnattendedKernel
from codespace_kernels.broker.kept import KeptKernel
from codespace_kernels.broker.open_requests import request_log
from codespace_kernels.broker.open_requests import tidy as tidy_requests
from codespace_kernels.broker.state import NO_LINK, SavedState, links_folder, load, state_path, to_text
from codespace_kernels.errors import CodespaceKernelsError
from codespace_kernels.ssh.files import replace_file
from codespace_kernels.target import KEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from codespace_kernels.broker.state import SavedKernel, SavedWorkspace
    from codespace_kernels.broker.workspaces import WorkspaceSession
    from codespace_kernels.link.kernel import LinkKernel
    from codespace_kernels.remote_kernel import RemoteKernel

log = logging.getLogger(__name__)

CLAIM_SECONDS = 120.0
"""How long a kernel of the last broker waits for its handle, which comes by itself within moments if it lives."""

SAVE_DELAY = 0.01
"""Seconds that changes are gathered before the state is written."""


@dataclasses.dataclass(frozen=True)
class Unclaimed:
    """A kernel of the last broker whose handle has not come yet.

    Attributes:
        saved: What is known of it.
        session: Of its workspace; None while it has none.
        remote: On the restored link; None where there is none.
    """

    saved: SavedKernel
    session: WorkspaceSession | None
    remote: LinkKernel | None


class StateWriter:
    """Keeps the file on disk up to date, off the event loop.

    Args:
        collect: Gives the state of now.
        path: Of the file.
    """

    def __init__(self, collect: Callable[[], SavedState], path: Path) -> None:
        self._collect = collect
        self._path = path
        self._written = ""
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    def changed(self) -> None:
        """Note that the state may have changed. Cheap."""
        self._changed.set()

    async def run(self) -> None:
        """Write whenever something has changed. Never returns."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SAVE_DELAY)
            await self.flush()

    async def clear(self) -> None:
        """Write that there is nothing, for good."""
        self._collect = SavedState
        await self.flush()

    async def flush(self) -> None:
        """Write now, if there is something to write. A failure is logged: kernels go on without it."""
        async with self._writing:
            self._changed.clear()
            text = to_text(self._collect())
            if text == self._written:
                return
            try:
                await asyncio.to_thread(replace_file, self._path, text.encode())
                self._written = text
            except OSError as error:
                log.warning("the state was not written, and kernels are lost if the broker dies: %s", error)


class Recovery:
    """The kernels of the last broker, until each is claimed by its handle.

    Args:
        session_of: Gives the session of a kernel's workspace.
        keep: Keeps a kernel that nobody holds.

    Attributes:
        notice: What a person should know of what the last broker left; mostly empty.
    """

    def __init__(
        self, session_of: Callable[[SavedKernel], WorkspaceSession], keep: Callable[[KeptKernel], None]
    ) -> None:
        self.notice = ""
        self._session_of = session_of
        self._keep = keep
        self._unclaimed: dict[str, Unclaimed] = {}
        self._claimed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._unclaimed)

    def __iter__(self) -> Iterator[Unclaimed]:
        return iter(list(self._unclaimed.values()))

    def restore(self) -> None:
        """Take over what the last broker left; nothing is asked of anybody yet."""
        state, self.notice = load(state_path())
        _tidy({workspace.link for workspace in state.workspaces})
        tidy_requests({kernel.id for kernel in state.kernels if not kernel.kept})
        for workspace in state.workspaces:
            kernels = [kernel for kernel in state.kernels if _is_in(kernel, workspace)]
            self._restore_workspace(workspace, kernels)
        for kernel in state.kernels:
            if kernel.id not in self._unclaimed and not kernel.kept:
                session = self._session_of(kernel) if kernel.workspace else None
                self._unclaimed[kernel.id] = Unclaimed(kernel, session, None)
        if state.kernels:
            log.info("%d kernels of the last broker are taken over", len(state.kernels))

    def _restore_workspace(self, workspace: SavedWorkspace, kernels: list[SavedKernel]) -> None:
        from codespace_kernels.broker.hosts import LinkHost, restored_link

        linked = [kernel for kernel in kernels if kernel.remote is not None and kernel.remote.number != NO_LINK]
        link, is_new = restored_link(workspace.link)
        if not linked and not any(kernel.starting for kernel in kernels):
            link.forget()
            return
        session = self._session_of(kernels[0])
        for kernel in linked:
            assert kernel.remote is not None
            signing = {"key": kernel.remote.key, "signature_scheme": kernel.remote.signature_scheme}
            remote = link.restore_kernel(kernel.remote.number, kernel.remote.kernel_id, signing)
            if kernel.kept:
                self._keep(_kept(kernel, session, remote))
            else:
                self._unclaimed[kernel.id] = Unclaimed(kernel, session, remote)
        if is_new:
            link.begin_anew()
        session.go_on(LinkHost.restored(link), workspace.repository)

    # -- handles ------------------------------------------------------------------------------------------------------

    def claim(self, kernel_id: str) -> Unclaimed | None:
        """Give the kernel that a handle asks for; None where there is none, or another handle has it."""
        unclaimed = self._unclaimed.pop(kernel_id, None)
        self._claimed.set()
        self._claimed = asyncio.Event()
        return unclaimed

    async def until_claimed(self, kernel_id: str, seconds: float) -> None:
        """Wait until a kernel that waits for its handle has it, or the time is over."""
        deadline = time.monotonic() + seconds
        while kernel_id in self._unclaimed and time.monotonic() < deadline:
            try:
                await asyncio.wait_for(self._claimed.wait(), deadline - time.monotonic())
            except TimeoutError:
                return

    async def give_up_unclaimed(self) -> None:
        """Treat the kernels whose handles did not come in time as those whose front end has gone."""
        await asyncio.sleep(CLAIM_SECONDS)
        for kernel_id in list(self._unclaimed):
            unclaimed = self.claim(kernel_id)
            request_log(kernel_id).remove()  # Who asked is gone.
            if unclaimed is None or unclaimed.session is None:
                continue
            if unclaimed.remote is not None:
                await self._let_go(unclaimed.saved, unclaimed.session, unclaimed.remote)
            elif unclaimed.saved.starting:
                unclaimed.session.run_in_background(_end_started(unclaimed.session, unclaimed.saved.starting))

    async def _let_go(self, saved: SavedKernel, session: WorkspaceSession, remote: LinkKernel) -> None:
        if saved.request.target.on_close == KEEP and saved.notebook:
            self._keep(_kept(saved, session, remote))
        else:
            log.info("kernel %s in %s ends: nobody came for it", saved.id, session.name)
            session.run_in_background(_end(remote))


def _tidy(sessions: set[str]) -> None:
    """Remove the journals that no state names: their broker died before it wrote down that it had them."""
    for path in links_folder().iterdir():
        if path.suffix in {".log", ".marks", ".new"} and path.stem not in sessions:
            path.unlink(missing_ok=True)


def _is_in(kernel: SavedKernel, workspace: SavedWorkspace) -> bool:
    return kernel.workspace == workspace.name and kernel.request.access.account.key == workspace.account.key


def _kept(saved: SavedKernel, session: WorkspaceSession, remote: LinkKernel) -> KeptKernel:
    unattended = UnattendedKernel.restored(remote)
    kept = KeptKernel(saved.id, saved.request, session, saved.notebook, unattended)
    kept.since = saved.since or kept.since
    remote.listen(unattended)
    return kept


async def _end_started(session: WorkspaceSession, kernel_id: str) -> None:
    """End a kernel that the last broker was about to start, if it was started."""
    if session.host is None:
        return
    try:
        remote = await session.host.attach_kernel(kernel_id)
    except CodespaceKernelsError as error:
        log.info("%s: there is no kernel that was being started: %s", session.name, error)
    else:
        await _end(remote)


async def _end(remote: RemoteKernel) -> None:
    try:
        await remote.shutdown()
    except CodespaceKernelsError as error:
        log.warning("a kernel was not ended: %s", error)
    await remote.close()
