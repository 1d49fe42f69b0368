"""The machine of an emulated codespace: tunnel host, services, SSH server, Jupyter server, and what runs in it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespace_kernels import codespace_rpc
from codespace_kernels.emulator import sshd
from codespace_kernels.emulator.inside import Inside
from codespace_kernels.emulator.inside_build import build
from codespace_kernels.emulator.inside_jupyter import NO_JUPYTER, JupyterServer
from codespace_kernels.emulator.inside_processes import end_processes
from codespace_kernels.emulator.inside_signals import send_signal
from codespace_kernels.emulator.services import JupyterAddress, Services, SshAddress
from codespace_kernels.emulator.tunnel_host import TunnelHost
from codespace_kernels.emulator.tunnels import CLUSTER_ID, CONNECT, MANAGE_PORTS, TunnelService, tunnel_id_for
from codespace_kernels.errors import EmulatorError, NoJupyterError, NoSshServerError

if TYPE_CHECKING:
    from codespace_kernels.emulator.faults import Fault, FaultBoard

logger = logging.getLogger(__name__)

DOMAIN = "app.github.dev"
"""What the real service puts here is not settled; clients only want it not to be empty."""

_NO_SSHD = (
    "No SSH server is installed in the container. Add "
    '"ghcr.io/devcontainers/features/sshd:1": {"version": "latest"} to the features of your devcontainer.json, '
    "or install one in your Dockerfile, and rebuild the container."
)


@dataclasses.dataclass(frozen=True)
class MachineSpec:
    """What machine to make.

    Attributes:
        name: The codespace's name.
        repository: `owner/name` of the repository.
        ref: The branch.
        folder: Where everything of the machine stands; lasts from one start to the next.
        python: Interpreter whose packages the Python inside borrows.
        own_environment: The Python inside is an environment of its own; false: it is `python` itself.
        sshd: The SSH server: `auto`, `openssh`, `paramiko`, `none`.
    """

    name: str
    repository: str
    ref: str
    folder: Path
    python: str = sys.executable
    own_environment: bool = True
    sshd: str = "auto"


class Machine:
    """One machine, on one event loop. It can be booted again after a shutdown.

    Args:
        spec: What machine.
        tunnels: Where its tunnel is registered while it runs.
        faults: Faults that it may be told to have: `no-sshd`, `sshd-down`, `no-jupyter`, `signal`.
        on_activity: Called on the event loop with the activities of each client notice, such as `["connected"]`.
        on_rebuild: Called on the event loop when a rebuild begins (true) and when it has ended (false).
    """

    def __init__(
        self,
        spec: MachineSpec,
        *,
        tunnels: TunnelService,
        faults: FaultBoard,
        on_activity: Callable[[list[str]], None],
        on_rebuild: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self.inside = Inside(spec)
        self.on_activity = on_activity
        self.on_rebuild = on_rebuild
        self._tunnels = tunnels
        self._faults = faults
        self._services = Services(self)
        self._jupyter = JupyterServer(self.inside)
        self._sshd: sshd.SshServer | None = None
        self._host: TunnelHost | None = None
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._build: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def boot(self) -> None:
        """Start the machine and register its tunnel. Processes that an emulator which was killed left are ended first.

        Raises:
            EmulatorError: The inside cannot be made.
        """
        async with self._changing:
            if self._host is not None:
                return
            self._loop = asyncio.get_running_loop()
            is_new = await asyncio.to_thread(self._prepare)
            await self._services.start()
            key = await asyncio.to_thread(sshd.host_key, self.inside.etc / "tunnel_host_key")
            self._host = TunnelHost(key, self._ports, self.connect)
            self._tunnels.register(self.spec.name, self._host, [codespace_rpc.PORT])
            self._unsubscribe = self._faults.subscribe(self._fault_changed)
            if is_new:
                self._build = asyncio.create_task(build(self.inside.workspace, self._faults, self.spec.name))

    async def shutdown(self) -> None:
        """Stop the machine: relays are closed, every process inside is ended, whatever left its parent too.

        Takes some seconds at most. Shutting down twice is no error.
        """
        self._unsubscribe()
        if self._build is not None:
            self._build.cancel()
            await asyncio.wait([self._build])
        # What is being changed inside is brought to its end: it happens in threads, which cannot be cancelled.
        await asyncio.gather(*self._tasks)
        async with self._changing:
            self._tunnels.unregister(self.spec.name)
            if self._host is not None:
                await asyncio.to_thread(self._host.close)
                self._host = None
            await self._services.close()
            await self._end_processes()

    def tunnel_properties(self) -> dict[str, str]:
        """Give `connection.tunnelProperties` of the REST API's internal form, with new tokens."""
        name = self.spec.name
        return {
            "connectAccessToken": self._tunnels.mint(name, CONNECT),
            "managePortsAccessToken": self._tunnels.mint(name, MANAGE_PORTS),
            "serviceUri": f"{self._tunnels.base_url}/",
            "tunnelId": tunnel_id_for(name),
            "clusterId": CLUSTER_ID,
            "domain": DOMAIN,
        }

    def connect(self, port: int) -> socket.socket:
        """Open a connection to a port of the machine. Called on any thread; waits 5 s at most.

        Ports 16634 (services) and 2222 (SSH) stand for free ports of this computer, so that many machines fit on it.
        Every other port is what it says.

        Raises:
            OSError: Nobody listens there.
        """
        if port == codespace_rpc.PORT:
            if self._faults.take("no-agent", self.spec.name):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "the services do not listen")
            return socket.create_connection(self._services.address, timeout=5)
        if port == sshd.PORT and self._sshd is not None:
            if self._faults.get("sshd-down", self.spec.name):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "the SSH server does not run")
            return socket.create_connection(self._sshd.address, timeout=5)
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            return socket.create_connection(("::1", port), timeout=5)

    async def start_ssh_server(self, public_key: str) -> SshAddress:
        """Start the SSH server where it does not run and let it accept a key (empty: none more).

        Raises:
            NoSshServerError: The image has none.
            EmulatorError: The text is no public key.
        """
        async with self._changing:
            if self._faults.take("no-sshd", self.spec.name) or self.spec.sshd == "none":
                raise NoSshServerError(_NO_SSHD)
            if public_key.strip() and not await asyncio.to_thread(self.inside.authorize, public_key):
                raise EmulatorError("The public key is not in OpenSSH's one-line format.")
            if self._sshd is None or not self._sshd.alive:
                server = await asyncio.to_thread(sshd.create_server, self.spec.sshd, self.inside)
                assert server is not None
                await server.start()
                self._sshd = server
        return SshAddress(sshd.PORT, self.inside.user)

    async def start_jupyter_server(self) -> JupyterAddress:
        """Give the codespace's own Jupyter server; starts it where it does not run.

        Raises:
            NoJupyterError: The image has none.
            WaitTimeoutError: It does not answer.
        """
        if self._faults.take("no-jupyter", self.spec.name):
            raise NoJupyterError(NO_JUPYTER)
        async with self._changing:
            # Waits until a rebuild, or a change of the image, is done.
            pass
        return await self._jupyter.start()

    def rebuild(self) -> None:
        """Begin to rebuild the container: its processes end, home and SSH host key are made anew."""
        self.on_rebuild(True)
        self._begin(self._rebuild())

    def _begin(self, change: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._change(change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, change: Coroutine[Any, Any, None]) -> None:
        async with self._changing:
            if self._host is None:
                change.close()
                return
            try:
                await change
            except EmulatorError as error:
                logger.warning("%s: %s", self.spec.name, error)

    async def _rebuild(self) -> None:
        try:
            await self._end_processes()
            await asyncio.to_thread(self.inside.forget_container)
            await asyncio.to_thread(self._prepare)
        finally:
            self.on_rebuild(False)
        logger.info("container of %s rebuilt", self.spec.name)

    def _prepare(self) -> bool:
        """Make what is missing; tells whether the machine is new."""
        end_processes(self.inside.marker)
        return self.inside.create(bare=self._faults.get("no-jupyter", self.spec.name) is not None)

    async def _end_processes(self) -> None:
        server, self._sshd = self._sshd, None
        also = [*self._jupyter.pids]
        if server is not None:
            also += server.pids
            await server.stop()
        ended = await asyncio.to_thread(end_processes, self.inside.marker, also)
        self._jupyter.ended()
        logger.info("%d processes of %s ended", ended, self.spec.name)

    def _ports(self) -> list[int]:
        tunnel = self._tunnels.find(tunnel_id_for(self.spec.name))
        return list(self._tunnels.ports(tunnel)) if tunnel is not None else []

    def _fault_changed(self, fault: Fault, active: bool) -> None:
        """Do to the inside what a fault says. Called on any thread."""
        if fault.codespace not in (None, self.spec.name):
            return
        if fault.kind == "signal" or (fault.kind == "sshd-down" and active):
            self._signal(str(fault.options.get("which", "sshd")), str(fault.options.get("signal", "KILL")), active)
        elif fault.kind == "no-jupyter" and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._change_image, active)

    def _signal(self, which: str, name: str, active: bool) -> None:
        """Send a signal to processes inside, or, when that fault is gone, let those go on that it stopped; blocks."""
        if active or name == "STOP":
            sshd_pids = self._sshd.pids if self._sshd is not None else []
            count = send_signal(self.inside.marker, which, name if active else "CONT", sshd_pids)
            logger.info("SIG%s to %d processes (%s) of %s", name, count, which, self.spec.name)

    def _change_image(self, bare: bool) -> None:
        logger.info("image of %s: %s Jupyter", self.spec.name, "without" if bare else "with")
        self._begin(asyncio.to_thread(self.inside.python.create, bare=bare))
