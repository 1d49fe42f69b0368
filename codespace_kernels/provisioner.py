"""The kernel provisioner: what JupyterLab, nbconvert, papermill and every other user of jupyter_client runs.

It is a thin handle on the broker. Contract: `jupyter_client.provisioning.KernelProvisionerBase`; the order of calls was
measured with jupyter_client 8.10. `kill` is told `restart=False` even when a restart follows (its issue 1061), so what
happens to the remote kernel is decided in `cleanup`, the last call of a stop and the first that knows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.consoleapp import JupyterConsoleApp
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_client.runapp import RunApp
from traitlets import Enum, Float

from codespace_kernels.broker.handle import KernelHandle
from codespace_kernels.broker.protocol import PASSED_ON, Access, KernelRequest
from codespace_kernels.clones import notebook_folder, place_of
from codespace_kernels.errors import CodespaceKernelsError, WaitTimeoutError
from codespace_kernels.progress import ProgressEvent
from codespace_kernels.start_steps import StartSteps
from codespace_kernels.target import KEEP, KEEP_AWAKES, ON_CLOSES, WAKES, Target


class CodespaceProvisioner(KernelProvisionerBase):
    """Runs a kernel in a codespace and makes it look like a local one."""

    start_timeout = Float(
        900.0,
        config=True,
        help="Seconds to wait for a kernel in a codespace that runs; one that lacks Jupyter is given it first, which "
        "takes minutes. A codespace that has to start is waited for in the cell, without this limit.",
    )
    transport = Enum(
        ["", "auto", "tunnel", "gh"],
        default_value="",
        config=True,
        help="How to reach the codespace: 'tunnel' (pure Python), 'gh' (`gh codespace ssh --stdio`), or 'auto'. "
        "Empty: as the kernelspec says.",
    )
    wake = Enum(
        ["", *WAKES],
        default_value="",
        config=True,
        help="What starts a stopped codespace: opening a notebook ('on-open'), running a cell ('on-run'), or neither "
        "('never'). Empty: as the kernelspec says.",
    )
    on_close = Enum(
        ["", *ON_CLOSES],
        default_value="",
        config=True,
        help="What happens to a notebook's kernel when the Jupyter server ends without having shut it down: 'shutdown' "
        "ends it, 'keep' lets it go on for the same notebook's next start. Empty: as the kernelspec says.",
    )
    keep_hours = Float(
        0.0,
        config=True,
        help="Hours for which such a kernel is kept after its last work. 0: as the kernelspec says.",
    )
    keep_awake = Enum(
        ["", *KEEP_AWAKES],
        default_value="",
        config=True,
        help="While what the codespace is kept awake: a kernel that works ('busy'), one that a notebook holds, even "
        "an idle one ('always'), or nothing ('never'). Empty: as the kernelspec says.",
    )
    keep_awake_hours = Float(
        0.0,
        config=True,
        help="Hours for which it is kept awake after the last thing that a person did. 0: as the kernelspec says.",
    )
    stop_when_idle = Float(
        None,
        allow_none=True,
        config=True,
        help="Minutes without work in any of its kernels after which the codespace is stopped; 0: never. None: as the "
        "kernelspec says.",
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.connection_info = {}  # jupyter_client's default is one dict shared by all provisioners
        self._handle: KernelHandle | None = None
        self._stopping = False
        self._keeps = False
        self._steps = StartSteps()
        self._encrypted = False

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel to manage; one that outlives its server is not that server's to interrupt."""
        return self._handle is not None and not (self._keeps and self._front_end_goes())

    @property
    def broker_kernel_id(self) -> str:
        """What the broker calls the kernel (`codespace-kernels kernels`); empty where there is none."""
        return self._handle.kernel_id if self._handle is not None else ""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Prepare the launch; the command is shown in logs only, nothing local is run."""
        kwargs.pop("extra_arguments", None)
        # Since jupyter_client 8.9; see `KernelManager.transport_encryption`.
        asked = kwargs.pop("transport_encryption", None) or getattr(self.parent, "transport_encryption", "disabled")
        self._encrypted = str(asked).lower() in {"auto", "required"}
        return await super().pre_launch(cmd=list(self.kernel_spec.argv), **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel, or restart it behind the same local ports.

        Raises:
            CodespaceKernelsError: It did not start; one or two sentences say why. Nothing is left running.
        """
        self._stopping = False
        try:
            if self._handle is not None and self._handle.kernel_id:
                await asyncio.to_thread(self._handle.restart)
                info = self.connection_info
            else:
                info = await self._start(kwargs.get("env") or dict(os.environ), str(kwargs.get("cwd") or ""))
        except BaseException:
            # jupyter_client calls neither `kill` nor `cleanup` after a failed launch.
            self._let_go()
            raise
        self.connection_info = info
        return info

    async def _start(self, env: dict[str, str], cwd: str) -> KernelConnectionInfo:
        session = getattr(self.parent, "session", None)
        application = getattr(self.parent, "parent", None)
        target = Target.from_env({**env, **self.kernel_spec.env})
        language = target.language or self.kernel_spec.language
        target = dataclasses.replace(
            target,
            wake=self.wake or target.wake,
            language=language,
            on_close=self.on_close or target.on_close,
            keep_hours=self.keep_hours or target.keep_hours,
            keep_awake=self.keep_awake or target.keep_awake,
            keep_awake_hours=self.keep_awake_hours or target.keep_awake_hours,
            stop_when_idle=target.stop_when_idle if self.stop_when_idle is None else self.stop_when_idle,
        )
        self._keeps = target.on_close == KEEP
        curve_publickey, curve_secretkey = self._curve_keys()
        request = KernelRequest(
            target=target,
            access=Access.of(target.account, env, self.transport or target.transport),
            key=session.key.decode() if session is not None else "",
            signature_scheme=session.signature_scheme if session is not None else "hmac-sha256",
            curve_publickey=curve_publickey,
            curve_secretkey=curve_secretkey,
            manager=session.session if session is not None else "",
            ip=getattr(self.parent, "ip", "") or "127.0.0.1",
            env={name: env[name] for name in PASSED_ON if name in env},
            session=env.get("JPY_SESSION_NAME", ""),
            place=await asyncio.to_thread(place_of, notebook_folder(env, cwd)),
            connection_file=_absolute(getattr(self.parent, "connection_file", "")),
            # `jupyter console` and qtconsole are such applications, and no notebook is.
            in_terminal=isinstance(application, JupyterConsoleApp),
            # A Jupyter server's kernels have such a manager; nbclient, papermill and scripts have none.
            replaces_output=isinstance(application, MultiKernelManager),
            # It gives each script ten seconds.
            runs_at_once=isinstance(application, RunApp),
        )
        self._handle = KernelHandle(request, self._report)
        try:
            info = await asyncio.wait_for(asyncio.wrap_future(self._handle.ready), self.start_timeout)
        except TimeoutError:
            raise WaitTimeoutError.after(
                f"kernel {target.kernel} in {target.place}",
                self.start_timeout,
                "Look at `codespace-kernels status`, or raise CodespaceProvisioner.start_timeout.",
            ) from None
        return cast("KernelConnectionInfo", {**info, "key": info["key"].encode()})

    def _curve_keys(self) -> tuple[str, str]:
        """Give the manager's keys, or new ones, where clients are to use CurveZMQ; it reads them from our answer."""
        if not self._encrypted:
            return "", ""
        # Few front ends encrypt, and all of them pay for what is imported.
        from codespace_kernels.zmtp.curve import CurveKeys

        public, secret = (getattr(self.parent, f"curve_{kind}key", None) for kind in ("public", "secret"))
        return (public.decode(), secret.decode()) if public and secret else CurveKeys.generate().to_text()

    def _report(self, event: ProgressEvent) -> None:
        self.log.info("%s", self._steps.line(event))

    async def poll(self) -> int | None:
        """Tell whether the kernel lives: None, or an exit code. Asks nobody, so it is cheap and never fails."""
        if self._handle is None or self._stopping:
            return 0
        return None if self._handle.alive else 1

    async def wait(self) -> int | None:
        """Wait for the end of the kernel, at most as long as a kernel manager waits."""
        if self._handle is not None and not self._stopping:
            await asyncio.wait({asyncio.wrap_future(self._handle.ended)}, timeout=5.0)
        return await self.poll()

    async def send_signal(self, signum: int) -> None:
        """Interrupt the kernel on SIGINT; a signal that ends a process ends the kernel; 0 asks for life only."""
        if self._handle is None:
            return
        if signum == signal.SIGINT:
            await self._quietly(self._handle.interrupt)
        elif signum in {signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)}:
            self._stopping = True

    async def kill(self, restart: bool = False) -> None:
        """Note that the kernel is to end; `cleanup` does it, because only it knows whether a restart follows."""
        self._stopping = True

    async def terminate(self, restart: bool = False) -> None:
        """As `kill`: a remote kernel is ended by its server, politely first."""
        self._stopping = True

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Note that the kernel is to end, so that nobody waits for a process that is about to be replaced."""
        self._stopping = True

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of the kernel, unless it is about to be restarted; one that was shut down is not kept."""
        if restart:
            return
        if self._keeps and self._handle is not None and not self._front_end_goes():
            await self._quietly(self._handle.shutdown)
        self._let_go()

    def _front_end_goes(self) -> bool:
        """Tell a Jupyter server that ends from one that was asked to shut this kernel down: the calls are the same."""
        manager = getattr(self.parent, "parent", None)
        return bool(getattr(getattr(manager, "parent", None), "_stopping", False))

    async def _quietly(self, action: Any) -> None:
        try:
            await asyncio.to_thread(action)
        except CodespaceKernelsError as error:
            # Every stop begins with an interrupt; one of a dead kernel must not stop the stop.
            self.log.warning("%s", error)

    def _let_go(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
