"""Lifecycle of kernels, by the Jupyter server's own kernel manager: they are ordinary kernels of an ordinary server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import inspect
import os
from typing import Any, Dict, List, Optional, Set

from .last_words import LastWordsOfKernels, describe_end

START_LIMIT = 60.0
"""Seconds that a restarted kernel may take until it answers."""


TRIES = 3
"""Processes that one start may take. Jupyter chooses a kernel's ports before the kernel has them, so that it may find
one taken and end (its own restarter tries up to five times, on other ports, for the same reason)."""


_PORTS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")


class _Start:
    """What has come of a kernel's start."""

    def __init__(self) -> None:
        self.tries = 1
        self.answered = False


class CommandError(Exception):
    """A command that cannot be done.

    Args:
        kind: Name of the class in the client's `errors` that it becomes there.
        text: Sentence for a person.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


async def resolve(value: Any) -> Any:
    """Give the result of what may or may not be awaitable: it differs between versions of jupyter_client."""
    return await value if inspect.isawaitable(value) else value


async def _done(future: Any) -> None:
    await (asyncio.wrap_future(future) if isinstance(future, concurrent.futures.Future) else future)


class Kernels:
    """Starts, restarts, interrupts and ends kernels.

    Args:
        manager: The server's `MappingKernelManager`.
        specs: The server's kernelspec manager.
        folder: Where kernels start unless told otherwise.
        runtime: Folder for files of our own.
    """

    def __init__(self, manager: Any, specs: Any, folder: str, runtime: str) -> None:
        self._manager = manager
        self._specs = specs
        self._folder = folder
        self._words = LastWordsOfKernels(runtime)
        self._starting: Dict[str, "asyncio.Future[None]"] = {}
        self._starts: Dict[str, _Start] = {}
        self._ours: Set[str] = set()
        self._begin_server_watch = manager.start_watching_activity
        manager.start_watching_activity = self._watch_unless_ours

    def __contains__(self, kernel_id: str) -> bool:
        return kernel_id in self._manager

    def ids(self) -> List[str]:
        """Give the ids of all kernels of the server, dead ones too."""
        return list(self._manager.list_kernel_ids())

    def get(self, kernel_id: str) -> Any:
        """Give the `KernelManager` of a kernel.

        Raises:
            CommandError: There is none.
        """
        if kernel_id not in self._manager:
            raise CommandError("KernelNotFoundError", "The workspace has no kernel %s (any more)." % kernel_id)
        return self._manager.get_kernel(kernel_id)

    # -- start and end ------------------------------------------------------------------------------------------------

    async def start(self, kernel_id: str, name: str, folder: str, env: Dict[str, str]) -> None:
        """Start a kernel; one that has this id already is left alone, so that a repeated command does no harm.

        Raises:
            CommandError: No such kernelspec or folder, or the process did not start.
        """
        while kernel_id in self._starting:
            await asyncio.wait({self._starting[kernel_id]})
        if kernel_id in self._manager:
            return
        started = self._starting[kernel_id] = asyncio.get_event_loop().create_future()
        try:
            await self._start(kernel_id, name, folder, env)
        finally:
            del self._starting[kernel_id]
            started.set_result(None)

    async def _start(self, kernel_id: str, name: str, folder: str, env: Dict[str, str]) -> None:
        self._check_spec(name)
        cwd = self._existing_folder(folder)
        self._ours = {known for known in self._ours if known in self._manager} | {kernel_id, *self._starting}
        try:
            # `env` replaces the whole environment of the process, so ours goes into it.
            options = {"kernel_name": name, "kernel_id": kernel_id, "cwd": cwd, "env": {**os.environ, **env}}
            await resolve(self._manager.start_kernel(**options, **self._stderr(kernel_id, name)))
            # Done already, unless the user configured pending kernels.
            await _done(self._manager.get_kernel(kernel_id).ready)
        except Exception as error:
            self._ours.discard(kernel_id)
            raise CommandError("KernelStartError", "The kernel %r did not start: %s" % (name, error)) from error
        self._end_autorestart(kernel_id)
        self._starts = {known: self._starts[known] for known in self._starts if known in self._manager}
        self._starts[kernel_id] = _Start()

    def _stderr(self, kernel_id: str, name: str) -> Dict[str, Any]:
        if "kernel_provisioner" in self._specs.get_kernel_spec(name).metadata:
            return {}  # it may run the kernel elsewhere, and know nothing of a descriptor
        words = self._words.begin(kernel_id)
        return {} if words is None else {"stderr": words}

    def answered(self, kernel_id: str) -> None:
        """Note that a kernel is given requests from now on: its death is a death."""
        if kernel_id in self._starts:
            self._starts[kernel_id].answered = True
        if kernel_id in self._manager:
            self._words.came_up(kernel_id, self.process_of(kernel_id))

    def tidy(self) -> None:
        """Keep short what kernels wrote to stderr, and let go of it where they are gone. To be called now and then."""
        self._words.tidy({*self.ids(), *self._starting})

    def end_without_port(self, kernel_id: str, port: int) -> None:
        """End a process that has not come up and whose iopub port another program has: it may hang in place of ending.

        What follows a death follows this one: it is started again on other ports, or is dead and says why.
        """
        start = self._starts.get(kernel_id)
        if start is None or start.answered or kernel_id not in self._manager:
            return
        if self.connection_info(kernel_id)["iopub_port"] != port:
            return  # Its successor has others.
        process = self._local_process(kernel_id)
        if process is not None and process.poll() is None:
            process.kill()

    def may_start_again(self, kernel_id: str) -> bool:
        """Tell whether a kernel that died has not been given anything yet, and was not tried too often."""
        start = self._starts.get(kernel_id)
        return start is not None and not start.answered and start.tries < TRIES

    async def start_again(self, kernel_id: str) -> None:
        """Start a dead kernel anew, on other ports and with the same key: clients have signed requests with it already.

        Raises:
            CommandError: The process did not start.
        """
        self._starts[kernel_id].tries += 1
        kernel = self.get(kernel_id)
        self._words.forget(kernel_id)
        try:
            # No argument asks for this: `newports` leaves those that the provisioner keeps for itself.
            kernel.cleanup_connection_file()
            for name in _PORTS:
                setattr(kernel, name, 0)
            kernel.provisioner.ports_cached = False
            await resolve(kernel.restart_kernel(now=True))
        except Exception as error:
            raise CommandError("KernelStartError", "The kernel did not start: %s" % error) from error

    def _end_autorestart(self, kernel_id: str) -> None:
        """Let a death be a death: who started the kernel decides what follows, and a restart unasked loses variables.

        Off for this kernel only (`KernelManager.autorestart` as a flag would change kernels that others start here).
        The order matters: `stop_restarter` does nothing once the trait is false.
        """
        kernel = self._manager.get_kernel(kernel_id)
        kernel.stop_restarter()
        kernel.autorestart = False

    def _check_spec(self, name: str) -> None:
        known = sorted(self._specs.find_kernel_specs())
        if name not in known:
            text = "The workspace has no kernelspec %r; it has %s." % (name, ", ".join(known) or "none at all")
            raise CommandError("KernelNotFoundError", text)

    def folder_or_root(self, folder: str) -> str:
        """Give a folder below the server's, or the server's own where there is none of that name in it."""
        root = os.path.realpath(self._folder)
        path = os.path.realpath(os.path.join(root, folder))
        return path if path.startswith(os.path.join(root, "")) and os.path.isdir(path) else root

    def _existing_folder(self, folder: str) -> str:
        path = os.path.join(self._folder, os.path.expanduser(folder))
        if not os.path.isdir(path):
            raise CommandError("KernelStartError", "The folder %s does not exist in the workspace." % path)
        return path

    async def shutdown(self, kernel_id: str) -> None:
        """End a kernel; one that is gone already is no error."""
        if kernel_id in self._manager:
            await resolve(self._manager.shutdown_kernel(kernel_id, now=not await self.is_alive(kernel_id)))

    # -- while it runs ------------------------------------------------------------------------------------------------

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt a kernel in the way of its kernelspec.

        Raises:
            CommandError: It is gone.
        """
        self.get(kernel_id)
        if not await self.is_alive(kernel_id):
            raise CommandError("KernelError", "The kernel cannot be interrupted: its process has ended.")
        await resolve(self._manager.interrupt_kernel(kernel_id))

    async def restart(self, kernel_id: str) -> None:
        """Replace a kernel's process, dead or alive, and wait until the new one answers.

        Raises:
            CommandError: There is no such kernel, or the new process did not come up.
        """
        self.get(kernel_id)
        now = not await self.is_alive(kernel_id)
        self._words.forget(kernel_id)
        try:
            # The call only begins it: what it gives is a future of the new process's first answer.
            answered = await resolve(self._manager.restart_kernel(kernel_id, now=now))
            if isinstance(answered, asyncio.Future):
                await self._wait_for_answer(kernel_id, answered)
        except CommandError:
            raise
        except Exception as error:
            raise CommandError("KernelStartError", "The kernel did not restart: %s" % error) from error
        self.set_state(kernel_id, "idle")

    async def _wait_for_answer(self, kernel_id: str, answered: "asyncio.Future[Any]") -> None:
        loop = asyncio.get_event_loop()
        deadline = loop.time() + START_LIMIT
        while not answered.done():
            await asyncio.wait({answered}, timeout=0.25)
            if not answered.done() and not await self.is_alive(kernel_id):
                reason = await self.describe_end(kernel_id)
                raise CommandError("KernelStartError", "The kernel did not restart. %s" % reason)
            if loop.time() > deadline:
                text = "The restarted kernel gave no answer within %g s." % START_LIMIT
                raise CommandError("KernelStartError", text)
        answered.result()

    async def is_alive(self, kernel_id: str) -> bool:
        """Tell whether the process runs."""
        return bool(await resolve(self._manager.is_alive(kernel_id)))

    def in_transition(self, kernel_id: str) -> bool:
        """Tell whether the kernel is being started, restarted or ended now: a missing process says nothing then."""
        kernel = self._manager.get_kernel(kernel_id)
        return bool(kernel.shutting_down) or not kernel.ready.done()

    def process_of(self, kernel_id: str) -> Optional[int]:
        """Give what changes when the process is replaced."""
        return getattr(self._manager.get_kernel(kernel_id).provisioner, "pid", None)

    async def describe_end(self, kernel_id: str) -> str:
        """Say how a dead kernel's process ended, and what it wrote to stderr last."""
        return describe_end(await self._exit_code(kernel_id), self._words.tell(kernel_id))

    async def _exit_code(self, kernel_id: str) -> Optional[int]:
        process = self._local_process(kernel_id)
        return None if process is None else process.poll()

    def _local_process(self, kernel_id: str) -> Any:
        """Give the `Popen` of a kernel; None where its provisioner runs it in another way."""
        return getattr(self._manager.get_kernel(kernel_id).provisioner, "process", None)

    def connection_info(self, kernel_id: str) -> Dict[str, Any]:
        """Give what a connection file holds, as JSON values. Read anew each time: a restart may change the ports."""
        info = self.get(kernel_id).get_connection_info()
        return {key: value.decode() if isinstance(value, bytes) else value for key, value in info.items()}

    # -- the server's view of activity --------------------------------------------------------------------------------

    def take_over_activity(self, kernel_id: str) -> None:
        """Stop the server's own subscription to a kernel; from now on `observed` and `touch` keep its state.

        The server checks and parses each message on its main loop, four times the work of carrying it, and when it
        cannot keep up it loses some, the closing `idle` among them: the kernel then counts as busy for ever.
        """
        self._ours.add(kernel_id)
        kernel = self._manager.get_kernel(kernel_id)
        # The server would also give up waiting for the first answer of a process that is being restarted.
        restart = getattr(kernel, "_pending_restart_cleanup", None)
        kernel._pending_restart_cleanup = None
        self._manager.stop_watching_activity(kernel_id)
        kernel._pending_restart_cleanup = restart

    def _watch_unless_ours(self, kernel_id: str) -> None:
        """In place of the server's `start_watching_activity`, which would subscribe to each kernel that it starts.

        A subscription that ends while the kernel's publisher is given a new limit (see `probe`) can end the kernel:
        libzmq 4.3.5 sends the limit to the far end of each of its pipes, without asking whether that is still there.
        """
        if kernel_id in self._ours:
            self._manager.get_kernel(kernel_id).reason = ""
            self.touch(kernel_id)
        else:
            self._begin_server_watch(kernel_id)

    def give_back_activity(self, kernel_id: str) -> None:
        """Let the server watch a kernel again that no client of the link has open."""
        self._ours.discard(kernel_id)
        if kernel_id in self._manager and not getattr(self._manager.get_kernel(kernel_id), "_activity_stream", None):
            self._begin_server_watch(kernel_id)

    def connected(self, kernel_id: str) -> None:
        """Count a client, so that the server does not cull the kernel under it."""
        self._manager.notify_connect(kernel_id)

    def disconnected(self, kernel_id: str) -> None:
        """Count a client less."""
        self._manager.notify_disconnect(kernel_id)

    def observed(self, kernel_id: str, state: str, request: str) -> None:
        """Note a status that a kernel published while it worked on a request of this type.

        The server's own rules: what only looks at the kernel does not make it busy (since 2.13; before, all did).
        """
        if kernel_id not in self._manager:
            return
        tracks = getattr(self._manager, "track_message_type", None)
        if tracks is None or tracks(request):
            self.set_state(kernel_id, state)
        elif self._manager.get_kernel(kernel_id).execution_state == "starting" and state != "starting":
            self.set_state(kernel_id, "idle")

    def set_state(self, kernel_id: str, state: str) -> None:
        """Set what the server's REST says of a kernel."""
        self._manager.get_kernel(kernel_id).execution_state = state
        self.touch(kernel_id)

    def touch(self, kernel_id: str) -> None:
        """Note that a kernel did something just now."""
        if kernel_id in self._manager:
            now = datetime.datetime.now(datetime.timezone.utc)
            self._manager.last_kernel_activity = self._manager.get_kernel(kernel_id).last_activity = now

    # -- what there is ------------------------------------------------------------------------------------------------

    def list(self) -> List[Dict[str, Any]]:
        """Give the server's models of its kernels."""
        return [dict(model) for model in self._manager.list_kernels()]

    def specs(self) -> Dict[str, Any]:
        """Give kernelspecs by name, as jupyter_client has them: `resource_dir` and `spec`."""
        return dict(self._specs.get_all_specs())
