"""Our link and bridge over plain SSH, without broker, GitHub and tunnel: what those cost shows beside it.

    python -m benchmarks.plain_ssh JSON    # host key is not checked: the server was started a moment ago

Prints the connection info of a kernel's local ports as JSON, and ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import paramiko

from codespace_kernels.bootstrap import ensure_server
from codespace_kernels.bridge.bridge import KernelBridge
from codespace_kernels.broker.__main__ import SWITCH_INTERVAL
from codespace_kernels.link.client import LinkClient
from codespace_kernels.ssh.connection import SshConnection
from codespace_kernels.ssh.wire import SocketWire

KEY = b"benchmark"


async def run(options: dict[str, Any]) -> None:
    connection = await SshConnection.connect(
        SocketWire(socket.create_connection(("127.0.0.1", options["port"]), 30)),
        username=options["user"],
        key=paramiko.PKey.from_path(options["key"]),
        check_host_key=lambda key: None,
        description="the far end",
    )
    link = LinkClient()
    server = await ensure_server(connection, install=False, greeting=link.greeting())
    await link.attach(await server.open_link(connection))
    bridge = await KernelBridge.bind(key=KEY, owner=None)
    kernel = await link.start_kernel("python3")
    bridge.attach(kernel)
    info = bridge.connection_info
    print(json.dumps({**info, "key": KEY.decode()}, default=bytes.decode), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await kernel.shutdown()
    await bridge.close()
    await link.close()
    await connection.close()


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_INTERVAL)
    asyncio.run(run(json.loads(sys.argv[1])))
