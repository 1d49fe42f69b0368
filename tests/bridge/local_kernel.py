"""A `RemoteKernel` over a real ipykernel of this machine, started by jupyter_client and reached by its ZMQ ports."""

from __future__ import annotations

import functools
import uuid

import zmq
from jupyter_client.manager import AsyncKernelManager

from codespace_kernels.errors import KernelError
from codespace_kernels.messages import Channel, Message, Signer
from codespace_kernels.remote_kernel import KernelState, RemoteKernelListener
from tests.bridge.zmq_pump import SocketPump

_SOCKET_TYPES = {
    Channel.SHELL: zmq.DEALER,
    Channel.CONTROL: zmq.DEALER,
    Channel.STDIN: zmq.DEALER,
    Channel.IOPUB: zmq.SUB,
}


class LocalKernel:
    def __init__(self) -> None:
        self.kernel_id = str(uuid.uuid4())
        self.sent: list[Message] = []
        self._manager = AsyncKernelManager(kernel_name="python3")
        self._context = zmq.Context()
        self._listener: RemoteKernelListener | None = None
        self._early: list[tuple[Channel, Message]] = []

    async def start(self) -> None:
        await self._manager.start_kernel()
        info = self._manager.get_connection_info()
        self._signer = Signer(info["key"])
        self._sockets = {channel: self._connect(channel, info) for channel in Channel}
        self._pump = SocketPump()
        for channel, socket in self._sockets.items():
            self._pump.add(socket, functools.partial(self._received, channel))
        client = self._manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=30)
        client.stop_channels()

    def _connect(self, channel: Channel, info: dict) -> zmq.Socket:
        socket = self._context.socket(_SOCKET_TYPES[channel])
        socket.linger = 0
        socket.rcvhwm = socket.sndhwm = 0
        if channel is Channel.IOPUB:
            socket.subscribe(b"")
        else:
            # Shell and stdin share an identity, so that the kernel's input requests find their way.
            socket.identity = self.kernel_id.encode()
        socket.connect(f"tcp://{info['ip']}:{info[channel.name.lower() + '_port']}")
        return socket

    def _received(self, channel: Channel, frames: list[bytes]) -> None:
        message = self._signer.unpack(frames)
        if self._listener is None:
            self._early.append((channel, message))
        else:
            self._listener.message_received(channel, message)

    is_receiving = False

    def listen(self, listener: RemoteKernelListener | None) -> None:
        self._listener = listener
        while listener is not None and self._early:
            listener.message_received(*self._early.pop(0))

    def send(self, channel: Channel, message: Message) -> None:
        self.sent.append(message)
        # A DEALER of the plain kind never blocks without a high-water mark.
        self._sockets[channel].send_multipart(self._signer.pack(message), zmq.NOBLOCK)
        self._pump.sent_on(self._sockets[channel])

    async def interrupt(self) -> None:
        if not await self._manager.is_alive():
            raise KernelError("The kernel is gone.")
        await self._manager.interrupt_kernel()

    async def restart(self) -> None:
        await self._manager.restart_kernel(now=True)
        self._report(KernelState.ALIVE)

    async def kill(self) -> None:
        """End the process behind everybody's back and say so, as a carrier does."""
        await self._manager.provisioner.kill()
        await self._manager.provisioner.wait()
        self._report(KernelState.DEAD)

    def _report(self, state: KernelState) -> None:
        if self._listener is not None:
            self._listener.state_changed(state, "")

    async def shutdown(self) -> None:
        await self._manager.shutdown_kernel(now=True)

    async def close(self) -> None:
        self._pump.close()
        for socket in self._sockets.values():
            socket.close()
        self._context.term()
