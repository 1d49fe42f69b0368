"""A front end in a process of its own: one kernel by one way, told what to do by lines of JSON.

    python -m benchmarks.worker KIND OPTIONS

It runs in the environment of whose way it is, which may be a peer's, and so imports nothing of this project's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kernel_code import PREPARE
from benchmarks.zmq_client import LOST_AFTER, Collector, Result, ZmqClient, execute_content


class KernelWay(Protocol):
    """What a worker can have done by a way to a kernel."""

    def start(self) -> None:
        """Start the kernel."""

    def wait_for_ready(self) -> None:
        """Wait until requests are answered and output is heard."""

    def execute(self, code: str, timeout: float) -> Result:
        """Execute code, for so many seconds at most."""

    def send_buffers(self, count: int, size: int) -> None:
        """Send messages with a buffer of so many bytes each."""

    def restart(self) -> None:
        """Restart the kernel."""

    def shutdown(self) -> None:
        """End the kernel and all that leads there."""


def take_decoded(collector: Collector, message: dict[str, Any]) -> None:
    """Take an output message that a library has decoded."""
    header, parent, content = (
        json.dumps(message[name], default=str).encode() for name in ("header", "parent_header", "content")
    )
    collector.take_output(header, parent, content, len(content) + sum(map(len, message.get("buffers") or ())))


class OnPorts:
    """What all ways have in common that end in five ports."""

    client: ZmqClient

    def execute(self, code: str, timeout: float) -> Result:
        return self.client.execute(code, timeout)

    def wait_for_ready(self) -> None:
        self.client.wait_for_ready()

    def send_buffers(self, count: int, size: int) -> None:
        self.client.send("comm_open", {"comm_id": "up", "target_name": "benchmark", "data": {}})
        for _ in range(count):
            self.client.send("comm_msg", {"comm_id": "up", "data": {}}, (bytes(size),))


class ManagerWay(OnPorts):
    """A kernelspec's name, as every front end that uses jupyter_client starts it; with a raw client."""

    def __init__(self, options: dict[str, Any]) -> None:
        from jupyter_client.manager import AsyncKernelManager

        self._loop = asyncio.new_event_loop()
        self._manager: Any = AsyncKernelManager(kernel_name=options["kernel_name"])

    def start(self) -> None:
        self._loop.run_until_complete(self._manager.start_kernel())
        self._connect()

    def _connect(self) -> None:
        self.client = ZmqClient(self._manager.get_connection_info())

    def restart(self) -> None:
        self._loop.run_until_complete(self._manager.restart_kernel())
        self.client.close()
        self._connect()

    def shutdown(self) -> None:
        self.client.close()
        self._loop.run_until_complete(self._manager.shutdown_kernel(now=True))


class InfoWay(OnPorts):
    """A kernel that somebody else started, by the program `command` that prints its connection info as JSON."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._command: list[str] = options["command"]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command[:3]} ended")
        self.client = ZmqClient(json.loads(line))

    def shutdown(self) -> None:
        self.client.close()
        self._process.communicate(timeout=60)

    def restart(self) -> None:
        raise NotImplementedError


class GatewayWay:
    """jupyter_server's gateway client, at the address of a Jupyter server."""

    def __init__(self, options: dict[str, Any]) -> None:
        from jupyter_server.gateway.gateway_client import GatewayClient
        from jupyter_server.gateway.managers import GatewayMappingKernelManager

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        os.environ |= {"JUPYTER_GATEWAY_URL": options["url"], "JUPYTER_GATEWAY_AUTH_TOKEN": options["token"]}
        client: Any = GatewayClient.instance()
        client.init_connection_args()
        managers: Any = GatewayMappingKernelManager
        self._managers = managers()

    def start(self) -> None:
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        kernel_id = await self._managers.start_kernel(kernel_name="python3")
        self._manager = self._managers.get_kernel(kernel_id)
        self._client = self._manager.client()
        await self._client.start_channels()

    def wait_for_ready(self) -> None:
        for pause in [1.0] * 60:
            if self._loop.run_until_complete(self._request("kernel_info_request", {}, pause))["idle"]:
                return
        raise TimeoutError

    def execute(self, code: str, timeout: float) -> Result:
        return self._loop.run_until_complete(self._request("execute_request", execute_content(code), timeout))

    async def _request(self, kind: str, content: dict[str, Any], timeout: float) -> Result:
        message = self._client.session.msg(kind, content)
        collector = Collector(message["header"]["msg_id"])
        self._client.shell_channel.send(message)
        tasks = {asyncio.ensure_future(self._shell(collector)), asyncio.ensure_future(self._iopub(collector))}
        ends = time.monotonic() + timeout
        while tasks and not collector.idle_is_lost and (left := ends - time.monotonic()) > 0:
            # A tick at a time: silence can only be seen.
            done, tasks = await asyncio.wait(tasks, timeout=min(left, 0.5))
            for task in done:
                task.result()
        for task in tasks:
            task.cancel()
        return collector.result()

    @staticmethod
    async def _next(channel: Any) -> Any:
        while True:
            try:
                return await channel.get_msg()
            except queue.Empty:
                await asyncio.sleep(0)

    async def _shell(self, collector: Collector) -> None:
        while not collector.reply:
            message = await self._next(self._client.shell_channel)
            collector.take_reply(json.dumps(message["parent_header"], default=str).encode())

    async def _iopub(self, collector: Collector) -> None:
        while not collector.idle:
            message = await self._next(self._client.iopub_channel)
            take_decoded(collector, message)

    def restart(self) -> None:
        self._loop.run_until_complete(self._manager.restart_kernel())

    def shutdown(self) -> None:
        self._client.stop_channels()
        self._loop.run_until_complete(self._manager.shutdown_kernel(now=True))

    def send_buffers(self, count: int, size: int) -> None:
        raise NotImplementedError


class KernelClientWay:
    """jupyter-kernel-client, at the address of a Jupyter server."""

    def __init__(self, options: dict[str, Any]) -> None:
        from jupyter_kernel_client import JupyterKernelClient

        self._client: Any = JupyterKernelClient(server_url=options["url"], token=options["token"])

    def start(self) -> None:
        self._client.start(name="python3")

    def wait_for_ready(self) -> None:
        self.execute("pass", 60.0)

    def execute(self, code: str, timeout: float) -> Result:
        collector = Collector("")

        def output(message: dict[str, Any]) -> None:
            silence.broken()
            take_decoded(collector, message)

        with contextlib.suppress(TimeoutError), no_longer_than(LOST_AFTER) as silence:
            silence.broken()
            self._client.execute_interactive(code, output_hook=output, timeout=timeout, allow_stdin=False)
            # It returns only when both have come.
            collector.reply = collector.idle = True
        return collector.result()

    def restart(self) -> None:
        self._client.restart()

    def shutdown(self) -> None:
        self._client.stop()

    def send_buffers(self, count: int, size: int) -> None:
        raise NotImplementedError


class Silence:
    """Raises `TimeoutError` where nothing is heard for a while: for a client that waits for what will not come.

    Args:
        seconds: That it may last, once something was heard.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def broken(self) -> None:
        """Note that something is heard, or that it begins."""
        signal.setitimer(signal.ITIMER_REAL, self._seconds)


@contextlib.contextmanager
def no_longer_than(seconds: float) -> Iterator[Silence]:
    """Bear silence for so many seconds; by a signal, which ends any wait of the main thread."""

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    try:
        yield Silence(seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


KINDS: dict[str, Callable[[dict[str, Any]], KernelWay]] = {
    "manager": ManagerWay,
    "info": InfoWay,
    "gateway": GatewayWay,
    "kernel-client": KernelClientWay,
}


class Worker:
    """Does what it is told."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self._way = KINDS[kind](options)

    def start(self) -> dict[str, Any]:
        """Give milliseconds until a front end that waits as all do is ready, and until its first result."""
        began = time.perf_counter()
        self._way.start()
        self._way.wait_for_ready()
        ready = (time.perf_counter() - began) * 1000
        self._way.execute("pass", 60.0)
        first = (time.perf_counter() - began) * 1000
        self._way.execute(PREPARE, 60.0)
        return {"ready": ready, "first": first}

    def restart(self) -> dict[str, Any]:
        began = time.perf_counter()
        self._way.restart()
        self._way.wait_for_ready()
        took = (time.perf_counter() - began) * 1000
        self._way.execute(PREPARE, 60.0)
        return {"ms": took}

    def shutdown(self) -> dict[str, Any]:
        self._way.shutdown()
        return {}

    def latency(self, count: int) -> dict[str, Any]:
        return {"ms": [self._way.execute("pass", 60.0)["ms"] for _ in range(count)]}

    def execute(self, code: str, timeout: float = 120.0) -> dict[str, Any]:
        return self._way.execute(code, timeout)

    def buffers_up(self, count: int, size: int) -> dict[str, Any]:
        self._way.execute("buffers_up()", 60.0)
        began = time.perf_counter()
        self._way.send_buffers(count, size)
        self._way.execute("pass", 120.0)
        return {"ms": (time.perf_counter() - began) * 1000}


def main() -> None:
    worker = Worker(sys.argv[1], json.loads(sys.argv[2]))
    # What libraries print must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"ok": getattr(worker, order.pop("do"))(**order)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
