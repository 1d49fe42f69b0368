"""One kernel as the broker holds it: local sockets, the remote kernel behind them, and the handle that keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from codespace_kernels.bridge import KernelBridge, Ports, WaitingState, guessed_kernel_info
from codespace_kernels.broker.awake import Presence
from codespace_kernels.broker.connection_files import remove_left_over
from codespace_kernels.broker.kept import KeptKernel
from codespace_kernels.broker.kernel_place import May
from codespace_kernels.broker.kernel_start import KernelStart
from codespace_kernels.broker.open_requests import left_behind, request_log
from codespace_kernels.broker.protocol import SHUT_DOWN
from codespace_kernels.broker.state import NO_LINK, SavedKernel, saved_remote, saved_requests, without_tokens
from codespace_kernels.errors import CodespaceKernelsError, KernelError, KernelNotFoundError, SettingsError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.remote_kernel import KernelState
from codespace_kernels.target import KEEP, NEVER, ON_OPEN
from codespace_kernels.zmtp.curve import CurveKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from codespace_kernels.bridge.takings import Takings
    from codespace_kernels.broker.kept import KeptKernels
    from codespace_kernels.broker.kernel_infos import KernelInfos
    from codespace_kernels.broker.kernel_place import KernelPlace
    from codespace_kernels.broker.protocol import KernelRequest
    from codespace_kernels.broker.recovery import Unclaimed
    from codespace_kernels.broker.workspaces import WorkspaceSession
    from codespace_kernels.remote_kernel import RemoteKernel

log = logging.getLogger(__name__)

BIND_SECONDS = 10.0
"""How long the ports of a broker that died may stay taken."""

NAME_SECONDS = 20.0
"""How long a launcher's front end may take to name its notebook, where a kernel is kept that may be that notebook's."""

NO_LINK_GAP = "The broker was started anew, and what a Jupyter server that is not ours said meanwhile was lost."


class BrokerKernel:
    """A kernel from a handle's request to its end.

    Args:
        request: What the front end wants.
        place: Where it runs.
        emit: Takes each event for the handle's stream.
        infos: What kernels said of themselves.
        kept: The kernels that nobody holds.
        kernel_id: Of a kernel that another broker had; a new one where None.
        takings: Where it is noted what is handed to front ends.
    """

    def __init__(
        self,
        request: KernelRequest,
        place: KernelPlace,
        emit: Callable[[dict[str, Any]], None],
        infos: KernelInfos,
        kept: KeptKernels,
        kernel_id: str | None = None,
        takings: Takings | None = None,
    ) -> None:
        self._takings = takings
        self.kernel_id = kernel_id or str(uuid.uuid4())
        self.request = request
        self.state = "waiting"
        self.since = time.time()
        self.notebook = request.session
        self._place = place
        self._emit = emit
        self._bridge: KernelBridge | None = None
        self._remote: RemoteKernel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._out_of_reach = asyncio.Event()
        self._lost_reason = ""
        self._infos = infos
        self._kept = kept
        self._named = asyncio.Event()
        self._may_take_back = True
        self._start: KernelStart | None = None
        self._requests = request_log(self.kernel_id)
        self._starting = ""
        self._leaving = False

    @property
    def session(self) -> WorkspaceSession | None:
        """Of its workspace; None while that is not known."""
        return self._place.session

    @property
    def alive(self) -> bool:
        """Whether there is a kernel, or one is being waited for."""
        return self.state not in {"dead", "ended"}

    @property
    def held(self) -> bool:
        """By a front end."""
        return True

    @property
    def presence(self) -> Presence:
        """What it is to its workspace now."""
        if self._start is not None and self._start.under_way:
            return Presence.UNKNOWN
        if self._remote is None or not self.alive:
            return Presence.ABSENT
        return {"idle": Presence.IDLE, "busy": Presence.BUSY}.get(self.state, Presence.UNKNOWN)

    def tell(self, text: str) -> None:
        """Say something in the cell that runs, and in the front end's log."""
        if self._bridge is not None:
            self._bridge.tell_running(text)
        self._emit({"event": "notice", "message": text})

    async def start(self) -> None:
        """Bind the local sockets, then start the remote kernel behind them, unless its workspace has to start first.

        Raises:
            CodespaceKernelsError: It did not start; nothing is left of it.
        """
        try:
            self._start = self._make_start(await self._bind())
            await self._start.launch(self._may_at_open, may_stand_in=not self.request.runs_at_once)
            self._emit({"event": "ready", "connection_info": self.connection_info()})
        except BaseException:
            await self.end()
            raise

    async def resume(self, unclaimed: Unclaimed) -> None:
        """Bind the same local sockets as another broker, and go on with the kernel that it had.

        Raises:
            CodespaceKernelsError: It cannot be had; the kernel is ended.
        """
        saved = unclaimed.saved
        self.notebook = saved.notebook
        self._remote = unclaimed.remote
        try:
            bridge = await self._bind_again()
            self._start = self._make_start(bridge)
            self._starting = saved.starting
            await self._go_on(bridge, saved)
            self._emit({"event": "ready", "connection_info": self.connection_info()})
            if saved.dead:
                self._died("The kernel was dead when the broker was replaced. Restart it.")
        except Exception:
            # Not where it is cancelled: whose front end has gone in the meantime may be kept.
            await self.end()
            raise

    async def _go_on(self, bridge: KernelBridge, saved: SavedKernel) -> None:
        waiting = [request.read() for request in saved.waiting]
        if self._remote is None and saved.remote is not None:
            _, host = await self._place.connected(May.CONNECT, self._progress)
            self._remote = await host.attach_kernel(saved.remote.kernel_id)
        if self._remote is not None:
            self._become("reconnecting")
            self._out_of_reach.set()
            bridge.resume(self._remote, left_behind(self._requests, self.kernel_id))
            if saved.remote is not None and saved.remote.number == NO_LINK:
                bridge.output_may_be_missing(NO_LINK_GAP)
            bridge.repeat(waiting)
        elif not saved.dead:
            assert self._start is not None
            bridge.repeat(waiting)
            await self._start.launch(self._may_at_open)

    async def _bind(self) -> KernelBridge:
        request = self.request
        ports = Ports.from_connection_info(request.ports) if request.ports else None
        self._bridge = await KernelBridge.bind(
            key=request.key.encode(),
            signature_scheme=request.signature_scheme,
            ports=ports,
            ip=request.ip,
            owner=self,
            in_terminal=request.in_terminal,
            replaces_output=request.replaces_output,
            curve=_curve_keys(request),
            requests=self._requests,
            takings=self._takings,
        )
        self._bridge.waiting.changed = self._place.changed
        self._emit({"event": "bound", "kernel_id": self.kernel_id, "connection_info": self.connection_info()})
        return self._bridge

    async def _bind_again(self) -> KernelBridge:
        """Bind ports that another process has just had: the operating system may take a moment to let go of them."""
        deadline = time.monotonic() + BIND_SECONDS
        while True:
            try:
                return await self._bind()
            except SettingsError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def saved(self) -> SavedKernel | None:
        """Give what the next broker needs to go on with it; None where there is nothing to go on with."""
        if self._bridge is None or self.state == "ended":
            return None
        info = self.connection_info()
        ports = Ports.from_connection_info(info).to_connection_info()
        return SavedKernel(
            self.kernel_id,
            without_tokens(dataclasses.replace(self.request, key=info["key"]), ports),
            self.session.name if self.session is not None else "",
            self.notebook,
            kept=False,
            dead=self.state == "dead",
            since=0.0,
            remote=saved_remote(self._remote),
            waiting=saved_requests(self._bridge.waiting),
            starting=self._starting,
        )

    @property
    def _may_at_open(self) -> May:
        """What opening the notebook may do; what is opened to run something at once counts as run."""
        wake = self.request.target.wake
        if self.request.runs_at_once and wake != NEVER:
            return May.CREATE
        return May.START if wake == ON_OPEN else May.CONNECT

    def _make_start(self, bridge: KernelBridge) -> KernelStart:
        return KernelStart(
            bridge,
            self._start_remote,
            self._kernel_info,
            wake=self.request.target.wake,
            workspace=lambda: self._place.name,
            failed=lambda error: self._emit({"event": "notice", "message": str(error)}),
        )

    def _kernel_info(self) -> dict[str, Any]:
        target = self.request.target
        known = self._infos.get(target) or self._infos.get(self._place.target)
        return known or guessed_kernel_info(target.language, self._place.name)

    def connection_info(self) -> dict[str, Any]:
        """Give the connection info of the local sockets, JSON-safe."""
        if self._bridge is None:
            raise KernelError("The kernel has no local sockets.")
        info = dict(self._bridge.connection_info)
        key = info["key"]
        return {**info, "key": key.decode() if isinstance(key, bytes) else key}

    async def _start_remote(self, may: May) -> None:
        if await self._took_back():
            return
        # Each start is another kernel there: the one before may still have to be ended. But the next broker's is the
        # same one, which the server there does once.
        self._starting = self._starting or str(uuid.uuid4())
        self._place.changed()
        try:
            await self._start_there(may)
        finally:
            if not self._leaving:
                self._starting = ""

    async def _start_there(self, may: May) -> None:
        session, host = await self._place.connected(may, self._progress)
        name = self.request.target.kernel
        self._progress(ProgressEvent("kernel", f"Starting kernel {name} in {session.name}"))
        folder = self.request.place.folder_in(session.repository)
        start = asyncio.create_task(
            host.start_kernel(name, kernel_id=self._starting, env=self.request.env, folder=folder)
        )
        try:
            self._remote = await asyncio.shield(start)
        except asyncio.CancelledError:
            # The front end is gone, and the start cannot be called back: what it gives must not be left running.
            if not self._leaving:
                session.run_in_background(_end_when_started(start))
            raise
        assert self._bridge is not None
        session.care.used()
        self._bridge.attach(self._remote)
        self._become("idle")
        self._place.changed()

    async def _took_back(self) -> bool:
        """Have the kernel that was kept for this notebook, if there is one; one that died shows its last output."""
        kept = await self._find_kept() if self._may_take_back else None
        # A restart gives a fresh kernel.
        self._may_take_back = False
        if kept is None:
            return False
        assert self._bridge is not None
        self._kept.take(kept)
        if not kept.unattended.alive:
            self._bridge.show_earlier(kept.unattended)
            await kept.end()
            return False
        # Of a recipe another workspace may be the best by now.
        self._place.move(kept.session)
        log.info("kernel %s in %s is taken back by %s", kept.kernel_id, kept.session.name, self.kernel_id)
        self._remote = kept.unattended.kernel
        self._bridge.take_back(kept.unattended, self._kernel_info())
        self._become(kept.unattended.activity.state)
        return True

    async def _find_kept(self) -> KeptKernel | None:
        if take := self.request.take:
            kept = self._kept.get(take)
            if kept is None:
                raise KernelNotFoundError(f"The kernel {take} is kept no longer. See `codespace-kernels kernels`.")
            return kept
        await self._wait_for_name()
        kept = self._kept.find(self.request.target, self.notebook)
        if kept is not None and kept.is_replaced_by(self.request):
            await self._kept.end(kept)
            return None
        return kept

    async def _wait_for_name(self) -> None:
        """Wait until the front end has told which notebook it is about, where that matters."""
        if self.notebook or self.request.owner != "launcher" or not self._kept.has(self.request.target):
            return
        assert self._bridge is not None
        self._bridge.stand_in(self._kernel_info())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._named.wait(), NAME_SECONDS)

    async def interrupt(self) -> None:
        """Interrupt the kernel, or the wait for it."""
        if self._bridge is None or self.state == "dead":
            raise KernelError(f"The kernel in {self._place.name} is not running. Restart it.")
        self.somebody_waits()
        await self._bridge.interrupt()

    async def restart(self) -> None:
        """Replace the kernel's process; one that is dead or out of reach is started anew behind the same local sockets.

        A stopped workspace is not started: kernel managers restart dead kernels unasked, and that must not cost money.
        The next run starts it. Nor is a lost connection waited for: the next run does that, and can be interrupted.
        """
        async with self._changing:
            remote = None if self.state == "dead" else self._remote
            if remote is not None and await self._restart_remote(remote):
                self._become("idle")
            else:
                await self._start_anew()
        self._emit({"event": "ready", "connection_info": self.connection_info()})

    async def _restart_remote(self, remote: RemoteKernel) -> bool:
        """Restart the remote kernel; false where it is out of reach, and nobody knows what came of it."""
        if self._out_of_reach.is_set():
            return False
        tasks = [asyncio.ensure_future(wait) for wait in (remote.restart(), self._out_of_reach.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                await tasks[0]
            return tasks[0].done()
        finally:
            for task in tasks:
                task.cancel()

    async def _start_anew(self) -> None:
        if self._bridge is None or self._start is None:
            raise KernelError("The kernel has ended. Start it again.")
        remote, self._remote = self._remote, None
        self._bridge.detach()
        self._out_of_reach.clear()
        await self._start.close()
        if remote is not None and self.session is not None:
            # It is dead, and only has to be forgotten there, or it hears of this when the way to it is mended.
            self.session.run_in_background(self._end_there(remote))
        self._become("waiting")
        await self._start.launch(May.CONNECT)

    async def shutdown(self, reason: str = "") -> None:
        """End the remote kernel and tell the handle; the local sockets stay for a restart.

        Args:
            reason: Told in the cell that runs; empty where the front end itself asked for it.
        """
        async with self._changing:
            if self._bridge is not None:
                self._bridge.tell_running(reason)
            await self._end_start()
            await self._end_remote()
        self._died(SHUT_DOWN)

    async def suspend(self, reason: str) -> None:
        """End the remote kernel since its workspace is about to be stopped; the next run is told why."""
        async with self._changing:
            if self._bridge is None or self._start is None:
                return
            remote, self._remote = self._remote, None
            self._bridge.detach()
            await self._start.close()
            self._bridge.tell_next_run(f"{reason} This is a new kernel, without the variables of the earlier one.")
            self._start.wait_for_run()
            self._become("waiting")
            if remote is not None:
                await self._end_there(remote)

    async def release(self) -> KeptKernel | None:
        """Let go of the local sockets and give the kernel, to be kept; None where there is nothing to keep.

        Only a kernel whose notebook is known can be given back; any other one would be left behind for nothing.
        """
        keeps = self.request.target.on_close == KEEP and self.notebook and self.state != "dead"
        async with self._changing:
            session = self.session
            if not keeps or self._bridge is None or self._remote is None or session is None:
                return None
            unattended = self._bridge.leave()
            if unattended is None:
                return None
            self._remote = None
        return KeptKernel(self.kernel_id, self.request, session, self.notebook, unattended)

    async def end(self) -> None:
        """End everything of this kernel: remote process and local sockets."""
        for task in list(self._tasks):
            task.cancel()
        async with self._changing:
            await self._end_start()
            await self._end_remote()
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            await bridge.close()
        self._requests.remove()
        await asyncio.to_thread(remove_left_over, self.request.connection_file, self.request.key)
        self._become("ended")

    async def _end_start(self) -> None:
        if self._start is not None:
            await self._start.close()

    async def _end_remote(self) -> None:
        remote, self._remote = self._remote, None
        if remote is None:
            return
        if self._bridge is not None:
            self._bridge.detach()
        await self._end_there(remote)

    async def _end_there(self, remote: RemoteKernel) -> None:
        try:
            await remote.shutdown()
        except CodespaceKernelsError as error:
            # The remote server ends kernels that nobody holds; the user has nothing to do about it.
            log.warning("kernel %s: not ended in %s: %s", self.kernel_id, self._place.name, error)
        await remote.close()

    def say_end(self, reason: str) -> None:
        """Tell the handle that the broker ends, and the kernel with it."""
        self._emit({"event": "end", "reason": reason})

    async def leave(self) -> None:
        """Let go of the local sockets, for another broker to go on with the kernel."""
        self._leaving = True
        if self._start is not None:
            await self._start.give_up()
        self._requests.leave()
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            await bridge.hand_over()

    def workspace_lost(self, reason: str) -> None:
        """Hear that the way to the workspace is gone for good."""
        if self._remote is not None and self._bridge is not None:
            self._bridge.state_changed(KernelState.DEAD, reason)

    def person_acted(self) -> None:
        """Hear that somebody is there (see `bridge.BridgeOwner`)."""
        if self.session is not None:
            self.session.care.used()

    def run_waits(self) -> None:
        """Start the kernel for a cell that waits (see `bridge.BridgeOwner`)."""
        if self._start is not None:
            self._start.run_waits()

    def waiting_interrupted(self) -> None:
        """Give up what nobody waits for now (see `bridge.BridgeOwner`)."""
        if self._start is not None:
            self._start.abandon()

    def kernel_info_received(self, content: dict[str, Any]) -> None:
        """Remember what the kernel says of itself (see `bridge.BridgeOwner`)."""
        if self._infos.put(self.request.target, content):
            self._spawn(asyncio.to_thread(self._infos.save, self._infos.to_text()))

    def notebook_named(self, path: str) -> None:
        """Hear which notebook the front end works on (see `bridge.BridgeOwner`)."""
        self.notebook = self.notebook or path
        self._place.changed()
        self._named.set()

    def shutdown_requested(self, *, restart: bool, session: str) -> None:
        """Hear that a client asked the kernel to end (see `bridge.BridgeOwner`)."""
        if restart and self.request.owner == "provisioner":
            return  # its manager restarts it through the broker next
        if self.request.target.on_close == KEEP and session and session == self.request.manager:
            return  # its provisioner knows whether the kernel is to end, or its manager only
        self._spawn(self.shutdown())

    def execution_state_changed(self, state: str) -> None:
        """Hear what the kernel is doing (see `bridge.BridgeOwner`)."""
        if self._bridge is not None and self._bridge.at_work and self.session is not None:
            self.session.care.worked(self.request.target)
        if self.state != "dead":
            self._become(state)

    def kernel_state_changed(self, state: KernelState, reason: str) -> None:
        """Hear how the remote kernel fares (see `bridge.BridgeOwner`)."""
        if state is KernelState.DEAD:
            self._died(reason or f"The kernel in {self._place.name} died.")
        elif state is KernelState.RECONNECTING:
            self._become("reconnecting")
            self._lost_reason = reason
            self._out_of_reach.set()
            return
        elif state is KernelState.ALIVE and self.state in {"reconnecting", "restarting"}:
            self._become("busy" if self._bridge is not None and self._bridge.busy else "idle")
        self._out_of_reach.clear()

    def lost_way(self) -> WaitingState:
        """Tell what is being done about the lost way (see `bridge.BridgeOwner`)."""
        session = self.session
        mending = session.mending if session is not None else None
        title = session.title if session is not None else self._place.name
        why = mending.describe() if mending is not None else self._lost_reason
        return WaitingState(f"Reconnecting to {title}", "", why)

    def told_of_way(self, text: str) -> None:
        """Pass on what people are told (see `bridge.BridgeOwner`): not every front end shows it in the cell."""
        self._emit({"event": "notice", "message": text})

    def somebody_waits(self) -> None:
        """Have the way mended now, if it is lost (see `bridge.BridgeOwner`)."""
        if self.session is not None:
            self.session.hurry()

    def output_may_be_missing(self, reason: str) -> None:
        """Hear that output may have been lost (see `bridge.BridgeOwner`)."""
        self._emit({"event": "notice", "message": reason})

    def _died(self, reason: str) -> None:
        log.info("kernel %s in %s: %s", self.kernel_id, self._place.name, reason)
        self._become("dead")
        self._emit({"event": "dead", "reason": reason})

    def _progress(self, event: ProgressEvent) -> None:
        if self._start is None or self._start.progressed(event):
            self._emit({"event": "progress", "progress": event.to_json()})

    def _become(self, state: str) -> None:
        if state != self.state:
            # Each cell that is run makes two such changes: what is written down for the next broker has neither.
            works_on = {self.state, state} == {"idle", "busy"}
            self.state, self.since = state, time.time()
            (self._place.shown if works_on else self._place.changed)()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def to_json(self) -> dict[str, Any]:
        """Give what `status` shows; no key, no credentials."""
        return {
            "id": self.kernel_id,
            **self._place.to_json(),
            "kernel": self.request.target.kernel,
            "state": self.state,
            "since": self.since,
            "session": self.notebook,
            "owner": self.request.owner,
            "kept": False,
            "messages": self._bridge.stats.to_json() if self._bridge else {},
        }


async def _end_when_started(start: asyncio.Task[RemoteKernel]) -> None:
    with contextlib.suppress(CodespaceKernelsError):
        remote = await start
        await remote.shutdown()
        await remote.close()


def _curve_keys(request: KernelRequest) -> CurveKeys | None:
    if not (request.curve_publickey or request.curve_secretkey):
        return None
    try:
        return CurveKeys.from_text(request.curve_publickey, request.curve_secretkey)
    except ValueError as error:
        raise SettingsError(
            f"The CurveZMQ keys of the connection file cannot be used: {error}. Start the kernel anew."
        ) from None
