"""A front end in a process of its own: one kernel by one path, told what to do by lines of JSON.

    python -m benchmarks.worker KIND OPTIONS

It runs in the environment of whose path it is, which may be a peer's, and so imports nothing of this project's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kernel_code import PREPARE
from benchmarks.zmq_client import Collector, Result, ZmqClient


class ManagerPath:
    """A kernelspec's name, as every front end that uses jupyter_client starts it; with a raw client."""

    def __init__(self, options: dict[str, Any]) -> None:
        from jupyter_client.manager import AsyncKernelManager

        self._loop = asyncio.new_event_loop()
        self._manager = AsyncKernelManager(kernel_name=options["kernel_name"])
        self.client: ZmqClient | None = None

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

    def execute(self, code: str, timeout: float) -> Result:
        return self.client.execute(code, timeout)

    def wait_for_ready(self) -> None:
        self.client.wait_for_ready()

    def send_buffers(self, count: int, size: int) -> None:
        self.client.send("comm_open", {"comm_id": "up", "target_name": "benchmark", "data": {}})
        for _ in range(count):
            self.client.send("comm_msg", {"comm_id": "up", "data": {}}, (bytes(size),))


class InfoPath(ManagerPath):
    """A kernel that somebody else started, by the program `command` that prints its connection info as JSON."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._command = options["command"]
        self.client = None

    def start(self) -> None:
        import subprocess

        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(self._command, env=os.environ, **pipes)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command[:3]} ended")
        self.client = ZmqClient(json.loads(line))

    def shutdown(self) -> None:
        self.client.close()
        self._process.communicate(timeout=60)

    def restart(self) -> None:
        raise NotImplementedError


class GatewayPath:
    """jupyter_server's gateway client, at the address of a Jupyter server."""

    def __init__(self, options: dict[str, Any]) -> None:
        from jupyter_server.gateway.gateway_client import GatewayClient
        from jupyter_server.gateway.managers import GatewayMappingKernelManager

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        os.environ |= {"JUPYTER_GATEWAY_URL": options["url"], "JUPYTER_GATEWAY_AUTH_TOKEN": options["token"]}
        GatewayClient.instance().init_connection_args()
        self._managers = GatewayMappingKernelManager()

    def start(self) -> None:
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        kernel_id = await self._managers.start_kernel(kernel_name="python3")
        self._manager = self._managers.get_kernel(kernel_id)
        self._client = self._manager.client()
        await self._client.start_channels()

    def wait_for_ready(self) -> None:
        for pause in (0.05, 0.1, 0.2, 0.4, 0.8, *[1.0] * 60):
            if self._loop.run_until_complete(self._request("kernel_info_request", {}, pause))["idle"]:
                return
        raise TimeoutError

    def execute(self, code: str, timeout: float) -> Result:
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True}
        return self._loop.run_until_complete(self._request("execute_request", content, timeout))

    async def _request(self, kind: str, content: dict[str, Any], timeout: float) -> Result:
        message = self._client.session.msg(kind, content)
        collector = Collector(message["header"]["msg_id"])
        self._client.shell_channel.send(message)
        tasks = [
            asyncio.ensure_future(self._shell(collector)),
            asyncio.ensure_future(self._iopub(collector)),
        ]
        done, pending = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.ALL_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()
        return collector.result()

    @staticmethod
    async def _next(channel: Any) -> dict[str, Any]:
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
            header, parent, content = (
                json.dumps(message[name], default=str).encode() for name in ("header", "parent_header", "content")
            )
            collector.take_output(header, parent, content, len(content))

    def restart(self) -> None:
        self._loop.run_until_complete(self._manager.restart_kernel())

    def shutdown(self) -> None:
        self._client.stop_channels()
        self._loop.run_until_complete(self._manager.shutdown_kernel(now=True))

    def send_buffers(self, count: int, size: int) -> None:
        raise NotImplementedError


class KernelClientPath:
    """jupyter-kernel-client, at the address of a Jupyter server."""

    def __init__(self, options: dict[str, Any]) -> None:
        from jupyter_kernel_client import JupyterKernelClient

        self._client = JupyterKernelClient(server_url=options["url"], token=options["token"])

    def start(self) -> None:
        self._client.start(name="python3")

    def wait_for_ready(self) -> None:
        self.execute("pass", 60.0)

    def execute(self, code: str, timeout: float) -> Result:
        collector = Collector("")

        def output(message: dict[str, Any]) -> None:
            parts = [json.dumps(message[name], default=str).encode() for name in ("header", "parent_header", "content")]
            collector.take_output(*parts, len(parts[2]))

        with contextlib.suppress(TimeoutError):
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


KINDS = {"manager": ManagerPath, "info": InfoPath, "gateway": GatewayPath, "kernel-client": KernelClientPath}


class Worker:
    """Does what it is told."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self._path = KINDS[kind](options)

    def start(self) -> dict[str, Any]:
        """Give milliseconds until `start` came back, and until the first result of a front end that waits as all do."""
        began = time.perf_counter()
        self._path.start()
        started = (time.perf_counter() - began) * 1000
        self._path.wait_for_ready()
        result = self._path.execute("pass", 60.0)
        first = (time.perf_counter() - began) * 1000
        self._path.execute(PREPARE, 60.0)
        return {"started": started, "first": first, "complete": result["idle"]}

    def restart(self) -> dict[str, Any]:
        began = time.perf_counter()
        self._path.restart()
        self._path.wait_for_ready()
        took = (time.perf_counter() - began) * 1000
        self._path.execute(PREPARE, 60.0)
        return {"ms": took}

    def shutdown(self) -> dict[str, Any]:
        self._path.shutdown()
        return {}

    def latency(self, count: int) -> dict[str, Any]:
        return {"ms": [self._path.execute("pass", 60.0)["ms"] for _ in range(count)]}

    def execute(self, code: str, timeout: float = 120.0) -> dict[str, Any]:
        return self._path.execute(code, timeout)

    def buffers_up(self, count: int, size: int) -> dict[str, Any]:
        self._path.execute("buffers_up()", 60.0)
        began = time.perf_counter()
        self._path.send_buffers(count, size)
        self._path.execute("pass", 120.0)
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
