"""The broker's state: accounts, workspaces, kernels, and when there is nothing left to do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

from codespace_kernels import __version__
from codespace_kernels.bridge import guessed_kernel_info
from codespace_kernels.broker.accounts import Accounts
from codespace_kernels.broker.care import Care
from codespace_kernels.broker.idle_stop import SETTLE
from codespace_kernels.broker.kept import KeptKernel, KeptKernels, is_same_notebook
from codespace_kernels.broker.kernel_infos import KernelInfos
from codespace_kernels.broker.kernel_place import KernelPlace
from codespace_kernels.broker.kernels import BrokerKernel
from codespace_kernels.broker.ledger import Ledger, key_of, ledger_path
from codespace_kernels.broker.lookout import Lookout
from codespace_kernels.broker.network import NetworkWatch
from codespace_kernels.broker.recipes import Recipes
from codespace_kernels.broker.recovery import Recovery, StateWriter
from codespace_kernels.broker.state import SavedState, state_path
from codespace_kernels.broker.stopping import stop_idle
from codespace_kernels.broker.usage import UsageMeter
from codespace_kernels.broker.watchers import Watchers
from codespace_kernels.broker.workspaces import ACTIVITY_INTERVAL, SessionState, WorkspaceSession
from codespace_kernels.errors import KernelError, KernelNotFoundError
from codespace_kernels.providers.base import WorkspaceState
from codespace_kernels.settings import state_dir
from codespace_kernels.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from codespace_kernels.bridge.takings import Takings
    from codespace_kernels.broker.protocol import Access, KernelRequest
    from codespace_kernels.broker.recovery import Unclaimed
    from codespace_kernels.broker.state import SavedKernel
    from codespace_kernels.progress import Progress
    from codespace_kernels.recipe import Recipe
    from codespace_kernels.remote_kernel import RemoteKernelSpec
    from codespace_kernels.target import Account


class Broker:
    """Everything that one user's front ends share.

    Args:
        idle_timeout: Seconds without a request, a handle or a kernel after which `idle` is set.
        activity_interval: Seconds between the notices that keep a workspace with a busy kernel awake.
        accounts: Makes providers; by default from the registry.
        takings: Where it is noted what is handed to front ends; None for nowhere.
    """

    def __init__(
        self,
        *,
        idle_timeout: float = 600.0,
        activity_interval: float = ACTIVITY_INTERVAL,
        accounts: Accounts | None = None,
        takings: Takings | None = None,
    ) -> None:
        self._takings = takings
        self.idle = asyncio.Event()
        self.started_at = time.time()
        self.kernels: dict[str, BrokerKernel] = {}
        self.hands_over = False
        self.watchers = Watchers(self.status)
        self.kept = KeptKernels(lambda kernel: self._forget_session(kernel.session))
        self.sessions: dict[tuple[str, str], WorkspaceSession] = {}
        self._recipes = Recipes()
        self._accounts = accounts or Accounts()
        self._infos = KernelInfos(state_dir() / "kernel-infos.json")
        self._ledger = Ledger(ledger_path())
        self.lookout = Lookout(
            self._ledger, lambda: self.sessions.values(), lambda: len(self.watchers) > 0, self._stop_idle
        )
        self.network = NetworkWatch(self._is_connected, self._look_again)
        self.recovery = Recovery(self._session_of_saved, self.kept.add)
        self._state = StateWriter(self._saved, state_path())
        self._idle_timeout = idle_timeout
        self._activity_interval = activity_interval
        self._requests = 0
        self._last_use = time.monotonic()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the broker alive while a request runs."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._last_use = time.monotonic()

    async def watch_idleness(self) -> None:
        """Set `idle` when nothing has used the broker for its idle timeout. Never returns.

        It is used as long as a kernel is kept, or a workspace is to be stopped when it was idle for long enough.
        """
        while True:
            await asyncio.sleep(min(1.0, self._idle_timeout / 4))
            if self._watched() or any(session.care.idle_stop.at for session in self.sessions.values()):
                self._last_use = time.monotonic()
            needed = self._requests or self.kept or self.recovery
            if not needed and time.monotonic() - self._last_use > self._idle_timeout:
                self.idle.set()

    def _watched(self) -> bool:
        """Tell whether somebody watches something that runs: that ends by itself, at the workspace's idle timeout."""
        return len(self.watchers) > 0 and any(s.state is not SessionState.IDLE for s in self.sessions.values())

    def _is_connected(self) -> bool:
        return any(s.state in (SessionState.CONNECTED, SessionState.RECONNECTING) for s in self.sessions.values())

    def _look_again(self, _noticed: str) -> None:
        for session in self.sessions.values():
            session.look_again()

    def session(self, access: Access, workspace: str) -> WorkspaceSession:
        """Give the session of a workspace, the same one for all that use it."""
        key = (access.account.key, workspace)
        if key not in self.sessions:
            meter = UsageMeter(self._ledger, key_of(access.account, workspace))
            settle = min(SETTLE, 2 * self._activity_interval)
            self.sessions[key] = WorkspaceSession(
                access.account,
                workspace,
                meter,
                care=Care(workspace, meter, lambda: self._kernels_of(key), settle=settle),
                needed=lambda: self._is_needed(key),
                lost=lambda reason: self._workspace_lost(key, reason),
                changed=self._changed,
                activity_interval=self._activity_interval,
            )
            # So that it can be told how a workspace fares that nobody needed yet.
            self.sessions[key].provider = self._accounts.provider(access)
        return self.sessions[key]

    def _changed(self) -> None:
        self.watchers.changed()
        self._state.changed()

    # -- for the next broker ------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take over the kernels of a broker that died, and see to it that the next one can do so. Never returns."""
        self.recovery.restore()
        await asyncio.gather(self._state.run(), self.recovery.give_up_unclaimed())

    def _session_of_saved(self, kernel: SavedKernel) -> WorkspaceSession:
        return self.session(kernel.request.access, kernel.workspace)

    def _saved(self) -> SavedState:
        held = [kernel for kernel in (one.saved() for one in self.kernels.values()) if kernel is not None]
        waiting = [unclaimed.saved for unclaimed in self.recovery]
        workspaces = [saved for session in self.sessions.values() if (saved := session.saved()) is not None]
        return SavedState(tuple(workspaces), (*held, *waiting, *(kernel.saved() for kernel in self.kept)))

    async def forget(self) -> None:
        """Leave nothing for the next broker: what this one has ends with it."""
        await self._state.clear()

    def hand_over(self) -> None:
        """Have this broker end without ending a kernel."""
        self.hands_over = True
        self.idle.set()

    async def leave(self) -> None:
        """Let go of everything without ending a kernel: another broker goes on with them."""
        self.watchers.close()
        await self._state.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*(kernel.leave() for kernel in self.kernels.values()), return_exceptions=True)
                await asyncio.gather(*(session.leave() for session in self.sessions.values()), return_exceptions=True)
        await self.lookout.save()

    def _kernels_of(self, key: tuple[str, str]) -> list[BrokerKernel | KeptKernel]:
        session = self.sessions.get(key)
        kernels = (*self.kernels.values(), *self.kept)
        return [kernel for kernel in kernels if session is not None and kernel.session is session]

    def _is_needed(self, key: tuple[str, str]) -> bool:
        unclaimed = (one.session for one in self.recovery)
        return any(kernel.alive for kernel in self._kernels_of(key)) or self.sessions.get(key) in unclaimed

    def _workspace_lost(self, key: tuple[str, str], reason: str) -> None:
        session = self.sessions.get(key)
        cause = session.care.why_stopped() if session is not None and session.meter.was_stopped else ""
        for kernel in self._kernels_of(key):
            kernel.workspace_lost(f"{reason} {cause}".rstrip())

    async def find(
        self, access: Access, recipe: Recipe, *, create: bool, join: bool, progress: Progress
    ) -> dict[str, Any]:
        """Find a workspace of a recipe: `workspace` (None where there is none), `created`, and how many `others` fit.

        Args:
            access: Whose.
            recipe: What it is like.
            create: Whether one is made where there is none and the recipe allows it.
            join: Whether the end of a creation that is under way is waited for.
            progress: Hears of the steps.

        Raises:
            CodespaceKernelsError: It cannot be looked for, or not be made; says why.
        """
        provider = self._accounts.provider(access)
        if create and recipe.may_create:
            return (await self._recipes.have(access.account, provider, recipe, progress)).to_json()
        found = await self._recipes.find(access.account, provider, recipe, progress, join=join)
        return found.to_json() if found is not None else {"workspace": None, "created": False, "others": 0}

    async def connect(
        self, access: Access, name: str, *, start: bool, install_ipykernel: str, progress: Progress
    ) -> dict[str, Any]:
        """Connect to a workspace and tell what is there: `workspace`, `connection`, `offers`, `kernelspecs`.

        Args:
            access: Whose.
            name: Name, title or repository.
            start: Whether a stopped one is started.
            install_ipykernel: Path of a Python there that is to get a kernel first; empty for none.
            progress: Hears of the steps.

        Raises:
            CodespaceKernelsError: It cannot be had; says why.
        """
        provider = self._accounts.provider(access)
        workspace = await provider.resolve(name)
        session = self.session(access, workspace.name)
        host = await session.connected(provider, progress, start=start)
        session.care.used()
        if install_ipykernel:
            await host.install_ipykernel(install_ipykernel, progress)
        specs = await host.kernelspecs()
        await self._learn(access.account, workspace.name, specs)
        if workspace.state is not WorkspaceState.RUNNING:
            # It was started since it was looked up.
            workspace = session.meter.workspace or workspace
        return {
            "workspace": {**workspace.to_json(), "state": WorkspaceState.RUNNING.value},
            "connection": host.description,
            "offers": host.offers,
            "kernelspecs": {name: spec.to_json() for name, spec in specs.items()},
        }

    async def _learn(self, account: Account, workspace: str, specs: Mapping[str, RemoteKernelSpec]) -> None:
        """Remember what is known of kernels that may never have run: front ends ask for it before one does."""
        news = [
            self._infos.put_guess(
                Target(account, workspace, name), guessed_kernel_info(spec.language, workspace, spec.versions)
            )
            for name, spec in specs.items()
            if spec.versions
        ]
        if any(news):
            await asyncio.to_thread(self._infos.save, self._infos.to_text())

    async def disconnect(self, access: Access, name: str) -> dict[str, Any]:
        """Give up the connection to a workspace; its kernels end."""
        reason = f"The connection to {name} was given up from the command line; its kernels ended."
        return {"disconnected": await self._disconnect(access, name, reason)}

    async def stop(self, access: Access, name: str, *, end_kernels: bool) -> dict[str, Any]:
        """Stop a workspace and tell what became of it: `workspace`, `stopped` (false: it was already) and `kernels`.

        Args:
            access: Whose.
            name: Name, title or repository.
            end_kernels: Whether kernels that run there may end. They are told why, before it is stopped.

        Raises:
            KernelError: Kernels run there, and may not end; names them.
            CodespaceKernelsError: It cannot be stopped; says why.
        """
        provider = self._accounts.provider(access)
        workspace = await provider.resolve(name)
        session = self.session(access, workspace.name)
        try:
            kernels = self._living_kernels(session)
            if workspace.state is WorkspaceState.STOPPED:
                session.meter.learn(workspace)
                return {"workspace": workspace.to_json(), "stopped": False, "kernels": []}
            if kernels and not end_kernels:
                raise KernelError(_refusal(workspace.name, kernels))
            # First, so that kernels end politely and nobody tries to mend the connection.
            reason = f"Codespace {workspace.name} was stopped from this computer; its kernels ended."
            await self._disconnect(access, workspace.name, reason)
            workspace = await provider.stop(workspace.name)
            session.meter.stopped()
            session.meter.learn(workspace)
            session.changed()
            await self.lookout.save()
        finally:
            self._forget_session(session)
        return {"workspace": workspace.to_json(), "stopped": True, "kernels": kernels}

    async def _stop_idle(self, session: WorkspaceSession) -> None:
        if await stop_idle(session, self._kernels_of((session.account.key, session.name))):
            await self.lookout.save()
        self._forget_session(session)

    def _living_kernels(self, session: WorkspaceSession) -> list[dict[str, Any]]:
        kernels = self._kernels_of((session.account.key, session.name))
        return [kernel.to_json() for kernel in kernels if kernel.alive]

    async def _disconnect(self, access: Access, name: str, reason: str) -> bool:
        key = (access.account.key, name)
        session = self.sessions.get(key)
        if session is None:
            return False
        for kernel in self._kernels_of(key):
            await self._end(kernel, reason)
        await session.close()
        # Kept as long as front ends hold kernels of it: they may restart them.
        self._forget_session(session)
        return True

    async def _end(self, kernel: BrokerKernel | KeptKernel, reason: str = "") -> None:
        if isinstance(kernel, KeptKernel):
            await self.kept.end(kernel)
        else:
            await kernel.shutdown(reason)

    async def end_kernel(self, kernel_id: str) -> dict[str, Any]:
        """End a kernel, held or kept; give what was known of it.

        Raises:
            KernelNotFoundError: There is none of that id.
        """
        kernel = self.kept.get(kernel_id) or self.kernel(kernel_id)
        await self._end(kernel)
        return kernel.to_json()

    def add_kernel(self, request: KernelRequest, emit: Callable[[dict[str, Any]], None]) -> BrokerKernel:
        """Make a kernel for a handle; the caller starts and ends it."""
        if (kept := self.kept.get(request.take)) is not None:
            request = dataclasses.replace(request, target=kept.request.target, session=kept.notebook)
        kernel = BrokerKernel(request, self._place(request), emit, self._infos, self.kept, takings=self._takings)
        self.kernels[kernel.kernel_id] = kernel
        kernel.person_acted()
        self._changed()
        return kernel

    def take_back(
        self, request: KernelRequest, emit: Callable[[dict[str, Any]], None]
    ) -> tuple[BrokerKernel, Unclaimed]:
        """Make a kernel again that a broker before this one had, for its handle; the caller resumes and ends it.

        Raises:
            KernelNotFoundError: Nobody left such a kernel.
        """
        unclaimed = self.recovery.claim(request.resume)
        if unclaimed is None:
            raise KernelNotFoundError(
                "The broker was started anew, and nothing is known of this kernel. Restart the kernel."
            )
        target = unclaimed.saved.request.target
        request = dataclasses.replace(request, target=target, ports=unclaimed.saved.request.ports)
        place = self._place(request)
        if unclaimed.session is not None:
            place.move(unclaimed.session)
            unclaimed.session.lend(self._accounts.provider(request.access))
        kernel = BrokerKernel(request, place, emit, self._infos, self.kept, unclaimed.saved.id, self._takings)
        self.kernels[kernel.kernel_id] = kernel
        # Nobody wrote down when a person did something last.
        kernel.person_acted()
        self._changed()
        return kernel, unclaimed

    def _place(self, request: KernelRequest) -> KernelPlace:
        return KernelPlace(
            request.target,
            self._accounts.provider(request.access),
            self._recipes,
            session_of=lambda name: self.session(request.access, name),
            left=self._forget_session,
            changed=self._changed,
            shown=self.watchers.changed,
        )

    async def remove_kernel(self, kernel: BrokerKernel) -> None:
        """Keep or end a kernel whose handle is gone."""
        try:
            if (kept := await kernel.release()) is not None:
                # Before the sockets close: the notebook may be back at once, and must find it.
                await self._keep(kept)
            await kernel.end()
        finally:
            self.kernels.pop(kernel.kernel_id, None)
            if kernel.session is not None:
                self._forget_session(kernel.session)

    async def _keep(self, kernel: KeptKernel) -> None:
        target, notebook = kernel.request.target, kernel.notebook
        others = (other for other in self.kernels.values() if other.kernel_id != kernel.kernel_id)
        # Its notebook may have another kernel by now: then this one was restarted, or it is an older one.
        if any(is_same_notebook(other.notebook, notebook) and other.request.target == target for other in others):
            await kernel.end()
            return
        if (older := self.kept.find(target, notebook)) is not None:
            await self.kept.end(older)
        self.kept.add(kernel)

    def _forget_session(self, session: WorkspaceSession) -> None:
        """Drop a session that is of no use any more: without a connection and without a kernel."""
        users = (kernel.session for kernel in (*self.kernels.values(), *self.kept, *self.recovery))
        unused = session.state is SessionState.IDLE and all(other is not session for other in users)
        if unused:
            self.sessions = {key: other for key, other in self.sessions.items() if other is not session}
        self._changed()

    def kernel(self, kernel_id: str) -> BrokerKernel:
        """Find a kernel.

        Raises:
            KernelNotFoundError: There is none of that id.
        """
        try:
            return self.kernels[kernel_id]
        except KeyError:
            raise KernelNotFoundError(f"The broker holds no kernel {kernel_id}. Restart it in the notebook.") from None

    def about(self) -> dict[str, Any]:
        """Tell who answers here."""
        return {
            "product": "codespace-kernels",
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "idle_timeout": self._idle_timeout,
        }

    def status(self) -> dict[str, Any]:
        """Tell what is connected and what each kernel is doing."""
        return {
            "broker": {**self.about(), "notice": self.recovery.notice, "unclaimed": len(self.recovery)},
            "workspaces": [session.to_json() for session in self.sessions.values()],
            "kernels": [kernel.to_json() for kernel in (*self.kernels.values(), *self.kept)],
        }

    async def close(self) -> None:
        """End every kernel and every connection, each in bounded time."""
        self.watchers.close()
        for kernel in self.kernels.values():
            kernel.say_end("The broker ended. Restart the kernel; the reason is in the broker's log.")
        ends = [kernel.end() for kernel in self.kernels.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                await asyncio.gather(*ends, self.kept.close(), self._recipes.close(), return_exceptions=True)
        self.kernels.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*(s.close() for s in self.sessions.values()), return_exceptions=True)
                await self._accounts.close()
        await self.lookout.save()


def _refusal(workspace: str, kernels: list[dict[str, Any]]) -> str:
    named = ", ".join(f"{kernel['kernel']} ({kernel['state']}) {kernel['session']}".rstrip() for kernel in kernels)
    count = f"{len(kernels)} kernel{'s' if len(kernels) > 1 else ''}"
    return f"Stopping {workspace} ends {count}: {named}. Say that this may be, or end them first."
